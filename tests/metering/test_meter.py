"""What is counted: bytes as read off the transport, FLOPs as PyTorch counts them on the uncut network."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cutlayer as cl
from cutlayer.data import Deal, arrays
from cutlayer.graph.joined import Joined
from cutlayer.metering.meter import Meter, counting
from cutlayer.metering.run_log import RunLog
from cutlayer.metering.tables import traffic
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.simulate import Settings, Simulation, batches_of
from cutlayer.schedules import Calendar
from cutlayer.wire import Kind, decode

SGD = cl.optim.SGD(lr=0.1, momentum=0.9)


# The counter


def test_counts_are_drained_once():
    meter = Meter()
    frames, seconds, work = (
        meter.traffic("training", "cut", Kind.GRADIENT, "a", "b"),
        meter.time("a", "load"),
        meter.compute("a", "head", "forward"),
    )
    frames[:], seconds[:], work[:] = [2, 300, 200], [4, 5 * 10**8], [3, 600]
    traffic, computed, worked = meter.drain(7)
    assert vars(traffic) == {
        "epoch": 7, "phase": "training", "cut": "cut", "content": "gradient", "sender": "a", "receiver": "b",
        "frames": 2, "frame_bytes": 300, "tensor_bytes": 200,
    }  # fmt: skip
    assert (computed.direction, computed.phase, computed.calls, computed.flops) == (
        "forward",
        "training",
        3,
        600,
    )
    assert (worked.party, worked.op, worked.calls, worked.seconds) == ("a", "load", 4, 0.5)
    assert list(meter.drain(8)) == []
    frames[0] += 1  # who counts keeps the place to count in
    assert [event.frames for event in meter.drain(9)] == [1]


def test_flops_are_counted_once_for_each_shape():
    meter, layer, rows = Meter(), nn.Linear(4, 3), torch.ones(5, 4)
    known, count = meter.flops("head", "forward"), meter.compute("a", "head", "forward")
    with counting(known, rows.shape, count):
        layer(rows)
    assert known == {rows.shape: 2 * 5 * 4 * 3} and count == [0, 120]
    assert meter.flops("head", "forward") is known and meter.flops("head", "backward") == {}


# Bytes


class Listening:
    """A transport's end that notes the size and content of each frame sent."""

    def __init__(self, end, heard):
        self.party, self._end, self._heard = end.party, end, heard

    def send(self, party, frame):
        self._heard.append((self.party, party, bytes(frame)))
        self._end.send(party, frame)

    def receive(self, party, timeout_s):
        return self._end.receive(party, timeout_s)

    def close(self):
        self._end.close()


def people(rows=23):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows + 7, 6)), rng.integers(0, 3, rows + 7)
    return arrays(x[:rows], y[:rows], x[rows:], y[rows:])


def chain(make):
    data = people().split_rows(3)
    return data, make(cl.networks.mlp((6, 8, 7, 3)), data)


def by_columns():
    data = people().split({"clinic": slice(0, 3), "lab": slice(3, 6)}, Deal(n=2), labels_split=True)
    bottoms = {role: nn.Sequential(nn.Linear(3, 4), nn.ReLU()) for role in ("clinic", "lab")}
    return data, cl.vertical(bottoms, nn.Linear(8, 3), parties=data)


def frozen():
    network = cl.networks.mlp((6, 8, 7, 3))
    network.linear1.requires_grad_(False)
    data = people().split_rows(3)
    return data, cl.vanilla(network, "linear1", clients=data)


CASES = {
    "vanilla": lambda: chain(lambda net, data: cl.vanilla(net, "linear2", clients=data)),
    "u_shaped": lambda: chain(lambda net, data: cl.u_shaped(net, ("linear1", "linear2"), clients=data)),
    "multi_hop": lambda: chain(lambda net, data: cl.multi_hop(net, ("linear1", "linear2"), clients=data)),
    "vertical": by_columns,
    "frozen": frozen,
}


def simulated(case, handover="peer", epochs=2):
    """Train while listening at every end; return graph, batches, events and all frames."""
    data, graph = CASES[case]()
    schedule = cl.RoundRobin(handover=handover, turn=1)
    cohorts, heard, log = Cohorts(graph, data), [], RunLog()
    calendar = Calendar(cohorts.rows, 5)
    settings = Settings(optimizers=dict.fromkeys(graph.order, SGD), epochs=epochs, seed=0)
    simulation = Simulation(graph, data, schedule, calendar, cohorts, settings, log)
    for party in simulation.parties.values():
        party.transport = Listening(party.transport, heard)
    simulation.train()
    batches = [batch for epoch in range(epochs) for (batch,) in batches_of(schedule, graph, calendar, epoch)]
    return graph, data, calendar, batches, log.events, heard


@pytest.mark.parametrize(
    ("case", "handover"),
    [(c, h) for c in CASES for h in ("peer", "server") if (c, h) != ("vertical", "server")],
)
def test_bytes_are_those_of_the_frames_on_the_transport(case, handover):
    *_, events, heard = simulated(case, handover)
    counted, seen = Counter(), Counter()
    for event in (e for e in events if e.kind == "traffic"):
        counted[event.sender, event.receiver] += event.frame_bytes
    for sender, receiver, frame in heard:
        seen[sender, receiver] += len(frame)
    assert counted == seen and sum(seen.values()) > 0


@pytest.mark.parametrize("case", CASES)
def test_frames_and_tensors_are_counted_by_cut_and_content(case):
    *_, events, heard = simulated(case)
    counted, seen = Counter(), Counter()
    for event in (e for e in events if e.kind == "traffic" and e.phase != "hand-over"):
        key = (event.cut, event.content, event.phase, event.sender, event.receiver)
        counted[key] += np.array([event.frames, event.tensor_bytes])
    for sender, receiver, frame in heard:
        message = decode(frame)
        if message.kind is Kind.SEALED:
            continue
        phase, (first, *riders) = "training" if message.training else "evaluation", message.name.split("+")
        for name, tensor in message.tensors:
            rides = name in riders
            cut, content = (
                (name, "label") if rides else (first.replace("<-", "->"), message.kind.name.lower())
            )
            seen[cut, content, phase, sender, receiver] += np.array([1, tensor.nbytes])
    assert counted.keys() == seen.keys()
    assert all((counted[key] == seen[key]).all() for key in seen)


def test_hand_overs_are_counted_with_what_is_in_them():
    *_, events, heard = simulated("vanilla", epochs=1)
    hand_overs = [e for e in events if e.kind == "traffic" and e.phase == "hand-over"]
    sealed = [frame for *_, frame in heard if decode(frame).kind is Kind.SEALED]
    inside = [decode(decode(frame).tensors[0][1].numpy()) for frame in sealed]
    assert sum(e.frames for e in hand_overs) == len(sealed) > 3
    assert sum(e.tensor_bytes for e in hand_overs) == sum(t.nbytes for m in inside for _, t in m.tensors)
    names = {name.partition("/")[0] for m in inside for name, _ in m.tensors}
    assert names == {"head"}  # nothing of the server's part


def test_a_relay_counts_whole_frames_and_no_tensors():
    *_, events, _ = simulated("vanilla", handover="server", epochs=1)
    hand_overs = [e for e in events if e.kind == "traffic" and e.phase == "hand-over"]
    relayed = [e for e in hand_overs if e.sender == "server"]
    given = [e for e in hand_overs if e.sender != "server"]
    assert sum(e.frame_bytes for e in relayed) == sum(e.frame_bytes for e in given) > 0
    assert {e.tensor_bytes for e in relayed} == {0} and all(e.tensor_bytes for e in given)
    table = traffic(events)
    for place, receiver, tensors, overhead in zip(
        *map(table.column, ("from", "to", "tensor bytes", "overhead (%)")), strict=True
    ):
        is_relayed = (place, receiver, tensors) in {(e.sender, e.receiver, 0) for e in relayed}
        assert (overhead == "-") == is_relayed
    assert "a relay passes sealed hand-overs on" in table.note
    assert table.is_number(table.columns.index("overhead (%)")) and table.text() and table.markdown()
    assert "a relay" not in traffic(simulated("vanilla", epochs=1)[-2]).note


# FLOPs


def flops_of_the_uncut_network(graph, data, calendar, batches):
    """PyTorch's count over forward and backward of the joined network, one training batch after the other."""
    network, total = Joined(graph).train(), 0
    cohorts = Cohorts(graph, data)
    for batch in batches:
        ids = cohorts.ids[batch.turn]["train"][calendar.positions(batch).numpy()]
        rows = {}
        for role, party in graph.turns[batch.turn].items():
            if role in data.roles:
                records = data.party(party).splits["train"]
                rows[role] = records.batch(records.rows_of(ids))
        with FlopCounterMode(display=False) as counter:
            values = network(rows)
            for loss in graph.losses.values():
                label = next(held["y"] for held in rows.values() if "y" in held)
                loss.compute(list(values.values())[-1], label).backward()
        total += counter.get_total_flops()
        network.zero_grad()
    return total


@pytest.mark.parametrize("case", CASES)
def test_the_parties_flops_sum_up_to_the_uncut_networks(case):
    """Exactly: cutting adds no arithmetic that is counted, forwards or backwards."""
    graph, data, calendar, batches, events, _ = simulated(case)
    counted = sum(e.flops for e in events if e.kind == "computed" and e.phase == "training")
    assert counted == flops_of_the_uncut_network(graph, data, calendar, batches) > 0


def test_flops_are_counted_where_the_work_is_done():
    *_, events, _ = simulated("vanilla", epochs=1)
    computed = [e for e in events if e.kind == "computed"]
    places = {(e.segment, e.party) for e in computed}
    assert places == {("head", f"client-{i}") for i in range(3)} | {("top", "server")}
    for event in computed:
        per_row = {"head": 2 * (6 * 8 + 8 * 7), "top": 2 * 7 * 3}[event.segment]
        rows = {"client-0": 8, "client-1": 8, "client-2": 7, "server": 23}[event.party]
        tests = {"client-0": 3, "client-1": 2, "client-2": 2, "server": 7}[event.party]
        # A weight's gradient costs what the forward did; that of the first layer's input is not worked out.
        back = {"head": 2 * (6 * 8 + 2 * 8 * 7), "top": 2 * 2 * 7 * 3}[event.segment]
        assert (
            event.flops
            == {"forward": rows * per_row, "infer": tests * per_row, "backward": rows * back}[event.direction]
        )
        calls = 6 if event.party == "server" else 2
        assert event.direction == "infer" or event.calls == calls


def test_calls_and_times_are_noted_for_every_kind_of_action():
    graph, data, *_, events, _ = simulated("vanilla", epochs=1)
    calls = Counter()
    for event in (e for e in events if e.kind == "worked"):
        calls[event.op] += event.calls
        assert event.seconds >= 0
    program = cl.Study(graph=graph, optimizer=SGD, batch_size=5, schedule=cl.RoundRobin(turn=1)).program(data)
    assert calls == Counter(action.op for action in program)
