"""Cutting: pieces train to the same bits as the uncut model, wherever they are cut."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cutlayer.errors import CutError
from cutlayer.graph.cutting import Pieces, candidates, cut_module
from cutlayer.graph.networks import lenet, mlp, resnet18, resnet50, transformer, unet, vgg11, vgg16


def train_whole(model: nn.Module, batches: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for step, rows in enumerate(batches):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(*rows).square().mean().backward()
        optimizer.step()
    return dict(model.state_dict())


def train_pieces(pieces: Pieces, batches: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Train with one optimizer per piece; what crosses is copied, as a wire would."""
    optimizers = [
        torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
        for parameters in ([*p.module.parameters()] for p in pieces.pieces)
        if parameters
    ]
    for step, rows in enumerate(batches):
        torch.manual_seed(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        one_step(pieces, rows)
        for optimizer in optimizers:
            optimizer.step()
    state: dict[str, Tensor] = {}
    for piece, names in zip(pieces.pieces, pieces.parameter_names(), strict=True):
        state.update({names[key]: value for key, value in piece.module.state_dict().items()})
    return state


def one_step(pieces: Pieces, rows: tuple[Tensor, ...]) -> None:
    sent: dict[str, Tensor] = dict(zip(pieces.inputs, rows, strict=True))
    got: list[list[Tensor]] = []
    for piece in pieces.pieces:
        values = []
        for name in piece.inputs:
            tensor = sent[name]
            if name not in pieces.inputs:
                tensor = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
                tensor.requires_grad_(tensor.is_floating_point())
            values.append(tensor)
        out = piece.module.train()(*values)
        sent.update(zip(piece.outputs, out if isinstance(out, tuple) else (out,), strict=True))
        got.append(values)
    (result,) = pieces.results
    back: dict[str, Tensor] = {}
    guess = sent[result].detach().requires_grad_()
    guess.square().mean().backward()
    assert guess.grad is not None
    back[result] = guess.grad
    for piece, values in zip(reversed(pieces.pieces), reversed(got), strict=True):
        wanted = [n for n in piece.outputs if n in back and sent[n].requires_grad]
        torch.autograd.backward([sent[n] for n in wanted], [back[n] for n in wanted])
        for name, value in zip(piece.inputs, values, strict=True):
            if value.grad is not None:
                back[name] = back[name] + value.grad if name in back else value.grad


def check_training(model: nn.Module, pieces: Pieces, make: Callable[[int], tuple[Tensor, ...]]) -> None:
    """The uncut model and the pieces, three steps of different sizes: all weights and buffers are equal."""
    batches = [make(rows) for rows in (5, 2, 3)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    split = train_pieces(pieces, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    whole = train_whole(model, batches)
    assert set(split) == {name for name in whole if name in split}
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained <= set(split)
    for name, value in split.items():
        assert torch.equal(value, whole[name]), name


def pixels(*shape: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda rows: (torch.randn(rows, *shape, generator=torch.Generator().manual_seed(rows)),)


def tokens(vocab: int, length: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda rows: (torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(rows)),)


IMAGE = pixels(3, 32, 32)
SMALL = pixels(3, 16, 16)
CASES = {
    "mlp": (lambda: mlp((20, 16, 8, 3), dropout=0.2), "activation1", pixels(20)),
    "mlp in three": (lambda: mlp((20, 16, 8, 3)), ("linear1", "activation2"), pixels(20)),
    "lenet": (lenet, "pool1", pixels(1, 28, 28)),
    "vgg11 with BatchNorm": (lambda: vgg11(batch_norm=True), "features.3", IMAGE),
    "resnet18 inside a block": (resnet18, "layer2.0.bn1", SMALL),
    "resnet18 in three": (resnet18, ("layer1", "avgpool"), SMALL),
    "transformer after the tokens": (transformer, "embed", tokens(1000, 12)),
    "transformer inside attention": (transformer, "blocks.0.key", tokens(1000, 12)),
    "transformer inside a block": (transformer, "blocks.1.dropout1", tokens(1000, 12)),
    "unet, one skip": (unet, "pool1", pixels(1, 16, 16)),
    "unet, two skips": (unet, "middle", pixels(1, 16, 16)),
    "unet, on the way up": (unet, "grow1", pixels(1, 16, 16)),
}


@pytest.mark.parametrize("case", CASES)
def test_pieces_train_to_the_same_bits_as_the_uncut_model(case: str) -> None:
    make, cut, rows = CASES[case]
    model = make()
    pieces = cut_module(model, cut, rows(2))
    assert len(pieces.pieces) == 2 if isinstance(cut, str) else len(cut) + 1
    check_training(model, pieces, rows)


def test_names_of_what_crosses() -> None:
    pieces = cut_module(resnet18(), "layer2.0.bn1", SMALL(2), verify=False)
    first, second = pieces.pieces
    assert first.inputs == pieces.inputs == ("x",)
    assert first.outputs == second.inputs == ("layer1", "layer2_0_bn1")
    assert second.outputs == pieces.results == ("fc",)
    assert pieces.cuts == ("layer2.0.bn1",)
    inside = cut_module(transformer(), "blocks.0.norm2", tokens(1000, 8)(2), verify=False)
    assert inside.pieces[0].outputs == ("blocks_0_add", "blocks_0_norm2")


def test_the_u_shape_keeps_a_skip_on_the_client() -> None:
    pieces = cut_module(unet(), ("down1", "up2"), pixels(1, 16, 16)(2), roles=("client", "server", "client"))
    head, body, tail = pieces.pieces
    assert head.outputs == ("down1",) and body.inputs == ("down1",)
    assert tail.inputs == ("down1", "up2")
    check_training(unet(), pieces, pixels(1, 16, 16))


def test_pieces_keep_the_models_parameter_names_and_share_nothing_with_it() -> None:
    model = resnet18()
    pieces = cut_module(model, "layer2.0.conv1", SMALL(2))
    states = [piece.module.state_dict() for piece in pieces.pieces]
    assert set(states[0]) | set(states[1]) == set(model.state_dict())
    assert not set(states[0]) & set(states[1])
    assert pieces.parameter_names()[0]["layer1.0.conv1.weight"] == "layer1.0.conv1.weight"
    for state in states:
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    own = {p.data_ptr() for p in model.parameters()}
    twin = {p.data_ptr() for p in pieces.model.parameters()}
    parts = {p.data_ptr() for piece in pieces.pieces for p in piece.module.parameters()}
    assert len(own | twin | parts) == len(own) + len(twin) + len(parts)


def test_verifying_leaves_no_trace() -> None:
    model = resnet18()
    model.layer1.eval()
    state, random = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    pieces = cut_module(model, "layer2", SMALL(2))
    assert torch.equal(torch.get_rng_state(), random)
    for part in (model, pieces.model, *(p.module for p in pieces.pieces)):
        assert part.training
        assert not part.get_submodule("layer1").training if hasattr(part, "layer1") else True
        assert all(p.grad is None for p in part.parameters())
        assert all(torch.equal(value, state[name]) for name, value in part.state_dict().items())
    assert not pieces.pieces[0].module.get_submodule("layer1.0.bn1").training


def test_a_share_of_the_flops_takes_the_nearest_place() -> None:
    shares = {c.name: c.flops_share for c in candidates(vgg11(), IMAGE(2)) if c.works}
    pieces = cut_module(vgg11(), 0.3, IMAGE(2), verify=False)
    assert abs(shares[pieces.cuts[0]] - 0.3) == min(abs(share - 0.3) for share in shares.values())
    mixed = cut_module(vgg11(), ("features.0", 0.5), IMAGE(2), verify=False)
    assert mixed.cuts[0] == "features.0" and len(mixed.pieces) == 3


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.top = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, image: Tensor, record: Tensor, scale: float = 1.0) -> Tensor:
        return self.top(torch.relu(self.left(image) + self.right(record)) * scale)


def two(rows: int) -> tuple[Tensor, ...]:
    return pixels(4)(rows) + pixels(3)(rows)


def test_a_gradient_that_is_a_slice_in_the_uncut_model() -> None:
    """BatchNorm's backward rounds otherwise on a slice, which is what joining two values gives back."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Random([("relu", 0, 0)] * 4 + [("norm", 0, 0), ("join", 1, 5)])
    pieces = cut_module(model, "step4", pixels(6)(3))
    assert pieces.pieces[0].module.gradient_strides
    check_training(model, pieces, pixels(6))


def test_several_inputs() -> None:
    pieces = cut_module(TwoInputs(), "right", two(2))
    assert pieces.pieces[0].inputs == ("image", "record")
    assert pieces.pieces[1].inputs == ("left", "right")
    model = TwoInputs()
    check_training(model, cut_module(model, "right", two(2)), two)
    with pytest.raises(CutError, match=r"raw input 'record' would cross to server.*nearest .* 'right'"):
        cut_module(TwoInputs(), "left", two(2), roles=("client", "server"))
    with pytest.raises(CutError, match=r"takes \(image, record, scale\).*1 tensor;"):
        cut_module(TwoInputs(), "left", two(2)[0])


def test_a_raw_input_may_come_back_to_the_role_that_holds_it() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.third(self.second(self.first(x)) + x)

    pieces = cut_module(Residual(), ("first", "second"), pixels(4)(2), roles=("a", "b", "a"))
    assert pieces.pieces[2].inputs == ("x", "second")
    with pytest.raises(CutError, match="raw input 'x' would cross to c"):
        cut_module(Residual(), ("first", "second"), pixels(4)(2), roles=("a", "b", "c"))


def test_moving_raw_data_about_does_not_make_it_less_raw() -> None:
    with pytest.raises(CutError, match=r"raw input data, as 'flatten', would cross.*'linear1' instead of"):
        cut_module(mlp((6, 4, 2)), "flatten", pixels(6)(2))


class Tied(nn.Module):
    """A language model whose embedding is also its last layer; ``after`` adds something behind it."""

    def __init__(self, after: bool) -> None:
        super().__init__()
        self.embed, self.middle = nn.Embedding(11, 6), nn.Linear(6, 6)
        self.logits = nn.Linear(6, 11, bias=False)
        self.logits.weight = self.embed.weight
        self.after = nn.Linear(11, 3) if after else nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        return self.after(self.logits(self.middle(self.embed(ids))))


def test_tied_weights_are_refused_with_the_nearest_cut_that_works() -> None:
    rows = tokens(11, 5)
    with pytest.raises(CutError) as caught:
        cut_module(Tied(after=True), "middle", rows(2))
    assert "'embed.weight' and 'logits.weight'" in str(caught.value)
    assert "nearest cut that works is 'logits'" in str(caught.value)
    model = Tied(after=True)
    check_training(model, cut_module(model, "logits", rows(2)), rows)
    with pytest.raises(CutError, match="no other place works either"):
        cut_module(Tied(after=False), "middle", rows(2))


def test_one_weight_used_in_two_places_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.between, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.shared(self.between(self.shared(x))))

    with pytest.raises(CutError, match=r"weights 'shared\.\w+' would be used on both sides"):
        cut_module(Twice(), "between", pixels(4)(2))
    with pytest.raises(CutError, match="'shared' runs 2 times"):
        cut_module(Twice(), "shared", pixels(4)(2))


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.large(x) if x.sum() > 0 else self.small(x)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(5, 6), Gate(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.gate(self.first(x))))


def test_control_flow_on_data_is_refused_inside_and_accepted_around() -> None:
    with pytest.raises(CutError, match=r"inside 'gate'.*depends on the data.*'gate' instead of 'gate.large'"):
        cut_module(Gated(), "gate.large", pixels(5)(2))
    for cut in ("first", "gate"):
        model = Gated()
        check_training(model, cut_module(model, cut, pixels(5)(2)), pixels(5))


def test_a_root_that_decides_by_its_data_is_refused() -> None:
    with pytest.raises(CutError, match=r"forward of Gate cannot be followed: .* depends on the data"):
        cut_module(Gate(), "large", pixels(6)(2))


class InPlace(nn.Module):
    """The in-place ReLU changes a value that crosses and is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 6)
        self.drop, self.last = nn.Dropout(0.3, inplace=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.first(x)
        out = self.second(self.relu(kept))
        out.add_(1.0)
        return self.last(self.drop(out) + kept)


@pytest.mark.parametrize("cut", ["first", "relu", "second", "drop", ("first", "second"), ("relu", "drop")])
def test_changing_a_received_value_in_place(cut: str | tuple[str, ...]) -> None:
    model = InPlace()
    pieces = cut_module(model, cut, pixels(5)(2))
    check_training(model, pieces, pixels(5))
    received = torch.randn(2, 6)
    before = received.clone()
    second = pieces.pieces[1]
    second.module(*[received for _ in second.inputs])
    assert torch.equal(received, before)


def test_what_crosses_and_is_changed_behind_is_refused() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            made = self.a(x)
            made[:, 0] = 0.0
            return self.c(self.b(made) + made)

    with pytest.raises(CutError, match="be changed in place and be used again"):
        cut_module(Late(), ("a", "b"), pixels(4)(2))
    model = Late()
    check_training(model, cut_module(model, "a", pixels(4)(2)), pixels(4))


def test_inside_torchs_own_transformer() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    pieces = cut_module(model, "layers.1.linear1", pixels(5, 8)(2))
    assert pieces.pieces[0].outputs == ("layers_1_norm1", "layers_1_linear1")
    check_training(model, pieces, pixels(5, 8))


def test_two_forwards_in_one() -> None:
    class Modes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            if self.training:
                x = x + 0.1 * torch.randn(4)
            return self.c(F.dropout(self.b(x), 0.4, self.training))

    model = Modes()
    pieces = cut_module(model, "b", pixels(4)(2))
    check_training(model, pieces, pixels(4))
    model.eval(), [p.module.eval() for p in pieces.pieces]
    (x,) = pixels(4)(3)
    for piece, names in zip(pieces.pieces, pieces.parameter_names(), strict=True):
        piece.module.load_state_dict({n: model.state_dict()[names[n]] for n in names})
    assert torch.equal(pieces.pieces[1].module(pieces.pieces[0].module(x)), model(x))


def test_numbers_of_rows_are_read_off_what_crosses() -> None:
    class Numbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            rows, _ = x.shape
            doubled = 2 * rows
            out = self.b(self.a(x))
            return self.c(out.view(doubled, 3)).view(rows, -1)

    model = Numbers()
    pieces = cut_module(model, "a", pixels(4)(2))
    assert pieces.pieces[0].outputs == ("a",)
    check_training(model, pieces, pixels(4))


def test_unknown_words_and_bad_orders() -> None:
    x = SMALL(2)
    with pytest.raises(CutError, match=r"cut layer22: ResNet has no module of that name; nearest: .*layer2"):
        cut_module(resnet18(), "layer22", x)
    with pytest.raises(CutError, match="got layer2, layer1; expected layer1, layer2"):
        cut_module(resnet18(), ("layer2", "layer1"), x)
    with pytest.raises(
        CutError, match=r"nothing is computed after it; the nearest cut that works is 'flatten'"
    ):
        cut_module(resnet18(), "fc", x)
    with pytest.raises(CutError, match=r"between 0 and 1; got 1.5"):
        cut_module(resnet18(), 1.5, x)
    with pytest.raises(CutError, match="make 2 pieces; got roles"):
        cut_module(resnet18(), "layer1", x, roles=("client",))
    with pytest.raises(CutError, match="no cut is given"):
        cut_module(resnet18(), (), x)
    with pytest.raises(CutError, match=r"does not run on the example.*got x \(2, 5, 8, 8\)"):
        cut_module(resnet18(), "layer1", torch.randn(2, 5, 8, 8))


@pytest.mark.parametrize("make", [vgg16, resnet50])
def test_cutting_is_quick(make: Callable[[], nn.Module]) -> None:
    model = make()
    start = time.process_time()
    cut_module(model, 0.3, IMAGE(2))
    assert time.process_time() - start < 10  # about two seconds of work


class Random(nn.Module):
    """A network drawn at random: each step works on an earlier value, some add or join two."""

    def __init__(self, plan: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.plan = plan
        widths = [6]
        for i, (kind, source, other) in enumerate(plan):
            width = widths[source % len(widths)]
            if kind == "join":
                self.add_module(f"step{i}", nn.Linear(width + widths[other % len(widths)], 6))
            else:
                self.add_module(f"step{i}", make_step(kind, width))
            widths.append(6)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for i, (kind, source, other) in enumerate(self.plan):
            step = self.get_submodule(f"step{i}")
            a, b = values[source % len(values)], values[other % len(values)]
            if kind == "join":
                values.append(step(torch.cat([a, b], dim=1)))
            elif kind == "add":
                values.append(step(a) + b)
            else:
                values.append(step(a))
        return self.last(values[-1] + values[len(values) // 2])


def make_step(kind: str, width: int) -> nn.Module:
    linear = nn.Linear(width, 6)
    steps: dict[str, Callable[[], nn.Module]] = {
        "relu": lambda: nn.Sequential(linear, nn.ReLU(inplace=True)),
        "norm": lambda: nn.Sequential(linear, nn.BatchNorm1d(6)),
        "drop": lambda: nn.Sequential(nn.Dropout(0.3), linear),
        "add": lambda: linear,
    }
    return steps[kind]()


STEP = st.tuples(
    st.sampled_from(["relu", "norm", "drop", "add", "join"]), st.integers(0, 6), st.integers(0, 6)
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=st.lists(STEP, min_size=2, max_size=6), seed=st.integers(0, 3))
def test_every_place_said_to_work_works(plan: list[tuple[str, int, int]], seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Random(plan)
    (x,) = pixels(6)(3)
    listed = candidates(model, x)
    for place in listed:
        if place.works:
            pieces = cut_module(model, place.name, x)
            assert pieces.pieces[0].outputs == tuple(place.tensors)
            check_training(copy.deepcopy(model), pieces, pixels(6))
        else:
            with pytest.raises(CutError):
                cut_module(model, place.name, x)


class Choosy(nn.Module):
    """A forward that looks at its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        return self.second(hidden) if hidden.sum() > 0 else hidden


def test_control_flow_that_reads_the_data_is_told_with_the_nearest_cut_that_works():
    model = nn.Sequential(nn.Linear(4, 4), Choosy(), nn.Linear(4, 2))
    with pytest.raises(CutError, match=r"inside '1'.*depends on the data; the nearest cut that works is '1'"):
        cut_module(model, "1.second", torch.randn(3, 4))
    with pytest.raises(
        CutError, match=r"depends on the data, so no cut of it works; move that part.*submodule"
    ):
        cut_module(Choosy(), "first", torch.randn(3, 4))
