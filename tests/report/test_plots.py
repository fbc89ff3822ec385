from __future__ import annotations

import dataclasses

import pytest
from PIL import Image
from sample_run import events, leaking_events

from cutlayer.errors import LogError
from cutlayer.metering.events import Began, Ended, EpochEnded, Measured, Noted
from cutlayer.report.plots import (
    PLOTS,
    comparing,
    computing,
    crossing,
    leaking,
    learning,
    save_plots,
    working,
)


def lines(figure):
    return {
        axis.get_title(): {line.get_label(): line for line in axis.lines}
        for axis in figure.axes
        if axis.lines
    }


def bar_names(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_files_are_images_and_the_same_each_time(tmp_path):
    log = events(clients=1, epochs=2)
    written = save_plots(log, tmp_path / "deep" / "plots")
    again = save_plots(log, tmp_path / "again")
    assert list(written) == list(again) == ["learning", "traffic", "compute", "time"]
    for name, path in written.items():
        with Image.open(path) as image:
            assert image.format == "PNG" and image.width > 1000
            colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
        assert len(colours) > 50
        assert path.with_suffix(".svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
        assert path.read_bytes() == again[name].read_bytes()
        assert path.with_suffix(".svg").read_bytes() == again[name].with_suffix(".svg").read_bytes()


def test_nothing_noted_draws_nothing(tmp_path):
    log = [event for event in events() if isinstance(event, Began | Noted | Ended)]
    assert save_plots(log, tmp_path / "plots") == {}
    assert not (tmp_path / "plots").exists()


def test_losses_and_metrics_by_epoch():
    found = lines(learning(events(epochs=3)))
    assert list(found) == ["loss", "accuracy", "auc"]
    assert list(found["loss"]) == ["training", "valid", "test"]
    assert list(found["accuracy"]) == ["valid", "test"]
    assert found["loss"]["training"].get_xdata().tolist() == [1, 2, 3]
    assert found["loss"]["training"].get_ydata() == pytest.approx([0.7, 0.35, 0.7 / 3])
    assert found["accuracy"]["test"].get_ydata() == pytest.approx([0.7, 0.74, 0.78])
    assert found["loss"]["valid"].get_color() == found["accuracy"]["valid"].get_color()


def test_several_losses_have_panels_of_their_own():
    log = [EpochEnded(epoch=0, steps=1, rows=1, losses={"a": 1.0, "b": 2.0}, seconds=1.0)]
    for name in "ab":
        log.append(
            Measured(
                epoch=0, split="test", loss=name, party="p", rows=2, metrics={"loss": 0.5, "accuracy": 0.9}
            )
        )
    found = lines(learning(log))
    assert {title: list(of) for title, of in found.items()} == {
        "a": ["training", "test"], "b": ["training", "test"],
        "accuracy, a": ["test"], "accuracy, b": ["test"],
    }  # fmt: skip


def test_what_is_not_finite_is_left_out():
    log = [
        EpochEnded(epoch=i, steps=1, rows=1, losses={"loss": value}, seconds=1.0)
        for i, value in enumerate([1.0, float("nan"), float("inf"), 0.5])
    ]
    assert lines(learning(log))["loss"]["training"].get_xdata().tolist() == [1, 4]
    assert learning(log[1:3]) is None


def test_bars_are_as_long_as_the_bytes():
    figure = crossing(events(clients=2, epochs=1))
    assert bar_names(figure) == [
        "head → server\nactivation", "body → client\nactivation", "body ← client\ngradient",
        "head ← server\ngradient", "hand-over of client",
    ]  # fmt: skip
    axis = figure.axes[0]
    assert axis.containers[0].get_label() == "training"
    training = sum(bar.get_width() for bar in axis.containers[0])
    assert training == 4 * (3 * 64 * (40 + 41) + 2 * 480)


def test_leaks_are_drawn_between_a_guess_and_certainty_from_epoch_one_on():
    log = leaking_events({"leak AUC by cosine": [0.97, 0.99, 1.0]})
    figure = leaking(log)
    found = lines(figure)["leak AUC by cosine"]
    assert list(found) == ["body ← client", "a guess"]
    assert list(found["body ← client"].get_xdata()) == [1, 2, 3]
    low, high = figure.axes[0].get_ylim()
    assert low < 0.5 and high > 1


def test_parties_and_actions_are_named():
    assert bar_names(computing(events(clients=3))) == ["hospital-1", "hospital-2", "hospital-3", "server"]
    assert bar_names(computing(events(clients=30))) == ["client (30 parties)", "server"]
    assert bar_names(working(events(clients=3)))[0] == "forward"


def test_many_bars_are_cut_to_the_largest():
    log = events(clients=8)
    renamed = [
        dataclasses.replace(e, cut=f"{e.cut} {i}") if e.kind == "traffic" and i % 3 == 0 else e
        for i, e in enumerate(log)
    ]
    figure = crossing(renamed)
    assert len(bar_names(figure)) == 10
    assert "the largest 10 of " in figure.axes[0].get_title()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "plots").write_text("in the way")
    with pytest.raises(LogError, match=r"cannot write .*plots: .*choose a folder"):
        save_plots(events(), tmp_path / "plots")


def test_every_plot_is_known():
    assert set(PLOTS) == {"comparison", "protection", "learning", "traffic", "compute", "time"}


def test_a_comparison_is_drawn_with_the_best_marked():
    few = Noted(subject="two", text="", figures={"a": 0.1, "b": 0.2})
    compared = Noted(
        subject="AUC", text="", figures={"clinic alone": 0.74, "registry alone": 0.75, "joined": 0.84}
    )
    assert comparing([few]) is None
    figure = comparing([few, compared])
    assert bar_names(figure) == ["clinic alone", "registry alone", "joined"]
    assert figure.axes[0].get_title() == "AUC"
    colours = figure.axes[0].collections[1].get_facecolors()
    assert (colours[2] != colours[0]).any() and (colours[0] == colours[1]).all()
