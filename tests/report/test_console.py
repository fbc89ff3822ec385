from __future__ import annotations

import io

from rich.console import Console
from sample_run import events, own_events

from cutlayer.metering.events import Noted
from cutlayer.report import summary


def shown(log) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(summary(log))
    return console.export_text()


def test_key_tables_are_shown():
    text = shown(events())
    for words in (
        "Sepsis in five hospitals (u_shaped)",
        "Metrics by epoch",
        "Traffic by cut",
        "Compute by party",
        "4 of 4",
    ):
        assert words in text
    assert "central twin" in text and "equal to the last bit" in text and "weights 578" in text
    assert "Run, not finished" not in text


def test_a_run_that_goes_on():
    assert "Run, not finished" in shown(events()[:-1])
    assert "Run, not finished" in shown([])


def test_only_the_last_epochs():
    text = shown(events(epochs=12))
    assert "Metrics by epoch, the last 6" in text
    assert "0.6000" not in text and "0.0500" in text


def test_brackets_are_text():
    assert "[bold]no markup[/bold] [/]" in shown(
        [*events(), Noted(subject="s", text="[bold]no markup[/bold] [/]")]
    )


def test_in_80_columns_no_word_is_broken():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary(events()))
    text = console.export_text()
    lines = text.splitlines()
    for word in ("training", "evaluation", "activation", "gradient", "hand-over"):
        assert sum(word in line.split() for line in lines) >= 2
    assert " KB" in text and max(map(len, lines)) <= 80


def test_a_party_s_own_log_says_whose_it_is():
    text = shown(own_events("hospital-1"))
    assert "log of" in text and "hospital-1, about its own part only" in text
    assert "sent in training" in text and "traffic in training" not in text
    assert "What hospital-1 sent, by receiver" in text and "hospital-3" not in text
