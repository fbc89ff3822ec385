"""Training through a codec equals a plain loop that does the same to the values at the cut, by hand."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from small_studies import (
    MOMENTUM,
    assert_same_weights,
    batches,
    by_uncut_name,
    moved,
    plain_loop,
    pooled,
    study_of,
)
from torch import nn
from two_clients import GOOD, listening

import cutlayer as cl
import cutlayer.schedules
from cutlayer.codecs import Like, Moment, codec_of
from cutlayer.errors import FrameError, NumericsError
from cutlayer.metering.events import Traffic
from cutlayer.seeds import stream
from cutlayer.wire import Kind, decode, encode

SOURCE, X, Y = pooled(25)
PEOPLE = SOURCE.split_rows(3)
CUT = "linear2"
NAME = "head->server"


def net():
    return cl.networks.mlp((6, 8, 7, 3), seed=1)


def study(codecs, **more):
    return study_of(cl.vanilla(net(), CUT, clients=PEOPLE, codecs=codecs), **more)


def by_hand(one, at_cut, loss=None):
    """Train the uncut network in a plain loop, with ``at_cut(values, step)`` in the place of the cut."""
    model, now = net(), []
    model.get_submodule(CUT).register_forward_hook(lambda module, inputs, values: at_cut(values, now[-1]))
    start = copy.deepcopy(model.state_dict())
    plain_loop(
        model,
        batches(one, PEOPLE),
        X,
        Y,
        lambda p: torch.optim.SGD(p, **MOMENTUM),
        loss=loss,
        before=now.append,
    )
    assert moved(model, start)
    return model


def assert_close(run, model, rtol=1e-4):
    split, uncut = by_uncut_name(run), model.state_dict()
    assert max((split[n] - uncut[n]).abs().max() for n in uncut) < rtol


def test_exact_gives_the_bits_and_bytes_of_before():
    plain, exact = study(None).simulate(PEOPLE), study("exact").simulate(PEOPLE)
    assert exact.equals(plain) and exact.equals(study("exact").central(PEOPLE))
    for other in (study({"head->server": "exact"}), study({})):
        assert traffic(other.simulate(PEOPLE)) == traffic(plain)


def traffic(run):
    return [
        (e.epoch, e.phase, e.cut, e.content, e.frames, e.frame_bytes, e.tensor_bytes)
        for e in run.events
        if isinstance(e, Traffic)
    ]


class Straight(torch.autograd.Function):
    """Values as a codec's reader gets them, and gradients as another's."""

    @staticmethod
    def forward(context, values, step, forth, back):
        context.step, context.back = step, back
        return there_and_back(forth, values, step, NAME)

    @staticmethod
    def backward(context, gradient):
        return there_and_back(context.back, gradient, context.step, "head<-server"), None, None, None


def there_and_back(word, values, step, cut):
    codec, moment = codec_of(word), Moment(stream(7, "codec", cut, CUT), step, True)
    like = Like(tuple(values.shape), values.dtype)
    return codec.read(codec.write(values, moment).parts, like, moment).parts[0]


@pytest.mark.parametrize(
    ("forth", "back"),
    [
        ("int8", "int8"), ("int4:row", "exact"), ("int8:channel", "float8:e5m2"), ("float16", "bfloat16"),
        ("exact", "topk:0.4"), ("exact", "random-topk:0.4,0.3"), ("exact", "pq:2,8"), ("exact", "c3:2"),
        ("pq:2,8,0", "int8"),
    ],
)  # fmt: skip
def test_values_and_gradients_are_what_the_codecs_make_of_them(forth, back):
    one = study({NAME: forth, "head<-server": back})
    model = by_hand(one, lambda values, step: Straight.apply(values, step, forth, back))
    assert_same_weights(one.simulate(PEOPLE), model)


def largest(values, share):
    count = codec_of(f"topk:{share}").count(Like(tuple(values.shape), values.dtype))
    return torch.zeros_like(values, dtype=torch.bool).scatter_(
        1, values.abs().topk(count, dim=1).indices, True
    )


def test_top_k_trains_the_network_in_which_all_else_is_zero():
    """The gradient of ``where(kept, values, 0)`` is the gradient at the kept places and zero elsewhere."""
    one = study("topk:0.4")
    model = by_hand(one, lambda values, step: torch.where(largest(values.detach(), 0.4), values, 0.0))
    run = one.simulate(PEOPLE)
    assert_same_weights(run, model)
    back = [e for e in run.events if isinstance(e, Traffic) and e.content == "gradient"]
    assert (
        sum(e.tensor_bytes for e in back) == 2 * 25 * 3 * 4
    )  # epochs, rows, 3 of 7 values, bytes: no places


def test_randomised_top_k_too_with_the_places_it_drew():
    one, codec = study("random-topk:0.4,0.5"), codec_of("random-topk:0.4,0.5")
    drawn = []

    def at_cut(values, step):
        places = codec.write(values.detach(), Moment(stream(7, "codec", NAME, CUT), step, True)).trace
        kept = torch.zeros_like(values, dtype=torch.bool).scatter_(1, places, True)
        drawn.append(not torch.equal(kept, largest(values.detach(), 0.4)))
        return torch.where(kept, values, 0.0)

    assert_same_weights(one.simulate(PEOPLE), by_hand(one, at_cut))
    assert any(drawn)


def test_circular_sums_train_the_network_with_sums_and_correlations_in_it():
    one = study("c3:4")
    keys = torch.zeros(4, 7)  # read off what the codec makes of single values
    codec, moment = codec_of("c3:4"), Moment(stream(7, "codec", NAME, CUT), 0, True)
    for row in range(4):
        rows = torch.zeros(4, 7)
        rows[row, 0] = 1.0
        keys[row] = codec.write(rows, moment).parts[1][0]
    turns = [torch.stack([key.roll(place) for place in range(7)], 1) for key in keys]  # [out, in]
    assert torch.allclose(keys.norm(dim=1), torch.ones(4), atol=1e-5)

    def at_cut(values, step):
        groups = values.split(4)
        sums = [sum(turns[i] @ row for i, row in enumerate(group)) for group in groups]
        return torch.stack(
            [turns[i].T @ total for group, total in zip(groups, sums, strict=True) for i in range(len(group))]
        )

    assert_close(one.simulate(PEOPLE), by_hand(one, at_cut))


def test_product_quantisation_adds_the_gradient_of_the_squared_error():
    """FedLite: a straight-through step, and ``correction / 2`` times the mean squared error of the rows in the loss."""
    one = study("pq:2,4,0.3")
    errors = []

    def at_cut(values, step):
        read = there_and_back("pq:2,4,0.3", values.detach(), step, NAME)
        errors.append((values - read).square().sum(1).mean())
        return values + (read - values).detach()

    def loss(prediction, label):
        return nn.functional.cross_entropy(prediction, label) + 0.15 * errors[-1]

    run = one.simulate(PEOPLE)
    assert_close(run, by_hand(one, at_cut, loss))
    assert not run.equals(study("pq:2,4,0").simulate(PEOPLE))


FAMILIES = ("bfloat16", "float8", "int8:channel", "int4", "topk:0.2", "random-topk:0.2", "pq:2,16", "c3:2")


@cache
def digits():
    """A study of digits, and its run without codecs."""
    people = cl.data.digits().split_rows(2)
    graph = cl.vanilla(cl.networks.mlp((64, 32, 10)), "activation1", clients=people)
    plain = cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=0.01), epochs=3, batch_size=64)
    return people, plain, plain.simulate(people)


@pytest.mark.parametrize("word", FAMILIES)
def test_digits_are_learnt_with_every_codec_and_fewer_bytes_cross(word):
    people, plain, exact = digits()
    run = replace(plain, graph=plain.graph.with_codecs(word)).simulate(people)
    assert run.metrics("test")["accuracy"] > exact.metrics("test")["accuracy"] - 0.2
    assert sent(run) < 0.75 * sent(exact)
    assert run.predict(torch.rand(3, 64)).shape == (3, 10)


def sent(run):
    return sum(e.tensor_bytes for e in run.events if isinstance(e, Traffic) and e.cut == NAME)


@pytest.mark.parametrize("codecs", ["int8", "topk:0.3", "c3:2", "pq:2,4"])
@pytest.mark.parametrize("shape", ["u_shaped", "multi_hop", "vertical", "two tensors"])
def test_every_shape_of_graph_trains(shape, codecs):
    if shape == "vertical":
        people = SOURCE.split_columns({"a": slice(0, 3), "b": slice(3, 6)}, labels="server")
        bottoms = {"a": nn.Linear(3, 4), "b": nn.Linear(3, 4)}
        graph = cl.vertical(bottoms, nn.Linear(8, 3), parties=people, codecs=codecs)
    else:
        people = PEOPLE
        graph = {
            "u_shaped": lambda: cl.u_shaped(net(), ("linear1", "activation2"), clients=people, codecs=codecs),
            "multi_hop": lambda: cl.multi_hop(net(), ("linear1", "linear2"), clients=people, codecs=codecs),
            "two tensors": lambda: cl.vanilla(Skips(), "first", clients=people, codecs=codecs),
        }[shape]()
    one = study_of(graph)
    run = one.simulate(people)
    assert run.equals(one.simulate(people)) and not run.equals(one.central(people))


class Skips(nn.Module):
    """A network of which two tensors cross, an activation and what it was made from."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.begin, self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        before = self.begin(x).relu()
        return self.last(self.first(before).tanh() + before)


def test_feedback_is_part_of_the_state_that_is_kept(tmp_path):
    one = study({"head<-server": "topk:0.2+feedback"}, epochs=4)
    whole = one.simulate(PEOPLE, out=tmp_path / "whole")
    assert whole.weights()["top"]["left_out_head_0"].abs().max() > 0
    without = study({"head<-server": "topk:0.2"}, epochs=4).simulate(PEOPLE)
    assert not torch.equal(
        whole.weights()["head"]["linear1.weight"], without.weights()["head"]["linear1.weight"]
    )
    assert not whole.equals(one.central(PEOPLE))

    fragile = study({"head<-server": "topk:0.2+feedback"}, epochs=4, schedule=Fragile())
    with pytest.raises(InterruptedError):
        fragile.simulate(PEOPLE, out=tmp_path / "broken")
    assert one.simulate(PEOPLE, out=tmp_path / "broken", resume=True).equals(whole)


class Fragile(cl.RoundRobin):
    """Round robin that breaks off when half of it is done."""

    def epoch(self, graph, calendar, epoch):
        if epoch == 2:
            raise InterruptedError
        return super().epoch(graph, calendar, epoch)


# Frames that somebody meddled with


def meddled(codecs, kind, change):
    def meddle(frame):
        message = decode(bytes(frame))
        if message.kind is not kind or message.step != 2:
            return frame
        tensors = tuple((name, change(name, tensor.clone())) for name, tensor in message.tensors)
        return encode(message._replace(tensors=tensors))

    graph = cl.vanilla(cl.networks.mlp((6, 8, 7, 3)), "linear1", clients=GOOD, codecs=codecs)
    simulation, _ = listening(graph=graph, meddle=meddle)
    return simulation


def filled(part, value):
    return lambda name, tensor: tensor.fill_(value) if name.endswith(part) else tensor


@pytest.mark.parametrize("kind", [Kind.ACTIVATION, Kind.GRADIENT])
@pytest.mark.parametrize(
    ("codecs", "change", "why"),
    [
        ("int8", filled(".step", float("nan")), "read as int8: a step is no positive number in range; got nan"),
        ("int8", lambda n, t: t[:, :3].clone() if n.endswith(".values") else t, "values is not what int8 writes; got"),
        ("int8", lambda n, t: t[:0] if n.endswith(".values") else t, "is not what int8 writes|too few or too many"),
        ("float8", filled(".values", 0xFF), "a value is NaN or infinity"),
        ("bfloat16", lambda n, t: t.float() if "values" in n else t, "values is not what bfloat16 writes; got"),
        ({NAME: "topk:0.5", "head<-server": "topk:0.5"}, filled(".places", 9), "places do not ascend within a row"),
    ],
)  # fmt: skip
def test_a_coded_frame_that_somebody_meddled_with_is_refused(kind, codecs, change, why):
    with pytest.raises(FrameError, match=why) as caught:
        meddled(codecs, kind, change).train()
    where = ("server", f"{NAME}+y->server") if kind is Kind.ACTIVATION else ("c0", "head<-server")
    assert (caught.value.party, caught.value.cut, caught.value.step) == (*where, 2)


def test_parts_of_another_codec_are_refused_by_name():
    simulation = meddled("int8", Kind.ACTIVATION, lambda name, tensor: tensor)
    other = meddled("topk:0.5", Kind.ACTIVATION, lambda name, tensor: tensor)
    simulation.shared.blueprint.crossings.update(other.shared.blueprint.crossings)
    simulation.train()  # both ends changed alike, so this works
    with pytest.raises(FrameError, match=r"what came is not what the cut's codec writes; got .*; expected"):
        half_and_half().train()


def half_and_half():
    """A simulation whose server reads another codec than the clients write."""
    simulation = meddled("int8", Kind.LABEL, lambda name, tensor: tensor)
    other = meddled("topk:0.5", Kind.LABEL, lambda name, tensor: tensor)
    simulation.parties["server"].shared = other.shared
    return simulation


def test_too_many_rows_are_refused_before_room_is_made_for_them():
    def many(name, tensor):
        return tensor.repeat(10, 1) if ".values" in name or ".places" in name else tensor

    with pytest.raises(FrameError, match="there are too few or too many rows; got 40; expected 1 to"):
        simulation = meddled("topk:0.5", Kind.ACTIVATION, many)
        object.__setattr__(simulation.shared.calendar, "evaluation_batch_size", 4)
        simulation.train()


def test_an_activation_that_cannot_be_written_names_party_cut_and_step():
    graph = cl.vanilla(cl.networks.mlp((6, 8, 7, 3)), "linear1", clients=GOOD, codecs="int8")
    simulation, _ = listening(graph=graph)
    head = simulation.parties["c0"].segment("head").module
    with torch.no_grad():
        next(head.parameters()).fill_(float("inf"))
    with pytest.raises(NumericsError, match=r"c0, cut head->server, step 0: .* int8 cannot write; lower the"):
        simulation.train()


@pytest.mark.parametrize("codecs", ["topk:0.3", "c3:2", "pq:2,4", {"head<-server": "int4+feedback"}])
@pytest.mark.parametrize(
    "schedule", [cl.schedules.SplitFed(), cl.schedules.Parallel(), cl.schedules.Asynchronous()]
)
def test_every_schedule_carries_codecs(schedule, codecs):
    one = study(codecs, schedule=schedule)
    run, exact = one.simulate(PEOPLE), study(None, schedule=schedule).simulate(PEOPLE)
    assert run.equals(one.simulate(PEOPLE))
    assert sent(run) < sent(exact) or "head<-server" in codecs
    back = [
        sum(e.tensor_bytes for e in r.events if isinstance(e, Traffic) and e.content == "gradient")
        for r in (run, exact)
    ]
    assert back[0] < back[1] or codecs == "pq:2,4"


def test_what_is_read_as_nan_is_refused_by_those_who_are_wary():
    simulation = meddled("bfloat16", Kind.ACTIVATION, filled(".values", float("nan")))
    object.__setattr__(simulation.shared, "wary", True)
    with pytest.raises(
        NumericsError, match=r"server, cut .*, step 2: 'linear1', which c0 sent, holds NaN"
    ) as caught:
        simulation.train()
    assert caught.value.sender == "c0"


def test_a_part_that_is_missing_is_refused():
    def without(name, tensor):
        return None if name.endswith(".step") else tensor

    with pytest.raises(
        FrameError, match=r"some parts are missing of linear1\.values, linear1\.step, linear1\.zero"
    ):
        meddled("int8", Kind.GRADIENT, without).train()
