"""The table of defences and leaks, and its place in the report."""

from __future__ import annotations

import pytest

from cutlayer.metering.events import Began, Defended
from cutlayer.metering.protection import by_epoch, protection
from cutlayer.report.plots import leaking


def began() -> Began:
    return Began(
        name="n", study="s", digest="d", seed=1, epochs=2, batch_size=3, schedule="s", optimizer="o",
        parties={"clinic-a": "client", "clinic-b": "client", "server": "server"}, graph="g", mermaid="m", svg="<svg/>",
        disclosures={}, holdings="h", versions={}, started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def noted(
    epoch: int, party: str, value: float, what: str = "nopeek:0.1", measure: str = "distance correlation"
) -> Defended:
    return Defended(epoch=epoch, party=party, cut="head->server", defence=what, facts={measure: value})


EVENTS = [
    began(),
    noted(0, "clinic-a", 0.9), noted(0, "clinic-b", 0.7),
    noted(1, "clinic-a", 0.5), noted(1, "clinic-b", 0.3),
    noted(1, "server", 0.2, "label leak", "leak AUC by norm"),
]  # fmt: skip


def test_parties_of_one_role_are_one_row_with_their_mean_in_the_first_and_last_epoch() -> None:
    table = protection(EVENTS)
    assert [row[:4] for row in table.rows] == [
        ("client", "head->server", "nopeek:0.1", "distance correlation"),
        ("server", "head->server", "label leak", "leak AUC by norm"),
    ]
    assert table.rows[0][4:] == (pytest.approx(0.8), pytest.approx(0.4), 2)
    assert "0.5 is a guess" in table.note and "pairs permuted" in table.note
    assert "0.5 is a guess" not in protection(EVENTS[:-1]).note
    assert not protection([began()]).rows


def test_measures_of_several_epochs_are_drawn() -> None:
    key = ("client", "head->server", "nopeek:0.1", "distance correlation")
    assert by_epoch(EVENTS)[key] == {0: pytest.approx(0.8), 1: pytest.approx(0.4)}
    figure = leaking(EVENTS)
    assert figure is not None
    assert [axis.get_title() for axis in figure.axes] == ["distance correlation"]
    assert leaking([began()]) is None
