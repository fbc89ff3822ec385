"""Networks: published sizes, deterministic weights, names to cut at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cutlayer.errors import GraphError
from cutlayer.graph.networks import lenet, mlp, resnet18, resnet50, transformer, unet, vgg11, vgg16

PUBLISHED: list[tuple[str, Callable[[], nn.Module], int]] = [
    ("VGG-11", lambda: vgg11(1000, head="imagenet"), 132_863_336),
    ("VGG-11-BN", lambda: vgg11(1000, head="imagenet", batch_norm=True), 132_868_840),
    ("VGG-16", lambda: vgg16(1000, head="imagenet"), 138_357_544),
    ("VGG-16-BN", lambda: vgg16(1000, head="imagenet", batch_norm=True), 138_365_992),
    ("CIFAR VGG-11-BN", lambda: vgg11(batch_norm=True), 9_231_114),
    ("CIFAR VGG-16-BN", lambda: vgg16(batch_norm=True), 14_728_266),
    ("ResNet-18", lambda: resnet18(1000, stem="imagenet"), 11_689_512),
    ("ResNet-50", lambda: resnet50(1000, stem="imagenet"), 25_557_032),
    ("CIFAR ResNet-18", lambda: resnet18(), 11_173_962),
    ("ResNet-50, 100 classes", lambda: resnet50(100, stem="imagenet"), 23_712_932),
    ("LeNet-5", lambda: lenet(), 61_706),
    ("mlp", lambda: mlp(), 784 * 256 + 256 + 256 * 10 + 10),
]


@pytest.mark.parametrize(("name", "make", "count"), PUBLISHED, ids=[name for name, _, _ in PUBLISHED])
def test_parameter_counts_are_the_published_ones(
    name: str, make: Callable[[], nn.Module], count: int
) -> None:
    with torch.device("meta"):
        network = make()
    assert sum(p.numel() for p in network.parameters()) == count


def test_multiply_adds_of_the_vgg16_in_the_split_learning_tables() -> None:
    """336.167 M in all and 1,769,472 up to the first convolution, for one 32x32 sample."""
    with torch.device("meta"):
        network = vgg16(1000, head="imagenet", pixels=32)
        x = torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        network(x)
    assert counter.get_total_flops() / 2 == 336_166_912
    assert isinstance(network.features, nn.Sequential)
    with FlopCounterMode(display=False) as counter:
        network.features[0](x)
    assert counter.get_total_flops() / 2 == 1_769_472


def test_resnet50_sends_16384_numbers_after_its_first_convolution() -> None:
    with torch.device("meta"):
        network = resnet50(100, stem="imagenet")
        out = network.get_submodule("conv1")(torch.empty(1, 3, 32, 32))
    assert out.numel() == 16_384


SHAPES: list[tuple[Callable[..., nn.Module], torch.Tensor, tuple[int, ...]]] = [
    (mlp, torch.zeros(2, 1, 28, 28), (2, 10)),
    (lenet, torch.zeros(2, 1, 28, 28), (2, 10)),
    (vgg11, torch.zeros(2, 3, 32, 32), (2, 10)),
    (resnet18, torch.zeros(2, 3, 32, 32), (2, 10)),
    (transformer, torch.zeros(2, 7, dtype=torch.int64), (2, 2)),
    (unet, torch.zeros(2, 1, 16, 24), (2, 2, 16, 24)),
]


@pytest.mark.parametrize(("make", "x", "shape"), SHAPES)
def test_shapes_and_seeds(make: Callable[..., nn.Module], x: torch.Tensor, shape: tuple[int, ...]) -> None:
    before = torch.get_rng_state()
    one = make()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = make(seed=0), make(seed=1)
    for a, b in zip(one.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one.eval()(x).shape == shape


def test_nothing_is_activated_in_place() -> None:
    for network in (mlp(), lenet(), vgg11(), resnet18(), transformer(), unet()):
        assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_dropout_and_names_of_an_mlp() -> None:
    network = mlp((6, 5, 4, 3), activation=nn.Tanh, dropout=0.5)
    assert list(dict(network.named_children())) == [
        "flatten", "linear1", "activation1", "dropout1", "linear2", "activation2", "dropout2", "linear3",
    ]  # fmt: skip
    assert isinstance(network.get_submodule("activation2"), nn.Tanh)


def test_impossible_settings() -> None:
    with pytest.raises(GraphError, match="at least two sizes"):
        mlp((5,))
    with pytest.raises(GraphError, match="unknown head 'cifer'; did you mean 'cifar'"):
        vgg11(head="cifer")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="unknown stem"):
        resnet18(stem="small")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="halves its input five times; got 16 pixels"):
        vgg16(head="imagenet", pixels=16)
    with pytest.raises(GraphError, match="multiple of its heads; got 10 and 4"):
        transformer(width=10)
