"""Tracing: which control flow is followed, guarded or made opaque."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from cutlayer.errors import CutError
from cutlayer.graph.tracing import expect, in_mode, input_names, trace


class Step(nn.Module):
    """One linear layer around which ``do`` decides something."""

    def __init__(self, do: Callable[[Step, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.do = do

    def forward(self, x: Tensor) -> Tensor:
        return self.do(self, x)


def worlds(*shape: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return (torch.randn(2, *shape),), (torch.randn(3, *shape),)


def no_grad(self: Step, x: Tensor) -> Tensor:
    with torch.no_grad():
        return self.linear(x)


FOLLOWED: dict[str, Callable[[Step, Tensor], Tensor]] = {
    "rank": lambda self, x: self.linear(x) if x.dim() == 2 else x,
    "loop over a size": lambda self, x: sum((self.linear(x)[:, i] for i in range(x.shape[1])), x[:, 0]),
    "loop over pieces": lambda self, x: sum((self.linear(t) for t in (x.chunk(2, 0) * 1)[0:1]), x.sum() * 0),
    "length": lambda self, x: self.linear(x) * len(x.shape),
    "number": lambda self, x: self.linear(x) / float(x.shape[-1]) + int(x.size(1)),
    "write": lambda self, x: write(self.linear(x)),
}
OPAQUE: dict[str, tuple[Callable[[Step, Tensor], Tensor], str]] = {
    "data": (lambda self, x: self.linear(x) if x.sum() > 0 else x, "depends on the data"),
    "item": (lambda self, x: self.linear(x) * float(x.max()), "depends on the data"),
    "item of the first row": (lambda self, x: self.linear(x) if x[0, 0].item() < 9 else x, "on the data"),
    "rows": (lambda self, x: torch.stack([self.linear(r) for r in x]), "depends on the number of rows"),
    "no gradients": (no_grad, "switches gradients off"),
}


def write(x: Tensor) -> Tensor:
    x[:, 0] = 1.0
    return x


@pytest.mark.parametrize("case", FOLLOWED)
def test_control_flow_on_shapes_is_followed(case: str) -> None:
    model = nn.Sequential(Step(FOLLOWED[case]))
    traced = trace(model, worlds(4))
    assert traced.opaque == {} and "0.linear" in traced.ends
    (x,) = worlds(4)[0]
    assert torch.equal(fx.GraphModule(model, traced.graph)(x.clone()), model(x.clone()))


@pytest.mark.parametrize("case", OPAQUE)
def test_other_control_flow_makes_a_module_opaque(case: str) -> None:
    do, reason = OPAQUE[case]
    traced = trace(nn.Sequential(nn.Linear(4, 4), Step(do), nn.Linear(4, 4)), worlds(4))
    assert list(traced.opaque) == ["1"] and reason in traced.opaque["1"]
    assert list(traced.ends) == ["0", "1", "2"]
    with pytest.raises(CutError, match=r"cannot be followed.*move that part of forward"):
        trace(Step(do), worlds(4))


def test_a_guard_refuses_what_would_go_another_way() -> None:
    model = Step(lambda self, x: self.linear(x) if x.shape[0] > 1 else x)
    traced = fx.GraphModule(model, trace(model, worlds(4)).graph)
    assert traced(torch.zeros(7, 4)).shape == (7, 4)
    with pytest.raises(CutError, match=r"goes another way than for the example.*got False; expected True"):
        traced(torch.zeros(1, 4))
    expect(3, 3)


def test_noise_and_zeros_are_made_anew() -> None:
    model = Step(lambda self, x: self.linear(x) + torch.randn(4) + torch.zeros(x.shape[0], 4))
    traced = fx.GraphModule(model, trace(model, worlds(4)).graph)
    x = torch.randn(5, 4)
    assert not torch.equal(traced(x), traced(x))


def test_tracing_draws_no_random_numbers() -> None:
    model, rows = nn.Sequential(nn.Dropout(0.5), Step(FOLLOWED["rank"])), worlds(4)
    before = torch.get_rng_state()
    trace(model, rows)
    assert torch.equal(torch.get_rng_state(), before)


def test_values_are_named_after_modules_and_operations() -> None:
    model = nn.Sequential(Step(lambda self, x: self.linear(x) + x), nn.Sequential(nn.Linear(4, 2)))
    traced = trace(model, worlds(4))
    assert list(traced.names.values())[:4] == ["input", "layer_0_linear", "layer_0", "layer_1"]


def test_modules_of_torch_are_entered_on_request() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    assert "0.linear1" not in trace(nn.Sequential(layer), worlds(3, 8)).ends
    assert "0.linear1" in trace(nn.Sequential(layer), worlds(3, 8), enter=["0"]).ends


def test_input_names() -> None:
    class Many(nn.Module):
        def forward(self, a: Tensor, b: Tensor, c: Tensor | None = None, *, d: int = 0) -> Tensor:
            return a

    class Any(nn.Module):
        def forward(self, *rows: Tensor) -> Tensor:
            return rows[0]

    assert input_names(Many(), 2) == ("a", "b") and input_names(Many(), 3) == ("a", "b", "c")
    assert input_names(Any(), 2) == ("input0", "input1")
    for count in (1, 4):
        with pytest.raises(CutError, match=r"forward of Many takes \(a, b, c\)"):
            input_names(Many(), count)


def test_modes_come_back_one_by_one() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    model[0].eval()
    with in_mode(model, True):
        assert model[0].training
    assert not model[0].training and model.training
