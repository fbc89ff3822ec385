"""A segment's state goes over the wire and on elsewhere as if it had never left; a wrong state is refused whole."""

import json

import pytest
import torch
from torch import nn

from cutlayer.errors import FrameError, StudyError
from cutlayer.graph.parts import Segment
from cutlayer.runtime import optim
from cutlayer.runtime.live import LiveSegment, Workshop
from cutlayer.wire import Kind, Message, decode, encode

CPU = torch.device("cpu")
ADAM = optim.Adam(lr=0.1)
SPECS = [
    optim.SGD(lr=0.1),
    optim.SGD(lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    optim.SGD(lr=0.1, momentum=0.9, nesterov=True),
    optim.Adam(lr=0.1, betas=(0.7, 0.9)),
    optim.Adam(lr=0.1, amsgrad=True),
    optim.AdamW(lr=0.1),
    optim.NAdam(lr=0.1),
    optim.RAdam(lr=0.1),
    optim.Adamax(lr=0.1),
    optim.Adagrad(lr=0.1, lr_decay=0.1),
    optim.Adadelta(lr=1.0),
    optim.RMSprop(lr=0.1),
    optim.RMSprop(lr=0.1, centered=True, momentum=0.9),
    optim.Rprop(lr=0.1),
    optim.ASGD(lr=0.1, t0=2.0),
    optim.Adafactor(lr=0.1),
    optim.SGD(lr=0.1, momentum=0.9, schedule=optim.StepLR(step_size=2, gamma=0.5)),
    optim.SGD(lr=0.1, schedule=optim.CosineAnnealingLR(T_max=5), every="step"),
    optim.Adam(lr=0.1, schedule=optim.OneCycleLR(max_lr=0.5, total_steps=20), every="step"),
    optim.SGD(
        lr=0.1, momentum=0.9, schedule=optim.CyclicLR(base_lr=0.1, max_lr=0.5, step_size_up=3), every="step"
    ),
    optim.SGD(lr=0.1, schedule=optim.MultiStepLR(milestones=[2, 4])),
    optim.SGD(lr=0.1, schedule=optim.LinearLR(total_iters=4)),
    optim.SGD(lr=0.1, schedule=optim.PolynomialLR(total_iters=4, power=2.0)),
    optim.SGD(lr=0.1, schedule=optim.CosineAnnealingWarmRestarts(T_0=3, T_mult=2), every="step"),
]


def segment(name="head"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Segment(name, "client", nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), ("x",))


def trained(live, steps, first=0):
    live.mode(True)
    for step in range(first, first + steps):
        rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        live.module(rows).square().sum().backward()
        live.step()
        if step % 2:
            live.advance()
    return live


def over_the_wire(live):
    frame = encode(Message(Kind.HANDOVER, "client", 0, tuple(live.state().items())))
    return dict(decode(frame).tensors)


def same(one, other):
    one, other = one.state(), other.state()
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_state_goes_on_elsewhere_as_if_it_had_never_left(spec):
    stays = trained(LiveSegment(segment(), spec, CPU), 8)
    leaves = trained(LiveSegment(segment(), spec, CPU), 3)
    arrives = LiveSegment(segment(), spec, CPU)
    trained(arrives, 2, first=50)  # what it did before counts for nothing
    arrives.restore(over_the_wire(leaves))
    assert same(arrives, leaves) and not same(arrives, stays)
    assert same(trained(arrives, 5, first=3), stays)


def test_a_restored_state_is_nobody_elses():
    giver, taker = (LiveSegment(segment(), ADAM, CPU) for _ in range(2))
    taker.restore(over_the_wire(trained(giver, 2)))
    before = giver.weights()
    trained(taker, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in giver.weights().items())


def test_weights_are_copies_and_state_is_not():
    live = LiveSegment(segment(), ADAM, CPU)
    live.weights()["0.bias"].fill_(9.0)
    assert not (live.state()["weight/0.bias"] == 9).any()
    live.state()["weight/0.bias"].fill_(9.0)
    assert (live.weights()["0.bias"] == 9).all()


def test_a_working_copy_leaves_the_segment_as_it_is():
    placed = segment()
    before = {name: tensor.clone() for name, tensor in placed.module.state_dict().items()}
    trained(LiveSegment(placed, ADAM, CPU), 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in placed.module.state_dict().items())


def test_a_segment_without_parameters_has_a_state_too():
    placed = Segment("merge", "server", nn.BatchNorm1d(3, affine=False), ("x",))
    live, other = (LiveSegment(placed, ADAM, CPU) for _ in range(2))
    assert live.optimizer is None
    live.mode(True)
    live.module(torch.randn(5, 3))
    live.step()
    live.advance()
    other.restore(over_the_wire(live))
    assert same(live, other) and other.weights()["num_batches_tracked"] == 1


def test_frozen_parameters_go_along_and_are_not_trained():
    placed = segment()
    placed.module[0].requires_grad_(False)
    live, other = LiveSegment(placed, ADAM, CPU), LiveSegment(placed, ADAM, CPU)
    before = live.weights()
    trained(live, 2)
    assert torch.equal(live.weights()["0.weight"], before["0.weight"])
    assert not torch.equal(live.weights()["1.weight"], before["1.weight"])
    other.restore(over_the_wire(live))
    assert same(live, other)


class Counting(nn.Module):
    """Puts another tensor in its buffer's place."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen = self.seen + len(x)
        return self.layer(x)


def test_a_buffer_that_a_forward_replaces_goes_along():
    placed = Segment("head", "client", Counting(), ("x",))
    live, other = (LiveSegment(placed, ADAM, CPU) for _ in range(2))
    trained(live, 2)
    trained(other, 1)
    other.restore(over_the_wire(live))
    assert other.weights()["seen"] == other.module.seen == 10


# Wrong states

RIGHT = over_the_wire(trained(LiveSegment(segment(), ADAM, CPU), 2))
SCALARS = json.loads(RIGHT["scalars"].numpy().tobytes())


def scalars(**changes):
    return {"scalars": torch.frombuffer(bytearray(json.dumps(SCALARS | changes).encode()), dtype=torch.uint8)}


GROUP = SCALARS["groups"][0]
WRONG = {
    "a weight of another shape": ({"weight/0.bias": torch.zeros(4)}, "does not fit at '0.bias'; got torch.float32"),
    "a weight of another dtype": ({"weight/0.bias": torch.zeros(3).double()}, "got torch.float64 (3,); expected"),
    "a weight too few": ({"weight/0.bias": None}, "not one of segment 'head'; got differing names ['0.bias']"),
    "a weight too many": ({"weight/9.bias": torch.zeros(3)}, "got differing names ['9.bias']"),
    "no counters": ({"scalars": None}, "the counters of segment 'head' cannot be read"),
    "counters that are no text": ({"scalars": torch.arange(3, dtype=torch.uint8)}, "counters of segment 'head' cannot"),
    "counters that are no mapping": ({"scalars": torch.tensor(list(b"[]"), dtype=torch.uint8)}, "cannot be read"),
    "no settings": (scalars(groups=[]), "settings are not those of segment 'head'"),
    "settings twice": (scalars(groups=[GROUP, GROUP]), "settings are not those"),
    "settings of other names": (scalars(groups=[{"lr": 0.1}]), "settings are not those"),
    "settings that take the parameters away": (scalars(groups=[GROUP | {"params": []}]), "settings are not those"),
    "settings that are no numbers": (scalars(groups=[GROUP | {"lr": "high"}]), "settings are not those"),
    "a schedule where there is none": (scalars(schedule={}), "settings are not those"),
    "slots that are no numbers": (scalars(slots={"0/step": [1]}), "settings are not those"),
    "slots of no parameter": (scalars(slots={"4/step": 1}), "segment 'head' has no parameter number 4"),
    "tensors of no parameter": ({"slot/9/step": torch.zeros(())}, "segment 'head' has no parameter number 9"),
    "tensors of no number": ({"slot/x/step": torch.zeros(())}, "segment 'head' has no parameter number x"),
    "tensors that do not fit": ({"slot/0/exp_avg": torch.zeros(7)}, "'exp_avg' of parameter 0 of segment 'head' does"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_state_is_refused_and_nothing_of_it_is_taken_over(what):
    changes, why = WRONG[what]
    state = {name: tensor for name, tensor in (RIGHT | changes).items() if tensor is not None}
    live, untouched = (trained(LiveSegment(segment(), ADAM, CPU), 1) for _ in range(2))
    with pytest.raises(FrameError) as caught:
        live.restore(state)
    assert why in str(caught.value)
    assert same(live, untouched)


def test_a_state_of_another_optimizer_is_refused():
    sgd = over_the_wire(LiveSegment(segment(), optim.SGD(lr=0.1), CPU))
    with pytest.raises(
        FrameError, match="settings are not those of segment 'head'; both sides must load the same"
    ):
        LiveSegment(segment(), ADAM, CPU).restore(sgd)


def test_an_optimizer_that_keeps_more_than_numbers_is_refused():
    live = LiveSegment(segment(), ADAM, CPU)
    live.optimizer.param_groups[0]["odd"] = object()
    with pytest.raises(StudyError, match="segment 'head' keeps more than numbers"):
        live.state()


# The workshop


def test_the_workshop_uses_copies_again():
    workshop = Workshop([segment()], {"head": ADAM}, CPU)
    first = workshop.fresh("head")
    assert workshop.blank("head") is not first
    workshop.bring_back(first)
    assert workshop.blank("head") is first
    assert workshop.blank("head") is not first


def test_a_fresh_copy_has_the_initial_weights_whatever_was_brought_back():
    workshop = Workshop([segment()], {"head": ADAM}, CPU)
    workshop.bring_back(trained(workshop.fresh("head"), 2))
    assert same(workshop.fresh("head"), LiveSegment(segment(), ADAM, CPU))


def settings(live):
    return json.loads(bytes(live.state()["scalars"].numpy()))["groups"]


@pytest.mark.parametrize("spec", [optim.SGD(lr=0.1), ADAM])
def test_what_an_optimizer_is_told_of_the_cpu_is_no_part_of_its_state(spec):
    live = trained(LiveSegment(segment(), spec, CPU), 2)
    own = spec.build(live.parameters).param_groups[0]
    assert live.optimizer.param_groups[0]["foreach"] is False
    assert settings(live)[0]["foreach"] is own["foreach"] is None
    assert list(settings(live)[0]) == [name for name in own if name != "params"]
    live.restore(live.state())
    assert live.optimizer.param_groups[0]["foreach"] is False
    other = LiveSegment(segment(), spec, CPU)
    other.become(live)
    assert other.optimizer.param_groups[0]["foreach"] is False


def test_a_choice_of_the_study_stays():
    live = trained(LiveSegment(segment(), optim.SGD(lr=0.1, foreach=True), CPU), 1)
    assert live.optimizer.param_groups[0]["foreach"] is settings(live)[0]["foreach"] is True
