from __future__ import annotations

import pytest
from sample_run import events, leaking_events, write

from cutlayer.report.html import write_report
from cutlayer.report.telling import told_of_labels


def test_what_was_not_measured_is_not_told():
    assert told_of_labels(events()) is None


@pytest.mark.parametrize(
    ("auc", "title", "grave"),
    [
        (0.99, "Gradients told nearly everything about labels", True),
        (0.75, "Gradients told much about labels", True),
        (0.62, "Gradients told something about labels", False),
        (0.51, "Gradients told hardly anything about labels", False),
    ],
)
def test_words_follow_the_worst_epoch_of_the_best_measure(auc: float, title: str, grave: bool):
    told = told_of_labels(leaking_events({"leak AUC by norm": [0.5, 0.5], "leak AUC by cosine": [auc, 0.5]}))
    assert told is not None
    assert (told.title, told.grave) == (title, grave)
    assert "The direction alone of a row's gradient, as server receives it over body<-client" in told.text
    assert f"AUC of {auc:.2f}" in told.text
    assert ("defences" in told.text) == (auc > 0.6)


def test_the_report_warns_and_does_not_stop_at_labels_that_were_not_sent(tmp_path):
    leaking = write_report(
        write(tmp_path / "a", leaking_events({"leak AUC by norm": [0.9, 0.95]}))
    ).read_text()
    assert 'warning"><h3>Gradients told nearly everything about labels' in leaking
    assert (
        "No message of this run carried labels. What gradients tell of them stands further down." in leaking
    )
    tight = write_report(write(tmp_path / "b", events())).read_text()
    assert "Gradients told" not in tight and "further down" not in tight
