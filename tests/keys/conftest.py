"""A study's authority with two parties, made once; tests that change it make their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cutlayer.keys import Authority, Credentials


@pytest.fixture(scope="session")
def study_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``authority`` and the parties ``ann``, ``ben`` and ``host``. To be read only."""
    place = tmp_path_factory.mktemp("keys")
    authority = Authority.create(place / "authority", "small study")
    for party in ("ann", "ben", "host"):
        authority.issue(party, place / party)
    return place


@pytest.fixture
def ann(study_keys: Path) -> Credentials:
    return Credentials.load(study_keys / "ann")


@pytest.fixture
def ben(study_keys: Path) -> Credentials:
    return Credentials.load(study_keys / "ben")


@pytest.fixture
def own(tmp_path: Path) -> Authority:
    """An authority that a test may change, in ``tmp_path / "authority"``."""
    return Authority.create(tmp_path / "authority", "small study")
