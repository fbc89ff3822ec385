"""Networks drawn at random: every place that is said to work trains to the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from piecewise import check_training, pixels
from torch import Tensor, nn

from cutlayer.errors import CutError
from cutlayer.graph.cutting import candidates, cut_module


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


def test_a_gradient_that_is_a_slice_in_the_uncut_model() -> None:
    """BatchNorm's backward rounds otherwise on a slice, which is what joining two values gives back."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Random([("relu", 0, 0)] * 4 + [("norm", 0, 0), ("join", 1, 5)])
    pieces = cut_module(model, "step4", pixels(6)(3))
    assert pieces.pieces[0].module.gradient_strides
    check_training(model, pieces, pixels(6))
