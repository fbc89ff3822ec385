"""Splitting: which values cross, which numbers are known anyway, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cutlayer.errors import CutError
from cutlayer.graph.candidates import Survey
from cutlayer.graph.cutting import cut_module
from cutlayer.graph.splitting import Dimension, Split


class Recurrent(nn.Module):
    """A module that returns a nest of tuples, which is unpacked after the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.lstm = nn.LSTM(6, 7, batch_first=True)
        self.top = nn.Linear(7, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        start = torch.zeros(1, tokens.shape[0], 7)
        out, (last, _) = self.lstm(self.embed(tokens), (start, start))
        return self.top(out.mean(1) + last[0])


TOKENS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def test_tuples_are_unpacked_before_they_cross() -> None:
    pieces = cut_module(Recurrent(), "lstm", TOKENS)
    assert pieces.pieces[0].outputs == ("lstm_0", "lstm_1_0")
    assert len(pieces.pieces[0].module(torch.tensor([[1, 2, 3, 4, 5]]))) == 2


class Reader(nn.Module):
    """Reads sizes of the raw input after the cut; a mask and a scale are made before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        mask = x > 0
        y = self.first(x)
        rows, width = x.shape
        y = self.second(y.view(x.size(0), -1)) * mask.any() / width
        return y.view(rows * 2, 3)


def split(model: nn.Module, *paths: str, x: Tensor) -> Split:
    return Survey(model, x).split(paths)[0]


def test_sizes_do_not_cross() -> None:
    one = split(Reader(), "first", x=torch.randn(2, 4))
    assert one.names(one.inputs[1]) == ("gt", "first")
    numbers = {one.names([n])[0]: one.number(1, n) for n in one.needs[1] if n not in one.inputs[1]}
    mask = one.inputs[1][0]
    assert numbers["size"] == Dimension(mask, 0)
    assert Dimension(mask, 1) in numbers.values()
    with pytest.raises(CutError, match=r"got x \(2, 5\)"):
        split(Reader(), "first", x=torch.randn(2, 5))


def test_numbers_read_from_the_data_are_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            largest = x.max().item()
            return self.second(self.first(x)) / largest

    with pytest.raises(CutError, match="'item', which is no tensor, would cross"):
        cut_module(Scaled(), "first", torch.randn(2, 4))


def test_a_mask_of_raw_data_crosses_by_name_and_without_gradient() -> None:
    pieces = cut_module(Reader(), "first", torch.randn(2, 4))
    mask, first = pieces.pieces[0].module(torch.randn(3, 4))
    assert mask.dtype == torch.bool and first.requires_grad
    assert pieces.pieces[1].module(mask, first).shape == (6, 3)


class Branches(nn.Module):
    """Several results, one of them made early, as a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.early, self.body, self.late = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        return {"early": self.early(x), "late": self.late(self.body(x))}


def test_results_may_come_from_several_pieces() -> None:
    pieces = cut_module(Branches(), "body", torch.randn(2, 4))
    assert pieces.results == ("early", "late")
    assert [p.outputs for p in pieces.pieces] == [("early", "body"), ("late",)]


def test_results_that_depend_on_the_mode_are_refused() -> None:
    class Auxiliary(Branches):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            results = super().forward(x)
            return results if self.training else {"late": results["late"]}

    with pytest.raises(CutError, match="returns other things in training than in evaluation"):
        cut_module(Auxiliary(), "stem", torch.randn(2, 4))


def test_results_must_be_tensors() -> None:
    class Counting(Branches):
        def forward(self, x: Tensor) -> tuple[Tensor, int]:  # type: ignore[override]
            return self.late(self.stem(x)), x.shape[0]

    with pytest.raises(CutError, match="returns something other than tensors"):
        cut_module(Counting(), "stem", torch.randn(2, 4))


def test_a_piece_that_only_moves_data_is_no_piece() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(CutError, match="nothing is computed between the two cuts"):
        cut_module(model, ("0", "2"), torch.randn(2, 4))
    with pytest.raises(CutError, match="nothing is computed after it"):
        cut_module(model[:3], "0", torch.randn(2, 4))


class Mask(nn.Module):
    """Two layers read the same buffer; ``counting`` makes it one that training changes."""

    def __init__(self, counting: bool) -> None:
        super().__init__()
        self.first, self.second, self.counting = nn.Linear(4, 4), nn.Linear(4, 4), counting
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x * self.mask)
        if self.counting:
            self.mask.mul_(0.5)
        return self.second(x * self.mask)


def test_a_buffer_may_be_on_both_sides_unless_training_changes_it() -> None:
    first, second = cut_module(Mask(counting=False), "first", torch.randn(2, 4)).pieces
    one, other = first.module.get_buffer("mask"), second.module.get_buffer("mask")
    assert torch.equal(one, other) and one.data_ptr() != other.data_ptr()
    with pytest.raises(CutError, match="weights 'mask' would be used on both sides"):
        cut_module(Mask(counting=True), "first", torch.randn(2, 4))
