"""A study file's words for mixed precision, compiled segments and devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cutlayer.errors import StudyError
from cutlayer.study_file import load_study

Write = Callable[..., Path]


def test_the_words_make_the_study(write: Write) -> None:
    words = 'seed = 3\nprecision = { top = "bfloat16" }\ncompiled = ["top"]\ndevice = { server = "cuda:7" }'
    study, people = load_study(write("chain", ("seed = 3", words))).build()
    assert study.mixed == {"top": "bfloat16"} and study.compiled == ("top",)
    assert study.settings.devices == {"client-0": "cpu", "client-1": "cpu", "server": "cuda:7"}
    with pytest.raises(StudyError, match="server: there is no such GPU"):
        study.simulate(people)  # but whoever has no part on it can build it


def test_all_segments_in_bfloat16(write: Write) -> None:
    study, people = load_study(write("chain", ("seed = 3", 'seed = 3\nprecision = "bfloat16"'))).build()
    assert study.simulate(people).equals(study.central(people))


def test_a_party_computes_elsewhere_than_the_file_says(write: Write) -> None:
    file = load_study(write("chain", ("seed = 3", 'seed = 3\ndevice = "cuda:7"')))
    with pytest.raises(StudyError, match=r"no such GPU: .* \(study.toml, \[study\]\)"):
        file.at("client-0")
    assert file.on(None) is file
    mine = file.on("cpu").at("client-0").study
    assert mine.device == "cpu"
    assert mine.digest == load_study(write("chain")).at("client-0").study.digest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ('precision = "float16"', "'float16' is not offered"),
        (
            'precision = { tpo = "bfloat16" }',
            "unknown segment 'tpo' (study.toml, [study]); did you mean 'top'",
        ),
        ('compiled = ["tpo"]', "no segment 'tpo' to compile (study.toml, [study]); did you mean 'top'"),
        (
            'device = { servr = "cpu" }',
            "neither a party nor a role (study.toml, [study]); did you mean 'server'",
        ),
        (
            "precision = 16",
            '[study] precision: wrong value; got 16; expected "float32" or "bfloat16" for all',
        ),
        ("device = 0", '[study] device: wrong value; got 0; expected a word such as "cuda" for all'),
        ('compiled = "top"', "[study] compiled: wrong value"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_file(words: str, told: str, write: Write) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write("chain", ("seed = 3", words))).build()
    assert told in str(caught.value)
