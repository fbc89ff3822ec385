"""A study as a file: ``study.toml`` says the same as a Python program, without Python.

>>> study, holdings = load_study("examples/digits/study.toml").build()
>>> run = study.simulate(holdings)

Reading and checking the file needs no PyTorch; building the study does. Every table and key is in
:mod:`cutlayer.study_file.tables`; ``docs/study-file.md`` explains them.
"""

from __future__ import annotations

from .party_tables import NetworkTable
from .reading import PartyStudy, StudyFile, load_study

__all__ = ["NetworkTable", "PartyStudy", "StudyFile", "load_study"]
