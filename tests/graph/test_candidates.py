"""Candidates: where a module can be cut, what would cross and why not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cutlayer.errors import CutError
from cutlayer.graph.candidates import candidates
from cutlayer.graph.networks import lenet, resnet18, unet, vgg11


def test_lenet_in_full() -> None:
    places = {c.name: c for c in candidates(lenet(), torch.randn(3, 1, 28, 28))}
    assert list(places) == [
        "conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten",
        "fc1", "relu3", "fc2", "relu4", "fc3",
    ]  # fmt: skip
    assert places["conv1"].tensors == {"conv1": (6, 28, 28)}
    assert places["conv1"].bytes_per_sample == 6 * 28 * 28 * 4
    assert places["conv1"].parameters == 156
    conv1, conv2, dense = 28 * 28 * 6 * 25, 10 * 10 * 16 * 150, 400 * 120 + 120 * 84 + 84 * 10
    assert places["conv1"].flops_share == pytest.approx(conv1 / (conv1 + conv2 + dense))
    assert places["flatten"].tensors == {"flatten": (400,)}
    assert [c.name for c in places.values() if not c.works] == ["fc3"]
    assert places["fc3"].reason == "nothing is computed after it" and places["fc3"].flops_share == 1.0


def test_the_same_place_is_listed_once_under_its_outermost_name() -> None:
    names = [c.name for c in candidates(vgg11(), torch.randn(2, 3, 32, 32))]
    assert "features" in names and "features.20" not in names
    listed = candidates(resnet18(), torch.randn(2, 3, 16, 16))
    assert [c.name for c in listed if "." not in c.name] == [
        "conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4",
        "avgpool", "flatten", "fc",
    ]  # fmt: skip
    shares = [c.flops_share for c in listed]
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_skips_cross_by_name() -> None:
    places = {c.name: c for c in candidates(unet(), torch.randn(2, 1, 16, 16))}
    assert places["middle"].tensors == {"down1": (16, 16, 16), "down2": (32, 8, 8), "middle": (64, 4, 4)}
    assert places["middle"].bytes_per_sample == 4 * (16 * 256 + 32 * 64 + 64 * 16)
    assert places["up2"].tensors == {"down1": (16, 16, 16), "up2": (32, 8, 8)}


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.odd = nn.Linear(4, 4), nn.ReLU(), Stubborn()
        self.tail = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.last, self.unused = nn.Linear(4, 1), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.odd(self.relu(self.first(x))))
        for step in self.tail:
            x = step(x)
        return self.last(x)


class Stubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if float(x.detach().mean()) > 0 else x


def test_reasons() -> None:
    places = {c.name: c for c in candidates(Odd(), torch.randn(2, 4))}
    assert places["relu"].reason == "module 'relu' runs 2 times, so 'after relu' is not one place"
    assert places["odd.inner"].reason.startswith("it is inside 'odd', whose forward cannot be followed")
    assert places["odd"].works and places["tail"].works and "tail.1" not in places
    assert "unused" not in places


def test_what_is_not_a_model_of_rows() -> None:
    with pytest.raises(CutError, match="with rows in the first dimension; got nothing"):
        candidates(lenet(), ())
    with pytest.raises(CutError, match=r"does not run on the example.*got x \(2, 3\)"):
        candidates(lenet(), torch.zeros(2, 3))


def test_one_row_is_enough_for_batch_norm() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    assert [c.works for c in candidates(model, torch.randn(1, 3))] == [True, True, False]
