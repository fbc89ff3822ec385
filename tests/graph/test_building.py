"""Building: a piece is an ordinary module."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from cutlayer.errors import CutError
from cutlayer.graph.building import PieceModule
from cutlayer.graph.candidates import candidates
from cutlayer.graph.cutting import cut_module
from cutlayer.graph.networks import resnet18


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)
        self.register_buffer("offset", torch.ones(4), persistent=False)
        self.scale = torch.tensor(2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x) + self.offset)
        return self.second(self.act(x) * self.scale)


def test_a_piece_can_be_copied_saved_and_moved() -> None:
    first, second = (p.module for p in cut_module(Plain(), "first", torch.randn(2, 3)).pieces)
    assert isinstance(second, PieceModule) and "self.second(" in second.code
    assert set(second.state_dict()) == {"second.weight", "second.bias"}
    assert {name for name, _ in second.named_buffers()} == {"offset", "scale"}
    twin = copy.deepcopy(second).eval()
    second.eval()
    x = torch.randn(5, 4)
    assert torch.equal(twin(x), second(x))
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert not torch.equal(twin(x), second(x))
    assert second.double()(x.double()).dtype == torch.float64
    assert first(torch.randn(7, 3)).shape == (7, 4)


def test_a_shared_module_without_weights_keeps_a_mode_of_its_own_in_each_piece() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 4))
    model.append(model[1]).append(nn.Linear(4, 2))
    first, second = (p.module for p in cut_module(model, "2", torch.randn(2, 3)).pieces)
    first.eval()
    assert not first.get_submodule("1").training and second.get_submodule("1").training


def test_pieces_hold_no_wrappers() -> None:
    first, second = (p.module for p in cut_module(resnet18(), "layer1.0", torch.randn(2, 3, 8, 8)).pieces)
    assert isinstance(first.get_submodule("layer1.0.conv1"), nn.Conv2d)
    assert {name for name, _ in second.named_children()} >= {"layer1", "layer2", "fc"}
    assert not any("0.conv1" in name for name, _ in second.get_submodule("layer1").named_modules())


def test_a_module_named_like_a_keyword_is_refused() -> None:
    model = nn.Sequential()
    model.add_module("lambda", nn.Linear(2, 2))
    with pytest.raises(CutError, match="'lambda' is named like a Python keyword; rename it"):
        candidates(model, torch.zeros(2, 2))
