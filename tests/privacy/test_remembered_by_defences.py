"""What defences remember comes back with the weights: a break changes no bit, and no alarm is evaded by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cutlayer as cl
from cutlayer.errors import AlarmError
from cutlayer.graph.parts import Ref
from cutlayer.metering.events import Defended
from cutlayer.privacy import Facts, Moment, Noise
from cutlayer.runtime.positions import Position
from cutlayer.runtime.snapshots import Snapshots
from cutlayer.schedules.actions import Op

EPOCHS = 4
STEPS = 45
"""Of an epoch: 1,437 digits in batches of 32."""


class Broken(Exception):
    """Stands for the power cut."""


def study(people, *defences, **more):
    torch.manual_seed(0)
    graph = cl.vanilla(cl.networks.mlp((64, 24, 10)), cut="activation1", clients=people)
    settings = {"batch_size": 32, "epochs": EPOCHS, "evaluate": (), **more}
    return cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=2e-3), defences=list(defences), **settings)


def breaking(at: int):
    """Return what breaks a run off when the server would send its gradient in step ``at``."""

    def instead(party, action, honest):
        def run(step, what):
            if step == at and party.name == "server":
                raise Broken
            honest(step, what)

        return run

    return instead


def cheating(party, action, honest):
    """Perform as a server whose gradients do not depend on labels."""
    if action.op is not Op.SEND or party.name != "server":
        return honest
    ref = Ref("head", party.shared.blueprint.parcel(action.what)[0].names[0])

    def run(step, what):
        flight = party.flight(step)
        flight.gradients[ref] = [(0, (flight.values[ref] - 0.5) / 32)]
        honest(step, what)

    return run


def told(run):
    return [(e.epoch, e.party, e.defence, e.facts) for e in run.events if isinstance(e, Defended)]


def last(out: Path):
    """Return all that the last snapshot holds, by party, segment or memory, and name."""
    states = Snapshots(out).load(Position(EPOCHS, 0)).states
    return {
        (p, s, n): tensor
        for p, kept in states.items()
        for s, state in kept.items()
        for n, tensor in state.items()
    }


@pytest.mark.parametrize(
    "word", ["splitguard:0.4,after=5,below=0.01", "scrutinizer:5,20", "shredder:0.5", "disco:x:20"]
)
def test_a_run_that_was_broken_off_comes_to_the_same_bits_and_facts(word: str, tmp_path: Path) -> None:
    people = cl.data.digits().split_rows(1)
    whole = study(people, word).simulate(people, out=tmp_path / "whole")
    for epoch in (1, 3):
        at = breaking(epoch * STEPS + 7)
        with pytest.raises(Broken):
            study(people, word).simulate(people, out=tmp_path / "broken", resume=epoch > 1, instead=at)
    again = study(people, word).simulate(people, out=tmp_path / "broken", resume=True)
    assert told(again) == told(whole)
    assert len(told(whole)) == EPOCHS
    mine, others = last(tmp_path / "broken"), last(tmp_path / "whole")
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[key], others[key]) for key in mine)
    assert any(segment == "head->server 0+" for _, segment, _ in mine)


@pytest.mark.parametrize("word", ["splitguard:after=5", "scrutinizer:5"])
def test_who_is_broken_off_again_and_again_rings_at_the_same_step(word: str, tmp_path: Path) -> None:
    people = cl.data.digits().split_rows(1)
    short = {"batch_size": 128, "epochs": 60}
    with pytest.raises(AlarmError) as unbroken:
        study(people, word, **short).simulate(people, instead=cheating)
    rang = unbroken.value.step
    assert rang > 3 * 12
    out = tmp_path / "run"
    for epoch in range(1, rang // 12 + 1):
        broken = cl.audit.together(cheating, breaking(epoch * 12 + 1))
        if epoch * 12 + 1 >= rang:
            break
        with pytest.raises(Broken):
            study(people, word, **short).simulate(people, out=out, resume=epoch > 1, instead=broken)
    with pytest.raises(AlarmError) as resumed:
        study(people, word, **short).simulate(people, out=out, resume=True, instead=cheating)
    assert (resumed.value.step, str(resumed.value)) == (rang, str(unbroken.value))


def test_whole_numbers_are_kept_by_name() -> None:
    now = Moment(
        party="a", cut="a->b", step=0, training=True, fields={}, labels=None,
        noise=Noise(b"0" * 16), facts=Facts(), memory={},
    )  # fmt: skip
    assert now.recall("batches") == 0
    now.keep("batches", 2**40)
    assert now.recall("batches") == 2**40
