"""A study file chooses its schedule by a word, with the settings beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.study_file import load_study
from cutlayer.study_file.tables import Tables

Write = Callable[..., Path]

NEEDED = {
    "graph": {"topology": "vanilla", "model": "mlp", "cut": 0.5},
    "data": {"source": "digits"},
    "optimizer": {"name": "SGD"},
}
WORDS = {
    "round_robin": cl.RoundRobin(),
    "splitfed": cl.SplitFed(),
    "parallel": cl.Parallel(),
    "asynchronous": cl.Asynchronous(),
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_alone_is_the_schedule_with_its_defaults(word: str) -> None:
    tables = Tables.model_validate({**NEEDED, "schedule": word})
    assert tables.schedule.model_dump() == dataclasses.asdict(WORDS[word])


def test_settings_stand_beside_the_word(write: Write) -> None:
    more = """
    [schedule]
    name = "splitfed"
    version = 2
    round = 3
    sample = 0.5
    speeds = { client-0 = 2.0 }
    deadline = 4
    late = "partial"
    at_once = 2
    """
    study, holdings = load_study(write("chain", more=more)).build()
    assert study.schedule == cl.SplitFed(
        version=2, round=3, sample=0.5, speeds={"client-0": 2.0}, deadline=4, late="partial", at_once=2
    )
    assert study.simulate(holdings).best_epoch == study.epochs - 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('[schedule]\nname = "splitfde"', "[schedule] name: wrong value"),
        ('[schedule]\nname = "splitfde"', "did you mean 'splitfed'"),
        (
            '[schedule]\nname = "splitfed"\nverion = 1',
            "[schedule]: unknown key 'verion'; did you mean 'version'",
        ),
        ('[schedule]\nname = "splitfed"\nversion = 4', "[schedule] version: wrong value"),
        ('[schedule]\nname = "parallel"\nstaleness = 4', "unknown key 'staleness'"),
        ('[schedule]\nhandover = "peers"', "[schedule] handover: wrong value"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_file(more: str, words: str, write: Write) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write("chain", more=more))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('name = "splitfed"\nsample = 1.5', r"sample is a number of clients.*\[schedule\]"),
        (
            'name = "parallel"\naccumulate = 2',
            r"Parallel has no accumulate: .*\[schedule\].*choose a larger batch_size",
        ),
    ],
)
def test_values_that_cannot_be_name_the_table(settings: str, words: str, write: Write) -> None:
    with pytest.raises(StudyError, match=words):
        load_study(write("chain", more=f"[schedule]\n{settings}")).build()


def test_options_of_a_step_go_with_each_schedule_that_has_them(write: Write) -> None:
    more = '[schedule]\nname = "splitfed"\nversion = 2\naccumulate = 2\nin_flight = 2\nclip = 0.5'
    study, _ = load_study(write("chain", more=more)).build()
    assert study.schedule == cl.SplitFed(version=2, accumulate=2, in_flight=2, clip=0.5)
    study, _ = load_study(write("chain", more="[schedule]\nupdates = true")).build()
    assert study.schedule == cl.RoundRobin(updates=True)
