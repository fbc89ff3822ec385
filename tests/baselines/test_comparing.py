"""A study beside baselines: what is trained once, when they stop, what is drawn and told."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import cutlayer as cl
from cutlayer.baselines import (
    Comparison,
    Curve,
    FedAvg,
    LargeBatch,
    Point,
    compare,
    curve_of,
    spent,
    training_share,
)  # fmt: skip
from cutlayer.baselines.drawing import write_comparison
from cutlayer.errors import StudyError
from cutlayer.metering.events import EpochEnded, Traffic
from cutlayer.metering.run_log import read_log
from cutlayer.study import Study


def study_of(clients: int = 3, test: str | None = None, **settings: object) -> tuple[Study, cl.data.Holdings]:
    people = cl.data.digits().split_rows(clients, test=test)  # type: ignore[arg-type]
    model = cl.networks.mlp((64, 32, 10))
    graph = cl.u_shaped(model, cuts=("linear1", "activation1"), clients=people)
    words: dict[str, object] = {"optimizer": cl.optim.SGD(lr=0.2), "epochs": 2, "name": "digits"} | settings
    return Study(graph=graph, **words), people  # type: ignore[arg-type]


def test_each_is_trained_once_and_the_page_tells_all(tmp_path: Path) -> None:
    study, people = study_of()
    methods = [FedAvg(rounds=2), LargeBatch(rounds=2)]
    told: list[str] = []
    first = compare(study, people, methods, tmp_path, on_progress=lambda name, now: told.append(name))
    assert list(dict.fromkeys(told)) == ["split learning", "federated averaging", "large-batch SGD"]
    logs = {path: path.read_bytes() for path in tmp_path.glob("*/log.jsonl")}
    assert len(logs) == 3
    told.clear()
    again = compare(study, people, methods, tmp_path, on_progress=lambda name, now: told.append(name))
    assert not told and again == first
    assert all(path.read_bytes() == content for path, content in logs.items())

    (tmp_path / "fedavg" / "report.html").touch()
    page = write_comparison(first, tmp_path).read_text()
    assert "federated averaging, 1 local epoch a round" in page
    assert 'href="fedavg/report.html"' in page and "split/report.html" not in page
    assert all(line.split(",")[0] in page for line in first.sentences())
    assert (tmp_path / "compare.svg").stat().st_size > 1000 and (
        tmp_path / "compare.png"
    ).stat().st_size > 1000
    numbers = json.loads((tmp_path / "compare.json").read_text())
    assert numbers["curves"]["large-batch SGD"][-1]["score"] == first.curves[2].points[-1].score
    table = first.table()
    assert table.column("method") == ("split learning", "federated averaging", "large-batch SGD")
    # U-shaped: the head and the tail are the clients', so only the activation in the middle is not; it has no FLOPs
    flops = table.column("compute (FLOP)")
    assert flops[0] == flops[1] == flops[2]


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    study, people = study_of(epochs=1)
    compare(study, people, [], tmp_path)
    other, _ = study_of(epochs=1, seed=1)
    with pytest.raises(StudyError, match="the run in that folder is of another study"):
        compare(other, people, [], tmp_path)


@pytest.mark.parametrize("equal", ["compute", "traffic"])
def test_equal_costs_stop_after_the_round_that_reaches_them(equal: str, tmp_path: Path) -> None:
    study, people = study_of(epochs=1, test="first")
    methods = [LargeBatch(rounds=10_000, steps=1)]
    found = compare(study, people, methods, tmp_path, equal=equal, times=0.5)
    axis = {"compute": "flops", "traffic": "bytes"}[equal]
    limit = 0.5 * getattr(found.split.points[-1], axis)
    *before, last = [getattr(point, axis) for point in found.curves[1].points]
    assert last >= limit and all(cost < limit for cost in before) and len(before) > 1


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    study, people = study_of(epochs=1)
    for words, why in (
        ({"equal": "computing"}, "compute"),
        ({"times": 0.0}, "times is a number above 0"),
    ):
        with pytest.raises(StudyError, match=why):
            compare(study, people, [], tmp_path, **words)  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="named twice"):
        compare(study, people, [FedAvg(), FedAvg(rounds=2)], tmp_path)
    silent, _ = study_of(epochs=1, evaluate=())
    with pytest.raises(StudyError, match="measures nothing"):
        compare(silent, people, [], tmp_path / "silent")


def test_hand_overs_to_measure_are_no_costs_of_training(tmp_path: Path) -> None:
    quiet, people = study_of(epochs=2, evaluate=())
    measured, _ = study_of(epochs=2)
    names = [party.name for party in people.parties]
    alone = quiet.simulate(people).events
    both = measured.simulate(people).events
    share = training_share(measured, people, 2)
    assert spent(both, names).bytes > 1.01 * spent(alone, names).bytes
    # Sent to measure, frames are as long as those sent to train, but for a few bytes of steps' numbers.
    assert spent(both, names, share).bytes == pytest.approx(spent(alone, names).bytes, rel=1e-3)
    assert training_share(quiet, people, 2) == {0: 1.0, 1: 1.0}


def test_a_curve_is_what_the_log_says(tmp_path: Path) -> None:
    study, people = study_of(epochs=3, test="first")
    run = study.simulate(people, out=tmp_path)
    events = read_log(tmp_path)
    curve = curve_of("split", events, ["client-0"], "loss")
    assert [point.epoch for point in curve.points] == [0, 1, 2] and not curve.higher
    assert curve.points[-1].score == run.metrics("test")["loss"] == curve.best
    ended = [e.seconds for e in events if isinstance(e, EpochEnded)]
    assert curve.points[1].seconds == pytest.approx(ended[0] + ended[1])
    own = [
        e
        for e in events
        if isinstance(e, Traffic) and e.phase != "evaluation" and "client-0" in (e.sender, e.receiver)
    ]
    assert curve.points[-1].bytes == sum(e.frame_bytes for e in own)


def test_points_within_a_limit_and_past_a_score() -> None:
    curve = Curve("one", tuple(Point(n, 10.0 * (n + 1), 1.0, 1.0, 0.1 * n) for n in range(4)))
    assert curve.at("flops", 25.0) == curve.points[1] and curve.at("flops", 5.0) is None
    assert curve.passing(0.2) == curve.points[2] and curve.passing(0.9) is None
    falling = Curve("loss", curve.points[::-1], higher=False)
    assert falling.passing(0.15) == falling.points[2] and falling.best == 0.0
    assert math.isnan(Curve("none", ()).best)


def test_what_was_measured_too_late_is_left_blank() -> None:
    late = Curve("late", (Point(0, 100.0, 10.0, 1.0, 0.5),))
    early = Curve("split learning", (Point(0, 10.0, 100.0, 1.0, 0.9),))
    found = Comparison(name="n", clients=1, metric="accuracy", curves=(early, late), settings={}, folders={})
    assert found.table().column("at split's compute") == (0.9, None)
    assert found.table().column("at split's traffic") == (0.9, 0.5)
    compute, traffic = found.sentences()
    assert "late was not measured within it" in compute and "late 0.500 (it had used 10.0% of it" in traffic
