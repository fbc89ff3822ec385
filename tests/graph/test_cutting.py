"""Cutting: pieces train to the same bits as the uncut model, wherever they are cut."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from piecewise import IMAGE, SMALL, check_training, pixels, tokens
from torch import Tensor, nn
from torch.nn import functional as F

from cutlayer.errors import CutError
from cutlayer.graph.cutting import candidates, cut_module
from cutlayer.graph.networks import lenet, mlp, resnet18, resnet50, transformer, unet, vgg11, vgg16

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


@pytest.mark.parametrize("make", [vgg16, resnet50])
def test_cutting_is_quick(make: Callable[[], nn.Module]) -> None:
    model = make()
    start = time.process_time()
    cut_module(model, 0.3, IMAGE(2))
    assert time.process_time() - start < 10  # about two seconds of work
