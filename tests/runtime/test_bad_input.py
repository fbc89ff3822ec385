"""Bad input: a clear error that names who, where and when; nothing wrong is sent, stepped on or kept."""

import numpy as np
import pytest
import torch
from small_studies import study_of
from torch import nn
from two_clients import CLIENTS, GOOD, GRAPH, NET, clients, listening, records, simulate

import cutlayer as cl
from cutlayer.data import Holdings, Records
from cutlayer.errors import (
    AlignmentError,
    DataError,
    NumericsError,
    ProgramError,
    StudyError,
)
from cutlayer.metering.run_log import read_log
from cutlayer.schedules import Program
from cutlayer.wire import Kind, decode


def spoilt(value, row=3):
    x = records(seed=1).fields["x"].clone()
    x[row, 2] = value
    return x


# Numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_in_the_data_are_traced_to_the_cut_they_came_over(value, tmp_path):
    with pytest.raises(NumericsError) as caught:
        simulate(clients(train=records(x=spoilt(value))), out=tmp_path, epochs=1)
    error = caught.value
    assert (error.party, error.cut) == ("server", "head->server") and 3 <= error.step < 6
    assert "loss 'loss' is nan: the activation head:linear1 of role 'client' holds NaN or infinity" in str(
        error
    )
    assert "look for NaN in the data" in error.todo
    assert [event.kind for event in read_log(tmp_path)] == ["began", "placed", "placed"]
    assert not (tmp_path / "snapshot").exists()


def test_of_several_cuts_the_one_with_the_wrong_numbers_is_named():
    def part(width, value=None):
        x = torch.randn(10, width)
        if value is not None:
            x[4, 0] = value
        return {"train": Records(np.arange(10), {"x": x})}

    labels = {"train": Records(np.arange(10), {"y": torch.arange(10) % 3})}
    people = Holdings.of({"clinic": part(3), "lab": part(2, float("nan")), "server": labels})
    bottoms = {"clinic": nn.Linear(3, 4), "lab": nn.Linear(2, 4)}
    graph = cl.vertical(bottoms, nn.Linear(8, 3), parties=people)
    with pytest.raises(
        NumericsError, match=r"server, cut lab->server, step \d: .*activation lab:out of role 'lab'"
    ):
        simulate(people, graph)


class RootOfNothing(nn.Module):
    """Its value is 0, its gradient infinite."""

    def forward(self, x):
        return (x * 0).sqrt()


def test_a_gradient_that_is_no_number_is_not_sent():
    model = nn.Sequential(nn.Linear(6, 8), RootOfNothing(), nn.Linear(8, 3))
    graph = cl.vanilla(model, "0", clients=GOOD)
    with pytest.raises(NumericsError) as caught:
        simulate(GOOD, graph)
    assert str(caught.value).startswith(
        "server, cut head<-server, step 0: the gradient 'layer_0' holds NaN or infinity in 32 of 32 values"
    )
    simulation, heard = listening(graph)
    with pytest.raises(NumericsError):
        simulation.train()
    assert [decode(frame).kind for frame in heard] == [Kind.ACTIVATION]


def test_a_loss_that_is_no_number_for_no_reason_at_a_cut_names_itself():
    graph = cl.vanilla(NET, "linear1", clients=GOOD, loss=lambda made, label: made.sum() * float("nan"))
    with pytest.raises(NumericsError, match=r"^server, step 0: loss 'loss' is nan; lower the learning rate"):
        simulate(GOOD, graph)


def test_a_learning_rate_that_is_too_high_is_found_and_the_last_snapshot_kept(tmp_path):
    explodes = cl.optim.SGD(lr=0.1, schedule=cl.optim.StepLR(step_size=2, gamma=1e30))
    with pytest.raises(NumericsError, match=r"NaN or infinity|loss 'loss' is (nan|inf)"):
        simulate(GOOD, optimizer=explodes, epochs=9, out=tmp_path)
    kept = [event.epoch for event in read_log(tmp_path) if event.kind == "epoch_ended"]
    assert kept == [0, 1]
    study = study_of(GRAPH, optimizer=explodes, epochs=2, batch_size=4)
    assert all(t.isfinite().all() for w in study.simulate(GOOD).weights().values() for t in w.values())


@pytest.mark.parametrize("evaluate", [(), ("test",)])
def test_weights_that_are_no_numbers_after_the_last_step_are_found(evaluate, tmp_path):
    """A step so long that the weights, finite before, are infinite after it; nothing runs on them any more."""
    people = Holdings.of({"c0": {"train": records(), "test": records(seed=2, first=40)}}, {"c0": "client"})
    graph = cl.vanilla(NET, "linear1", clients=people, loss=lambda made, label: made.square().sum() * 1e30)
    long = cl.optim.SGD(lr=1e30)
    with pytest.raises(
        NumericsError, match=r"^(c0|server): weight 'linear\d.\w+' of segment .* infinity after epoch 0"
    ):
        simulate(people, graph, batch_size=12, epochs=1, optimizer=long, evaluate=evaluate, out=tmp_path)
    assert not (tmp_path / "snapshot").exists()


def test_without_the_check_training_goes_on():
    people = clients(train=records(x=spoilt(float("nan"))))
    run = simulate(people, check_finite=False, epochs=1)
    assert run.events[-1].kind == "ended"


# Losses and layers


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (nn.CrossEntropyLoss(reduction="none"), r"\(4,\) numbers"),
        (lambda made, label: 3.0, "float"),
        (lambda made, label: None, "NoneType"),
    ],
)
def test_a_loss_that_is_not_one_number_is_refused(function, got):
    graph = cl.vanilla(NET, "linear1", clients=GOOD, loss=function)
    with pytest.raises(
        StudyError, match=f"^server, step 0: .*loss 'loss' must return one number; got {got}; expected a"
    ):
        simulate(GOOD, graph)


def test_a_layer_that_changes_what_it_is_given_is_explained():
    segments = [
        cl.Segment("head", "client", nn.Linear(6, 4), ("x",)),
        cl.Segment("top", "server", nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), ("head",)),
    ]
    losses, shares = [cl.Loss(role="server", prediction="top")], [cl.Share("y", "client", "server")]
    graph = cl.SplitGraph.over(GOOD, segments=segments, losses=losses, shares=shares)
    with pytest.raises(
        StudyError, match=r"server, step 0: top failed on .*in-place operation.*; .*inplace=False, or cut"
    ):
        simulate(GOOD, graph)


# Labels


def test_labels_that_are_missing_are_missed_before_training():
    with pytest.raises(
        DataError, match=r"c1: the fields of role 'client' differ; got x .*; expected x .*, y int64"
    ):
        simulate(clients(train=records(y=None)))
    nobody = Holdings.of({c: {"train": records(y=None)} for c in CLIENTS}, CLIENTS)
    with pytest.raises(DataError, match="role 'client' does not hold the field 'y'"):
        simulate(nobody)


@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_out_of_range_are_named(shift):
    people = clients(train=records(y=torch.arange(12) % 3 + shift))
    with pytest.raises(StudyError) as caught:
        simulate(people)
    assert caught.value.party == "server" and 3 <= caught.value.step < 6
    assert "loss loss failed on float32[B, 3], int64[B] with a batch of 4: Target" in str(caught.value)
    assert "labels must be 0 … classes-1" in str(caught.value)


def test_a_class_that_only_the_test_rows_have():
    wide = cl.vanilla(cl.networks.mlp((6, 8, 4)), "linear1", clients=GOOD)
    people = clients(train=records(seed=1), test=records(y=torch.arange(12) % 4))
    metrics = simulate(people, wide, epochs=1).metrics("test")
    assert set(metrics) == {"loss", "accuracy", "auc", "f1"}
    with pytest.raises(
        StudyError, match=r"server, step 6: loss 'loss' cannot be measured: Target 3 is out of bounds"
    ):
        simulate(people, epochs=1)


# Rows


def test_a_field_of_another_shape_or_type_than_the_graph_is_refused_before_training():
    for x, got in (
        (torch.randn(12, 5), "torch.float32 (5,)"),
        (torch.randn(12, 6).double(), "torch.float64 (6,)"),
    ):
        people = Holdings.of({c: {"train": records(x=x)} for c in CLIENTS}, CLIENTS)
        with pytest.raises(DataError) as caught:
            simulate(people)
        assert f"field 'x' of role 'client' has another shape or type than the graph; got {got}" in str(
            caught.value
        )


def test_parties_and_roles_must_be_named_alike():
    with pytest.raises(DataError, match="no data for 'c1', who takes part in training; got c0"):
        simulate(Holdings.of({"c0": {"train": records()}}, {"c0": "client"}))
    with pytest.raises(DataError, match="'c0' fills the role 'c0' in the data and 'client' in the graph"):
        simulate(Holdings.of({c: {"train": records()} for c in CLIENTS}))


def test_without_rows_to_train_on_nothing_begins(tmp_path):
    people = Holdings.of({c: {"test": records()} for c in CLIENTS}, CLIENTS)
    with pytest.raises(DataError, match="nobody has rows to train on"):
        simulate(people, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_client_without_training_rows_has_no_turn_but_is_measured():
    run = simulate(clients(test=records(seed=1)))
    assert run.equals(study_of(GRAPH, batch_size=4).central(clients(test=records(seed=1))))
    parties = {e.party for e in run.events if e.kind == "computed" and e.direction == "forward"}
    assert parties == {"c0", "server"} and run.metrics("test")


def columns(lab=range(10), server=range(10), server_split="train"):
    def part(ids, **fields):
        return Records(np.array(list(ids)), fields)

    lab = list(lab)
    return Holdings.of(
        {
            "clinic": {"train": part(range(10), x=torch.randn(10, 3))},
            "lab": {"train": part(lab, x=torch.randn(len(lab), 3))},
            "server": {server_split: part(server, y=torch.arange(len(server)) % 3)},
        }
    )


VERTICAL = cl.vertical({r: nn.Linear(3, 4) for r in ("clinic", "lab")}, nn.Linear(8, 3), parties=columns())


@pytest.mark.parametrize(
    ("people", "error", "why"),
    [
        (
            lambda: columns(lab=range(100, 110)),
            AlignmentError,
            "the parties have no id in common; got clinic: 0, 1",
        ),
        (
            lambda: columns(lab=map(str, range(10))),
            AlignmentError,
            "ids of different types cannot be compared",
        ),
        (lambda: columns(lab=[0, 0, 1]), DataError, "ids must be unique, 1 occur more than once; got 0"),
        (
            lambda: columns(server_split="test"),
            DataError,
            "'server' has no rows to train on; expected rows that match",
        ),
    ],
)
def test_ids_that_do_not_match_are_refused(people, error, why):
    with pytest.raises(error, match=why):
        simulate(people(), VERTICAL)


def test_rows_that_not_everyone_has_are_left_out():
    people = columns(lab=range(4, 14), server=range(12))
    run = simulate(people, VERTICAL, epochs=1)
    rows = next(e.rows for e in run.events if e.kind == "epoch_ended")
    assert rows == 6 and run.equals(study_of(VERTICAL, batch_size=4, epochs=1).central(people))


@pytest.mark.parametrize(("batch_size", "fits"), [(1, False), (11, False), (4, True), (12, True)])
def test_batch_norm_on_one_row_is_refused_before_training(batch_size, fits, tmp_path):
    graph = cl.vanilla(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), "1", clients=GOOD)
    if fits:
        simulate(GOOD, graph, batch_size=batch_size)
        return
    with pytest.raises(
        StudyError, match=f"batches of one row, on which the network cannot train: .* than {batch_size},"
    ):
        simulate(GOOD, graph, batch_size=batch_size, out=tmp_path)
    assert not list(tmp_path.iterdir())
    if batch_size > 1:
        simulate(GOOD, graph, batch_size=batch_size, drop_last=True)


# Settings


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"optimizer": "adam"}, r"that is no optimizer; got 'adam'; expected e.g. cutlayer.optim.Adam"),
        ({"optimizer": None}, r"that is no optimizer; got None; expected e.g. cutlayer.optim.Adam"),
        ({"optimizer": torch.optim.SGD(NET.parameters(), lr=0.1)},
         r"that is no optimizer; got torch.optim.SGD; expected e.g. cutlayer.optim.SGD\(lr=0.01\); give settings"),
        ({"optimizer": torch.optim.Adam}, r"that is no optimizer; got torch.optim.Adam; expected e.g. cutlayer"),
        ({"optimizer": {"head": cl.optim.SGD(lr=0.1), "top": "sgd"}},
         r"that is no optimizer for segment 'top'; got 'sgd'"),
        ({"schedule": "round_robin"}, r"schedule is of the wrong kind; got 'round_robin'; expected a schedule"),
        ({"schedule": cl.RoundRobin}, r"schedule is of the wrong kind; got the class RoundRobin; expected a"),
        ({"early_stopping": 5}, r"early_stopping is of the wrong kind; got 5; expected cutlayer.EarlySt"),
        ({"graph": NET}, r"graph is of the wrong kind; got Sequential; expected a SplitGraph"),
        ({"metrics": "auc"}, r"metrics is of the wrong kind; got 'auc'; expected names in a list"),
        ({"evaluate": "test"}, r"evaluate is of the wrong kind; got 'test'; expected names in a list"),
        ({"batch_size": 2.5}, r"batch_size must be a whole number; got 2.5$"),
        ({"epochs": "5"}, r"epochs must be a whole number; got '5'$"),
        ({"epochs": True}, r"epochs must be a whole number; got True$"),
        ({"epochs": 0}, r"epochs must be at least 1; got 0$"),
        ({"seed": None}, r"seed must be a whole number; got None$"),
        ({"device": "gpu"}, r"PyTorch knows no device 'gpu'; expected 'cpu', 'cuda' or 'cuda:1'$"),
        ({"device": "cuda:99"}, r"there is no such GPU: PyTorch can use \d here; got device='cuda:99'"),
    ],
)  # fmt: skip
def test_settings_of_the_wrong_kind_are_refused_where_they_are_given(settings, why):
    with pytest.raises(StudyError, match=why):
        cl.Study(**({"graph": GRAPH, "optimizer": cl.optim.SGD(lr=0.1)} | settings))


def test_whole_numbers_of_numpy_are_whole_numbers():
    study = study_of(GRAPH, epochs=np.int64(1), batch_size=np.int32(4))
    assert (type(study.epochs), type(study.batch_size)) == (int, int)
    assert study.digest == study_of(GRAPH, epochs=1, batch_size=4).digest


def test_batches_larger_than_anybody_fills_are_refused_where_only_full_ones_count():
    with pytest.raises(StudyError, match=r"nobody has a full batch; got batch_size=13, at most 12 rows"):
        simulate(GOOD, batch_size=13, drop_last=True)
    assert simulate(GOOD, batch_size=12, drop_last=True, epochs=1).best_epoch == 0


def test_a_program_is_checked_against_the_rows_that_people_have():
    study = study_of(GRAPH, batch_size=4)
    program = study.program(GOOD, epochs=2)
    assert study.check(program, GOOD) > 0
    for word, why in {
        "train.0/0/3": "turn 0 has 3 batches of the split 'train'",
        "test.0/0/0": "turn 0 has no batches of the split 'test'",
    }.items():
        other = Program.parse(str(program).replace("load train.0/0/2", f"load {word}"))
        with pytest.raises(ProgramError) as caught:
            study.check(other, GOOD)
        assert f"c0 load {word}' cannot be performed: {why}" in str(caught.value)
        assert caught.value.todo == "batches are counted from 0"
