"""Cuts that would not train to the same bits, or would let raw data cross, are refused: the nearest is named."""

from __future__ import annotations

import pytest
import torch
from piecewise import SMALL, check_training, pixels, tokens
from torch import Tensor, nn

from cutlayer.errors import CutError
from cutlayer.graph.cutting import cut_module
from cutlayer.graph.networks import mlp, resnet18


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
