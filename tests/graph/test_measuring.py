"""Measuring: what each step of a trace makes, costs and changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cutlayer.errors import CutError
from cutlayer.graph.measuring import Measured, Spec, measure, worlds_of
from cutlayer.graph.networks import lenet
from cutlayer.graph.tracing import Trace, trace


def measured(model: nn.Module, x: torch.Tensor) -> tuple[Trace, Measured]:
    traced = trace(model, worlds_of(x))
    return traced, measure(traced, model, (x,))


def test_flops_add_up_to_pytorchs_count_of_the_whole() -> None:
    model, x = lenet(), torch.randn(3, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        model(x)
    traced, found = measured(model, x)
    flops = [found.flops[node] for node in traced.graph.nodes if node in found.flops]
    assert flops == sorted(flops) and flops[-1] == counter.get_total_flops()
    assert found.specs[traced.ends["pool1"][0]] == Spec((3, 6, 14, 14), torch.float32, None)


def test_what_is_changed_in_place_is_replaced_by_what_changed_it() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.BatchNorm1d(4))
    traced, found = measured(model, torch.randn(2, 4))
    linear, relu, norm = (traced.ends[str(i)][0] for i in range(3))
    assert found.changed == {relu: (linear,)}
    assert norm.args[0] is relu
    assert found.state == {"2.running_mean", "2.running_var", "2.num_batches_tracked"}


def test_worlds() -> None:
    (one,), (more,) = worlds_of(torch.arange(3.0).view(1, 3))
    assert one.shape == (2, 3) and more.shape == (3, 3)
    rows, longer = worlds_of((torch.zeros(2, 3), torch.zeros(5)))
    assert [t.shape[0] for t in rows] == [2, 5] and [t.shape[0] for t in longer] == [3, 5]
    for example in ((), torch.tensor(1.0), (torch.zeros(0, 3),)):
        with pytest.raises(CutError, match="with rows in the first dimension"):
            worlds_of(example)
