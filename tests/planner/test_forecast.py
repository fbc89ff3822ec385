"""What a plan says of FLOPs and bytes is what the meters of the run then count, event by event."""

from __future__ import annotations

import pytest
import torch
from metered import counted

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.metering.events import Traffic
from cutlayer.planner import Forecast
from cutlayer.runtime.cohorts import Cohorts


def noise(rows, *shape, labels=(), held_out=0):
    """Return rows of noise with labels 0 to 9."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows + held_out, *shape, generator=generator)
    y = torch.randint(10, (rows + held_out, *labels), generator=generator)
    test = (x[rows:], y[rows:]) if held_out else (None, None)
    return cl.data.arrays(x[:rows], y[:rows], *test)


PEOPLE = noise(150, 64, held_out=31).split_rows(3)
MLP = cl.networks.mlp((64, 20, 12, 10))
SCHEDULES = {
    "round robin": cl.RoundRobin(),
    "through the server": cl.RoundRobin(handover="server", turn=2),
    "clipped": cl.RoundRobin(clip=1.0),
    "micro-batches": cl.RoundRobin(accumulate=3, in_flight=2),
    "splitfed 1": cl.SplitFed(),
    "splitfed 2": cl.SplitFed(version=2),
    "splitfed 3": cl.SplitFed(version=3),
    "parallel": cl.Parallel(),
    "parallel, averaged": cl.Parallel(heads="averaged"),
    "parallel, drawn": cl.Parallel(batches="global"),
}


def both(graph, people=PEOPLE, **settings):
    """Return what the meters of a run counted, and what was foretold."""
    given = {"optimizer": cl.optim.Adam(lr=0.01), "batch_size": 32, "epochs": 2, **settings}
    study = cl.Study(graph=graph, **given)
    run = study.simulate(people)
    return counted(run.events), counted(Forecast(study, Cohorts(graph, people).rows).events())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_forecast_is_what_the_meters_count_for_every_schedule(schedule):
    found, foretold = both(cl.vanilla(MLP, "activation1", clients=PEOPLE), schedule=SCHEDULES[schedule])
    assert found == foretold and any("flops" in key for key in found)


@pytest.mark.parametrize("codecs", ["int8", "topk:0.25", "float8", {"head->server": "bfloat16"}])
@pytest.mark.parametrize("schedule", ["round robin", "splitfed 1", "parallel"])
def test_a_forecast_is_what_the_meters_count_with_codecs(codecs, schedule):
    graph = cl.vanilla(MLP, "activation1", clients=PEOPLE, codecs=codecs)
    found, foretold = both(graph, schedule=SCHEDULES[schedule], epochs=1)
    assert found == foretold


@pytest.mark.parametrize("schedule", ["round robin", "splitfed 2", "parallel, averaged"])
@pytest.mark.parametrize("topology", [cl.u_shaped, cl.multi_hop])
def test_a_forecast_is_what_the_meters_count_for_other_topologies(topology, schedule):
    graph = topology(MLP, ("linear1", "activation2"), clients=PEOPLE)
    found, foretold = both(graph, schedule=SCHEDULES[schedule], epochs=1)
    assert found == foretold


def test_labels_at_the_server_do_not_travel():
    people = noise(90, 64).split_columns({"left": slice(0, 32), "right": slice(32, 64)})
    heads = {side: cl.networks.mlp((32, 8)) for side in ("left", "right")}
    graph = cl.vertical(heads, cl.networks.mlp((16, 10)), parties=people)
    found, foretold = both(graph, people)
    assert found == foretold and not any("label" in map(str, key) for key in found)


def test_early_stopping_and_a_schedule_of_learning_rates_are_counted_too():
    rate = cl.optim.OneCycleLR(max_lr=0.1, total_steps=200)
    graph = cl.vanilla(MLP, "linear2", clients=PEOPLE)
    found, foretold = both(
        graph,
        optimizer=cl.optim.SGD(lr=0.1, momentum=0.9, schedule=rate, every="step"),
        early_stopping=cl.EarlyStopping(patience=9, split="test"),
        epochs=3,
    )
    assert found == foretold and any("verdict" in key for key in found)


def test_a_local_loss_takes_no_gradient_back():
    graph = cl.with_decoder(
        cl.vanilla(MLP, "activation1", clients=PEOPLE), cl.networks.mlp((20, 64)), alpha=1.0
    )
    found, foretold = both(graph, schedule=cl.SplitFed(local=True), epochs=1)
    assert found == foretold and not any("gradient" in key for key in found)


@pytest.mark.parametrize(
    ("network", "cut", "shape"),
    [
        (cl.networks.lenet(), "pool1", (1, 28, 28)),
        (cl.networks.unet(10, width=4, depth=1), "pool1", (1, 8, 8)),
        (cl.networks.resnet18(), "layer1.0.conv2", (3, 8, 8)),
    ],
    ids=["lenet", "unet", "resnet"],
)
def test_a_forecast_is_what_the_meters_count_for_other_networks(network, cut, shape):
    labels = (8, 8) if "UNet" in type(network).__name__ else ()
    people = noise(16, *shape, labels=labels).split_rows(2)
    found, foretold = both(cl.vanilla(network, cut, clients=people), people, batch_size=5, epochs=1)
    assert found == foretold


def test_totals_add_up_all_epochs():
    graph = cl.vanilla(MLP, "activation1", clients=PEOPLE)
    study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=32, epochs=5)
    rows = Cohorts(graph, PEOPLE).rows
    events = [e for e in Forecast(study, rows).events() if isinstance(e, Traffic)]
    totals = Forecast(study, rows).totals
    assert totals.sent_bytes.total() == totals.received_bytes.total() == sum(e.frame_bytes for e in events)
    assert totals.phases.total() == totals.sent_bytes.total()


def test_updates_cannot_be_foretold():
    graph = cl.vanilla(MLP, "activation1", clients=PEOPLE)
    study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), schedule=cl.RoundRobin(updates=True))
    with pytest.raises(StudyError, match="updates"):
        Forecast(study, Cohorts(graph, PEOPLE).rows)


def test_shapes_that_are_not_known_are_named():
    graph = cl.vanilla(MLP, "activation1", clients=2, example=torch.zeros(2, 64))
    study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1))
    with pytest.raises(StudyError, match="y->server"):
        Forecast(study, [{"train": 10}] * 2).events()
