"""A study file with few labels: a decoder, its weight, the share of rows with labels, the schedule's word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cutlayer.errors import DataError, StudyError
from cutlayer.study_file import load_study

Write = Callable[..., Path]

DECODER = 'decoder = { function = "mlp", arguments = { sizes = [16, 64] } }\nalpha = 0.5\n'


def semi(write: Write, *, decoder: str = DECODER, data: str = "labelled = 0.05\n") -> Path:
    path = write("chain", more="[schedule]\nunlabelled = true\n")
    text = path.read_text(encoding="utf-8")
    text = text.replace("[data]\n", decoder + "\n[data]\n" + data)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_words_make_the_study(write: Write) -> None:
    study, people = load_study(semi(write)).build()
    assert study.graph.losses["reconstruction"].weight == 0.5
    assert study.graph.roles["client"].parties == ("client-0", "client-1")
    for party in people.parties:
        train, rest = party.splits["train"], party.splits["unlabelled"]
        assert len(train) == round(0.05 * (len(train) + len(rest))) and set(rest.fields) == {"x"}
    run = study.simulate(people)
    assert run.equals(study.central(people))


def test_without_a_decoder_or_with_labels_elsewhere_it_is_refused(write: Write) -> None:
    with pytest.raises(StudyError, match="no party has a decoder"):
        load_study(semi(write, decoder="")).build()
    with pytest.raises(DataError, match="does not hold both records and the label"):
        load_study(semi(write, data='labelled = 0.05\nlabels = "server"\n')).build()


@pytest.mark.parametrize(
    ("decoder", "data", "words"),
    [
        (DECODER.replace("0.5", "0.0"), "", "[graph] alpha: wrong value"),
        (DECODER.replace("alpha", "alfa"), "", "unknown key 'alfa'; did you mean 'alpha'"),
        (DECODER, "labelled = 50\n", "[data] labelled: wrong value"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_file(
    decoder: str, data: str, words: str, write: Write
) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(semi(write, decoder=decoder, data=data))
    assert words in str(caught.value)
