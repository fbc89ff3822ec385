"""What a party saw: equal to what frames carried, behind defences and codecs, with the rows behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.audit import Truth, together, watch
from cutlayer.audit.transcript import OwnState
from cutlayer.errors import StudyError
from cutlayer.privacy import Defence
from cutlayer.schedules.actions import Op
from cutlayer.wire import decode


@dataclass(frozen=True)
class Scaled(Defence):
    """Scales what leaves and what goes back, so that each side's frame differs from what it works with."""

    word: ClassVar[str] = "scaled"

    def outgoing(self, activation, moment):
        return activation * 3

    def returning(self, gradient, moment):
        return gradient * 5

    def incoming(self, gradient, moment):
        return gradient * 7


def holdings(parties: int = 2):
    return cl.data.digits().split_rows(parties)


def study(people, **more):
    graph = cl.vanilla(cl.networks.mlp((64, 16, 10)), cut="activation1", clients=people)
    return cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=100, epochs=1, **more)


def frames_of(party: str):
    """Return a list that fills with what ``party`` sends and receives, and what fills it from the frames themselves."""
    seen = []

    class Tap:
        def __init__(self, transport):
            self.transport = transport

        def send(self, peer, frame):
            seen.append((peer, decode(frame)))
            self.transport.send(peer, frame)

        def receive(self, peer, timeout_s):
            frame = self.transport.receive(peer, timeout_s)
            seen.append((peer, decode(frame)))
            return frame

    def instead(local, action, honest):
        if local.name != party or action.op not in (Op.SEND, Op.RECEIVE):
            return honest
        from cutlayer.runtime import defending

        plain = local.transport
        local.transport = Tap(plain)
        runner = (defending.send if action.op is Op.SEND else defending.receive)(local, action)
        local.transport = plain
        return runner

    return seen, instead


@pytest.mark.parametrize("schedule", [cl.RoundRobin(), cl.Parallel(), cl.SplitFed()], ids=lambda s: s.name)
@pytest.mark.parametrize("party", ["client-0", "server"])
@pytest.mark.parametrize("defences", [(), (Scaled(),)], ids=["plain", "defended"])
def test_it_equals_what_frames_carried(party, defences, schedule):
    people = holdings()
    wire, tap = frames_of(party)
    transcript, watching = watch(party)
    study(people, defences=defences, schedule=schedule).simulate(people, instead=together(tap, watching))
    carried = [
        (peer, m.step, m.training, "label" if name == "y->server" else m.kind.name.lower(), name, tensor)
        for peer, m in wire
        for name, tensor in m.tensors
    ]
    sights = [s for s in transcript.sights() if s.kind != "own"]
    assert len(sights) == len(carried) > 10
    assert {s.kind for s in sights} == {"activation", "gradient", "label"}
    for sight, (peer, step, training, kind, name, tensor) in zip(sights, carried, strict=True):
        assert peer in (sight.sender, sight.receiver)
        assert party in (sight.sender, sight.receiver)
        assert (sight.step, sight.training, sight.kind) == (step, training, kind)
        assert name in (sight.tensor, sight.cut)
        assert torch.equal(sight.rows, tensor)


def test_watching_changes_nothing():
    people = holdings()
    transcript, watching = watch("server")
    plain = study(people).simulate(people).weights()
    watched = study(people).simulate(people, instead=watching).weights()
    assert all(torch.equal(t, watched[s][n]) for s, state in plain.items() for n, t in state.items())
    assert "activation head->server" in repr(transcript)


def test_a_receiver_sees_what_its_codec_reads():
    people = holdings()
    coded = study(people)
    coded = replace(coded, graph=coded.graph.with_codecs("int8"))
    (sent, first), (came, second) = watch("client-0"), watch("server")
    coded.simulate(people, instead=together(first, second))
    z = sent.rows("activation", training=True)
    got = came.only(peer="client-0").rows("activation", training=True)
    assert z.shape == got.shape
    assert 0 < float((z - got).abs().max()) < 0.1


def test_the_rows_behind_what_was_seen():
    people = holdings()
    transcript, watching = watch("server")
    truth = Truth(people, transcript)
    run = study(people).simulate(people, instead=together(watching, truth.instead))
    head = study(people).graph.segments["head"].module
    head.load_state_dict(run.weights()["head"])
    for training in (True, False):
        sights = transcript.sights("activation", training=training)
        x, y = truth.rows(sights, "x"), truth.rows(sights, "y")
        assert torch.equal(y, transcript.rows("label", training=training))
        assert len(set(truth.ids(sights))) == len(x) == len(y)
        if not training:  # after the last step the head is as it was then
            z = transcript.rows("activation", training=False)
            assert torch.allclose(head(x), z, atol=1e-6)
    assert {s.sender for s in transcript.sights("activation")} == {"client-0", "client-1"}
    with pytest.raises(StudyError, match="no party has a field 'z'"):
        truth.rows(transcript.sights("activation"), "z")
    with pytest.raises(StudyError, match="there are no sights"):
        truth.rows([], "x")


def test_truth_at_one_client_and_under_a_parallel_schedule():
    people = holdings(3)
    transcript, watching = watch("client-1")
    truth = Truth(people, transcript)
    both = together(watching, truth.instead)
    study(people, schedule=cl.Parallel()).simulate(people, instead=both)
    sights = transcript.sights("activation")
    assert {s.training for s in sights} == {True, False}
    assert set(truth.ids(sights)) == {
        i for records in people.party("client-1").splits.values() for i in records.ids
    }
    first, back = transcript.pairs("activation", "gradient")
    assert [s.step for s in first] == [s.step for s in back]
    assert all(a.rows.shape == b.rows.shape for a, b in zip(first, back, strict=True))
    assert len(first) >= 4


def test_a_vertical_server_asks_for_one_cut_and_truth_for_one_holder():
    torch.manual_seed(0)
    x = torch.randn(40, 4)
    source = cl.data.arrays(x.numpy(), (x[:, 0] > 0).long().numpy())
    people = source.split_columns({"a": [0, 1], "b": [2, 3]}, labels="server")
    branches = {name: nn.Linear(2, 3) for name in ("a", "b")}
    graph = cl.vertical(branches, nn.Linear(6, 2), parties=people)
    transcript, watching = watch("server")
    truth = Truth(people, transcript)
    cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=10).simulate(
        people, instead=together(watching, truth.instead)
    )
    with pytest.raises(StudyError, match="several tensors of kind 'activation'"):
        transcript.rows("activation")
    part = transcript.only(cut="a->server")
    assert part.rows("activation").shape == (40, 3)
    assert torch.equal(part.rows("own"), truth.rows(part.sights("activation"), "y"))
    assert truth.rows(part.sights("activation"), "x", holder="a").shape == (40, 2)
    with pytest.raises(StudyError, match="several parties have a field 'x'"):
        truth.rows(part.sights("activation"), "x")


def test_only_the_last_rows_are_kept():
    people = holdings(1)
    transcript, watching = watch("server", most=250, states_every=5)
    study(people).simulate(people, instead=watching)
    sights = transcript.sights("activation", training=True)
    assert sum(len(s.rows) for s in sights) <= 250
    assert sights[-1].step == 14
    assert [state.step for state in transcript.states] == [0, 5, 10]
    assert {state.segment for state in transcript.states} == {"top"}
    with pytest.raises(StudyError, match="at least one row"):
        watch("server", most=0)


def test_unknown_parties_and_nothing_seen_are_told():
    people = holdings(1)
    with pytest.raises(StudyError, match=r"no party is named 'sever'.*server"):
        study(people).simulate(people, instead=watch("sever")[1])
    transcript, _ = watch("server")
    with pytest.raises(StudyError, match="server: what the party saw holds nothing of kind 'gradient'"):
        transcript.rows("gradient")
    assert repr(transcript) == "Transcript('server' saw nothing; 0 batches)"


def test_states_are_thinned_out_where_there_would_be_too_many():
    transcript, _ = watch("server", states_every=1)
    for step in range(1000):
        if step % transcript.states_every == 0:
            for segment in ("merge", "top"):
                transcript.keep_state(OwnState(step, segment, {"weight": torch.zeros(1)}))
    assert 2 * 200 <= len(transcript.states) <= 2 * 400
    steps = [state.step for state in transcript.states if state.segment == "top"]
    assert steps[0] == 0 and steps[-1] > 990
    assert {b - a for a, b in pairwise(steps)} == {transcript.states_every}


def test_the_middle_of_a_chain_and_the_rows_at_its_beginning():
    people = holdings(2)
    graph = cl.multi_hop(
        cl.networks.mlp((64, 16, 12, 10)), ["activation1", "activation2"], clients=people, hops=["relay"]
    )
    transcript, watching = watch("relay")
    truth = Truth(people, transcript)
    cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=100).simulate(
        people, instead=together(watching, truth.instead)
    )
    came, left = (
        [s for s in transcript.sights("activation") if getattr(s, side) == "relay"]
        for side in ("receiver", "sender")
    )
    assert len(came) == len(left) > 10
    assert torch.equal(truth.rows(came, "x"), truth.rows(left, "x"))
    rows = torch.cat([s.rows for s in came])
    assert len(truth.rows(came, "x")) == len(rows)
    first, back = transcript.only(cut=came[0].cut).pairs("activation", "gradient")
    assert all(s.sender == "relay" for s in back) and len(first) == len(back) > 0
