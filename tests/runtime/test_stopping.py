"""Early stopping: one label holder judges, everyone hears it, and the best epoch's weights are taken up again."""

from dataclasses import dataclass

import pytest
import torch
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.data import Deal
from cutlayer.errors import StudyError
from cutlayer.metering.events import Ended, Measured
from cutlayer.runtime.stopping import EarlyStopping, Judge, Verdict


def verdicts(values, **settings):
    judge = Judge(EarlyStopping(**settings), "loss")
    return [(v.best, v.stop) for v in (judge.decide("verdict/0", [(10, value)]) for value in values)]


def test_losses_want_to_be_low():
    assert verdicts([3.0, 2.0, 2.5, 1.0, 1.5, 1.0], patience=2) == [
        (True, False), (True, False), (False, False), (True, False), (False, False), (False, True),
    ]  # fmt: skip


def test_accuracy_wants_to_be_high():
    assert verdicts([0.5, 0.4, 0.6], metric="accuracy", patience=3) == [
        (True, False),
        (False, False),
        (True, False),
    ]
    assert verdicts([0.5, 0.6, 0.5], metric="rmse", patience=1) == [
        (True, False),
        (False, True),
        (False, True),
    ]


def test_an_improvement_that_is_too_small_counts_as_none():
    assert verdicts([1.0, 0.95, 0.85], min_delta=0.1, patience=5) == [
        (True, False),
        (False, False),
        (True, False),
    ]


def test_numbers_of_several_are_averaged_by_rows():
    judge = Judge(EarlyStopping(patience=1), "loss")
    assert judge.decide("a", [(1, 5.0), (9, 1.0)]).best  # 1.4
    assert judge.decide("b", [(5, 1.3), (5, 1.4)]) == Verdict("b", stop=False, best=True)
    assert judge.decide("c", [(9, 5.0), (1, 1.0)]) == Verdict("c", stop=True, best=False)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(StudyError, match="patience must be at least 1 epoch; got 0"):
        EarlyStopping(patience=0)
    with pytest.raises(StudyError, match=r"no metric is named 'acuracy'; did you mean 'accuracy'\?"):
        EarlyStopping(metric="acuracy")
    for wrong in (-0.1, float("nan")):
        with pytest.raises(StudyError, match="min_delta is 0 or more"):
            EarlyStopping(min_delta=wrong)


# In a study


def with_validation(clients=3, seed=0):
    source, *_ = pooled(40, test=8, seed=seed)
    return source.hold_out(test=0, valid=0.3).split_rows(clients)


def stopping_study(people, early_stopping, **more):
    graph = more.pop("graph", None) or cl.vanilla(cl.networks.mlp((6, 16, 3)), "linear1", clients=people)
    settings = {"optimizer": cl.optim.Adam(lr=0.05), "epochs": 12, "early_stopping": early_stopping}
    return study_of(graph, **(settings | more))


def numbers(run, split="valid", metric="loss"):
    """The metric of each epoch, averaged by rows."""
    epochs = {}
    for event in run.events:
        if isinstance(event, Measured) and event.split == split:
            epochs.setdefault(event.epoch, []).append((event.rows, event.metrics[metric]))
    return [sum(n * v for n, v in found) / sum(n for n, _ in found) for _, found in sorted(epochs.items())]


@pytest.mark.parametrize("handover", ["peer", "server"])
@pytest.mark.parametrize("shape", ["vanilla", "u_shaped"])
def test_training_stops_and_goes_back_to_the_best_epoch(shape, handover):
    """Random labels are learnt by heart, so the validation loss soon rises."""
    people = with_validation()
    net = cl.networks.mlp((6, 16, 16, 3))
    make = {"vanilla": lambda: cl.vanilla(net, "linear1", clients=people),
            "u_shaped": lambda: cl.u_shaped(net, ("linear1", "linear2"), clients=people)}[shape]  # fmt: skip
    schedule = cl.RoundRobin(handover=handover)
    run = stopping_study(people, EarlyStopping(patience=2), graph=make(), schedule=schedule).simulate(people)
    losses = numbers(run)
    best = losses.index(min(losses))
    ended = run.events[-1]
    assert isinstance(ended, Ended) and ended.reason == "no better loss for 2 epochs"
    assert len(losses) == ended.epochs == best + 3 < 12 and ended.best_epoch == best
    until_best = stopping_study(people, None, graph=make(), epochs=best + 1).simulate(people)
    assert run.equals(until_best)
    x = torch.randn(4, 6)
    assert torch.equal(run.predict(x), until_best.predict(x))


def test_a_stopped_run_equals_the_twin_of_its_best_epoch_and_is_compared_with_no_other(tmp_path):
    people = with_validation()
    study = stopping_study(people, EarlyStopping(patience=2))
    run = study.simulate(people, out=tmp_path)
    assert run.best_epoch + 1 < study.epochs
    written = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(StudyError, match=r"study.central\(holdings, epochs=run.best_epoch \+ 1\)$") as caught:
        run.equals(study.central(people))
    assert f"weights are of epoch {run.best_epoch} and the twin's of epoch 11" in str(caught.value)
    assert (tmp_path / "log.jsonl").read_bytes() == written
    assert run.equals(study.central(people, epochs=run.best_epoch + 1))


def test_a_run_is_not_compared_with_another_network():
    people = with_validation()
    run = stopping_study(people, None, epochs=1).simulate(people)
    for net, cut in (((6, 16, 3), "activation1"), ((6, 8, 3), "linear1")):
        other = cl.vanilla(cl.networks.mlp(net), cut, clients=people)
        twin = stopping_study(people, None, epochs=1, graph=other).central(people)
        if net == (6, 16, 3):
            assert run.equals(twin)  # an activation has no weights
            continue
        with pytest.raises(StudyError, match="the twin is of another network: its segments have other"):
            run.equals(twin)
    assert len([e for e in run.events if e.kind == "noted"]) == 1


def test_where_the_last_epoch_is_the_best_nothing_is_taken_back():
    people = with_validation()
    stopping = EarlyStopping(patience=3, metric="loss", split="valid")
    run = stopping_study(people, stopping, epochs=2, optimizer=cl.optim.SGD(lr=1e-3)).simulate(people)
    losses = numbers(run)
    assert losses[1] < losses[0]
    assert (run.events[-1].reason, run.events[-1].best_epoch) == ("all epochs done", 1)
    assert run.equals(
        stopping_study(people, None, epochs=2, optimizer=cl.optim.SGD(lr=1e-3)).simulate(people)
    )


def test_several_judged_labels_are_told_to_the_judge_and_the_verdict_to_everyone():
    people = with_validation()
    graph = cl.u_shaped(cl.networks.mlp((6, 16, 16, 3)), ("linear1", "linear2"), clients=people)
    run = stopping_study(people, EarlyStopping(patience=9), graph=graph, epochs=2).simulate(people)
    told = [
        (e.cut, e.sender, e.receiver, e.frames) for e in run.events if e.kind == "traffic" and e.epoch == 0
    ]
    numbers_told = {t for t in told if t[0] in ("metrics", "verdict")}
    assert numbers_told == {
        ("metrics", "client-1", "client-0", 1), ("metrics", "client-2", "client-0", 1),
        ("verdict", "client-0", "client-1", 1), ("verdict", "client-0", "client-2", 1),
        ("verdict", "client-0", "server", 1),
    }  # fmt: skip


@pytest.mark.parametrize("judged", [None, "loss-kind", "loss-sign"])
def test_any_of_several_losses_may_be_judged_by(judged):
    source, *_ = pooled(40, test=8)
    columns = {"clinic": slice(0, 3), "lab": slice(3, 6)}
    dealt = source.hold_out(test=0, valid=0.3).split(columns, Deal(n=2), labels="kind", labels_split=True)
    parties = {p.name: p.splits for p in dealt.parties}
    roles = {p.name: p.role for p in dealt.parties}
    for name in ("kind-0", "kind-1"):
        parties[name.replace("kind", "sign")], roles[name.replace("kind", "sign")] = parties[name], "sign"
    people = cl.data.Holdings.of(parties, roles)
    bottoms = {role: nn.Linear(3, 4) for role in columns}
    graph = cl.multi_task(bottoms, {"kind": nn.Linear(8, 3), "sign": nn.Linear(8, 3)}, parties=people)
    run = stopping_study(people, EarlyStopping(loss=judged, patience=9), graph=graph, epochs=2).simulate(
        people
    )
    judges = {e.sender for e in run.events if e.kind == "traffic" and e.cut == "verdict"}
    assert judges == {"sign-0" if judged == "loss-sign" else "kind-0"}


def test_what_cannot_be_judged_by_is_refused_before_training():
    people = with_validation()
    cases = {
        r"wants the split 'test', which nobody has": (EarlyStopping(split="test"), {}),
        r"judges by 'valid', which is not evaluated; got test": (EarlyStopping(), {"evaluate": ("test",)}),
        r"judges by the unknown loss 'lost'; did you mean 'loss'\?": (EarlyStopping(loss="lost"), {}),
        r"judges by 'auc', which is not measured; got accuracy; add it": (
            EarlyStopping(metric="auc"), {"metrics": ("accuracy",)},
        ),
    }  # fmt: skip
    source, *_ = pooled(40, test=0)
    for why, (stopping, settings) in cases.items():
        data = source.hold_out(test=0, valid=0.3).split_rows(3) if "nobody" in why else people
        with pytest.raises(StudyError, match=why):
            stopping_study(data, stopping, **settings).simulate(data)


@pytest.mark.parametrize(
    "settings", [{"early_stopping": EarlyStopping(metric="rmse")}, {"metrics": ("rmse",)}]
)
def test_a_metric_that_does_not_fit_the_task_is_refused_before_training(settings):
    people, seen = with_validation(), []
    graph = cl.vanilla(cl.networks.mlp((6, 16, 3)), "linear1", clients=people)
    why = "metric 'rmse' does not fit a multiclass task, that of loss 'loss'; known: accuracy"
    with pytest.raises(StudyError, match=why):
        study_of(graph, **settings).simulate(people, on_progress=seen.append)
    assert not seen


class PowerCut(Exception):
    """Ends a run in the middle."""


@dataclass(frozen=True, kw_only=True)
class CutOff(cl.RoundRobin):
    """Round robin whose third epoch breaks off after three steps."""

    def epoch(self, graph, calendar, epoch):
        for number, item in enumerate(super().epoch(graph, calendar, epoch)):
            if (epoch, number) == (2, 3):
                raise PowerCut
            yield item


def test_a_run_that_may_stop_early_is_resumed_with_what_its_judge_remembers(tmp_path):
    people = with_validation()
    settings = EarlyStopping(patience=4)
    whole = stopping_study(people, settings, batch_size=8).simulate(people)
    ended = [e for e in whole.events if isinstance(e, Ended)][-1]
    assert ended.epochs > 3, "the run must outlast the power cut"
    with pytest.raises(PowerCut):
        stopping_study(people, settings, batch_size=8, schedule=CutOff()).simulate(people, out=tmp_path)
    resumed = stopping_study(people, settings, batch_size=8).simulate(people, out=tmp_path, resume=True)
    again = [e for e in resumed.events if isinstance(e, Ended)][-1]
    assert (again.epochs, again.best_epoch, again.reason) == (ended.epochs, ended.best_epoch, ended.reason)
    for segment, weights in whole.weights().items():
        for name, tensor in weights.items():
            assert torch.equal(resumed.weights()[segment][name], tensor)
