"""Replay: what does not do the same as the uncut model is found and named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cutlayer.errors import CutError
from cutlayer.graph.cutting import Pieces, cut_module
from cutlayer.graph.networks import mlp
from cutlayer.graph.replay import replay

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def cut() -> Pieces:
    return cut_module(mlp((6, 5, 3), dropout=0.2), "activation1", X, verify=False)


def test_right_pieces_pass() -> None:
    replay(cut(), (X,))


def test_another_weight_shows_in_the_output() -> None:
    pieces = cut()
    with torch.no_grad():
        next(pieces.pieces[1].module.parameters()).add_(1e-6)
    with pytest.raises(CutError, match="in training mode the output 0 differs; got a largest difference of"):
        replay(pieces, (X,))


DIFFERENT: dict[str, Callable[[nn.Module, object, Tensor], Tensor | None]] = {
    "in training mode the gradient": lambda module, got, out: out.detach() + 0 * out,
    "in evaluation mode the output 0 differs": lambda module, got, out: out if module.training else 2 * out,
    "with 1 rows output 0 of the pieces differs": lambda module, got, out: out + 1 if len(out) == 1 else out,
    "with 5 rows output 0 of the pieces differs": lambda module, got, out: out + 1 if len(out) == 5 else out,
}


@pytest.mark.parametrize("message", DIFFERENT)
def test_what_differs_is_named(message: str) -> None:
    pieces = cut()
    pieces.pieces[1].module.register_forward_hook(DIFFERENT[message])
    with pytest.raises(CutError, match=message):
        replay(pieces, (X,))


def test_a_buffer_that_differs_is_named() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    pieces = cut_module(model, "1", X)
    pieces.pieces[0].module.get_submodule("1").momentum = 0.5  # type: ignore[assignment]
    with pytest.raises(CutError, match=r"in training mode the buffer 1.running_mean differs"):
        replay(pieces, (X,))


class Forgetful(nn.Module):
    """Not the same for one row as for many, which the number of rows of the example does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) * (2 if x.numel() < 7 else 1)


def test_control_flow_on_rows_is_guarded_at_run_time() -> None:
    pieces = cut_module(Forgetful(), "first", X)
    assert pieces.pieces[0].module(X).shape == (4, 5)
    with pytest.raises(CutError, match="goes another way than for the example"):
        pieces.pieces[0].module(X[:1])


def test_state_kept_outside_of_buffers_is_found() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.calls = nn.Linear(6, 5), nn.Linear(5, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.second(self.first(x)) * self.calls

    with pytest.raises(CutError, match=r"output 0 .*differs"):
        cut_module(Counting(), "first", X)


def test_other_layouts_in_memory_cross_exactly() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv2(torch.relu(self.conv1(x.to(memory_format=torch.channels_last))))

    pieces = cut_module(Turned().to(memory_format=torch.channels_last), "conv1", torch.randn(2, 3, 8, 8))
    crossed = pieces.pieces[0].module(torch.randn(2, 3, 8, 8)).detach()
    other = crossed.contiguous()
    assert torch.equal(pieces.pieces[1].module(crossed), pieces.pieces[1].module(other))
