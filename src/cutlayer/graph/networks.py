"""Networks in plain named blocks, to be cut anywhere.

All are built the same for the same ``seed``, whatever random numbers were drawn before, and draw none
themselves from the global stream. Activations are never computed in place. Widths, depths and heads are
those of the papers named, so parameter counts are the published ones.

Shapes: B samples, C channels, H x W pixels, L tokens, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import GraphError, nearest

__all__ = ["lenet", "mlp", "resnet18", "resnet50", "transformer", "unet", "vgg11", "vgg16"]

_PLANS: dict[int, tuple[int | str, ...]] = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    16: (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def mlp(
    sizes: Sequence[int] = (784, 256, 10),
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    dropout: float = 0.0,
    seed: int = 0,
) -> nn.Sequential:
    """Return a multilayer perceptron; [B, ...] is flattened to [B, sizes[0]].

    Modules: ``flatten``, then ``linear1``, ``activation1`` (, ``dropout1``), ``linear2``, ...

    Args:
        sizes: Features of the input, of each hidden layer and of the output.
        activation: Makes the activation after each hidden layer.
        dropout: Chance to drop a hidden feature in training.
        seed: Seed of the initial weights.
    """
    if len(sizes) < 2:
        raise GraphError("an mlp needs at least two sizes", got=str(tuple(sizes)))
    network = nn.Sequential()
    network.add_module("flatten", nn.Flatten())
    with _seeded(seed):
        for i in range(1, len(sizes)):
            network.add_module(f"linear{i}", nn.Linear(sizes[i - 1], sizes[i]))
            if i < len(sizes) - 1:
                network.add_module(f"activation{i}", activation())
                if dropout:
                    network.add_module(f"dropout{i}", nn.Dropout(dropout))
    return network


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling: [B, C, 28, 28] -> [B, classes]."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.relu1, self.pool1 = nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
        self.conv2, self.relu2, self.pool2 = nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1, self.relu3 = nn.Linear(400, 120), nn.ReLU()
        self.fc2, self.relu4 = nn.Linear(120, 84), nn.ReLU()
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, classes] of pixels [B, C, 28, 28]."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(self.flatten(x)))
        logits: Tensor = self.fc3(self.relu4(self.fc2(x)))
        return logits


def lenet(classes: int = 10, channels: int = 1, *, seed: int = 0) -> nn.Module:
    """Return LeNet-5 for 28x28 pixels (LeCun et al. 1998; ReLU, max pooling): 61,706 parameters."""
    with _seeded(seed):
        return LeNet(classes, channels)


class VGG(nn.Module):
    """``features.0``, ``features.1``, ..., ``avgpool``, ``flatten``, ``classifier``."""

    def __init__(self, plan: Sequence[int | str], channels: int, batch_norm: bool, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in plan:
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.flatten = nn.Flatten()
        self.classifier: nn.Module = nn.Identity()
        _kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, classes] of pixels [B, C, H, W]."""
        logits: Tensor = self.classifier(self.flatten(self.avgpool(self.features(x))))
        return logits


Head = Literal["cifar", "imagenet"]
Stem = Literal["cifar", "imagenet"]


def _vgg(
    depth: int, classes: int, channels: int, batch_norm: bool, head: Head, pixels: int | None, seed: int
) -> nn.Module:
    _known("head", head)
    side = 1 if head == "cifar" else (pixels or 224) // 32
    if side < 1:
        raise GraphError("a VGG halves its input five times", got=f"{pixels} pixels", expected="at least 32")
    with _seeded(seed):
        network = VGG(_PLANS[depth], channels, batch_norm, side)
        network.classifier = nn.Linear(512, classes)
        if head == "imagenet":
            network.classifier = nn.Sequential(
                nn.Linear(512 * side**2, 4096), nn.ReLU(), nn.Dropout(),
                nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
                nn.Linear(4096, classes),
            )  # fmt: skip
    return network


def vgg11(
    classes: int = 10,
    channels: int = 3,
    *,
    batch_norm: bool = False,
    head: Head = "cifar",
    pixels: int | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return VGG configuration A (Simonyan & Zisserman 2014); arguments as for :func:`vgg16`."""
    return _vgg(11, classes, channels, batch_norm, head, pixels, seed)


def vgg16(
    classes: int = 10,
    channels: int = 3,
    *,
    batch_norm: bool = False,
    head: Head = "cifar",
    pixels: int | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return VGG configuration D (Simonyan & Zisserman 2014).

    Args:
        classes: Number of classes.
        channels: Channels of the input.
        batch_norm: Whether BatchNorm follows each convolution.
        head: ``"cifar"``: one linear layer on 512 pooled features. ``"imagenet"``: 4096-4096-classes.
        pixels: Height and width of the input that the ImageNet head is made for: 224 unless given; 32
            gives 512-4096-4096-classes, at 1000 classes 336.167 M multiply-adds for a sample.
        seed: Seed of the initial weights.
    """
    return _vgg(16, classes, channels, batch_norm, head, pixels, seed)


class ResidualBlock(nn.Module):
    """A residual block: ``conv1`` ... ``relu2`` (, ``conv3``, ``bn3``), ``shortcut``, their sum, ``relu``."""

    def __init__(self, channels: int, width: int, stride: int, *, deep: bool) -> None:
        super().__init__()
        out = 4 * width if deep else width
        first = 1 if deep else stride
        kernel = 1 if deep else 3
        self.deep = deep
        self.conv1 = nn.Conv2d(channels, width, kernel, first, padding=kernel // 2, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(width), nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride if deep else 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        if deep:
            self.relu2 = nn.ReLU()
            self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out, H / stride, W / stride] of [B, channels, H, W]."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.deep:
            out = self.bn3(self.conv3(self.relu2(out)))
        activated: Tensor = self.relu(out + self.shortcut(x))
        return activated


class ResNet(nn.Module):
    """``conv1``, ``bn1``, ``relu``, ``maxpool``, ``layer1``..``layer4``, ``avgpool``, ``flatten``, ``fc``."""

    def __init__(self, blocks: Sequence[int], classes: int, channels: int, *, deep: bool, stem: Stem) -> None:
        super().__init__()
        _known("stem", stem)
        small = stem == "cifar"
        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(channels, 64, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(64), nn.ReLU()
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        inside, layers = 64, []
        for i, count in enumerate(blocks):
            layer = nn.Sequential()
            for j in range(count):
                width = 64 * 2**i
                layer.append(ResidualBlock(inside, width, 2 if i and not j else 1, deep=deep))
                inside = 4 * width if deep else width
            layers.append(layer)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(inside, classes)
        _kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, classes] of pixels [B, C, H, W]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def resnet18(classes: int = 10, *, channels: int = 3, stem: Stem = "cifar", seed: int = 0) -> nn.Module:
    """Return ResNet-18 (He et al. 2015); arguments as for :func:`resnet50`."""
    with _seeded(seed):
        return ResNet((2, 2, 2, 2), classes, channels, deep=False, stem=stem)


def resnet50(classes: int = 10, *, channels: int = 3, stem: Stem = "cifar", seed: int = 0) -> nn.Module:
    """Return ResNet-50 (He et al. 2015; stride in the 3x3 convolutions).

    Args:
        classes: Number of classes.
        channels: Channels of the input.
        stem: ``"cifar"``: 3x3 convolution. ``"imagenet"``: 7x7 convolution with stride 2, then max pooling.
        seed: Seed of the initial weights.
    """
    with _seeded(seed):
        return ResNet((3, 4, 6, 3), classes, channels, deep=True, stem=stem)


class EncoderBlock(nn.Module):
    """Pre-norm encoder block (Vaswani et al. 2017; norm first): [B, L, D] -> [B, L, D]."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.project, self.dropout1 = nn.Linear(width, width), nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(width)
        self.expand, self.gelu, self.contract = (
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, L, D] of [B, L, D]."""
        normed = self.norm1(x)
        query, key, value = (
            part(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        x = x + self.dropout1(self.project(mixed.transpose(1, 2).flatten(2)))
        fed: Tensor = x + self.dropout2(self.contract(self.gelu(self.expand(self.norm2(x)))))
        return fed


class Transformer(nn.Module):
    """``embed``, ``positions``, ``blocks.0``, ..., ``norm``, the mean over tokens, ``head``."""

    def __init__(
        self, vocab: int, classes: int, width: int, depth: int, heads: int, length: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, classes] of token ids [B, L], L at most ``length``."""
        x = self.dropout(self.embed(tokens) + self.positions[: tokens.shape[1]])
        logits: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return logits


def transformer(
    vocab: int = 1000,
    classes: int = 2,
    *,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    length: int = 64,
    dropout: float = 0.1,
    seed: int = 0,
) -> nn.Module:
    """Return a small transformer encoder that classifies sequences of token ids.

    Args:
        vocab: Number of different tokens.
        classes: Number of classes.
        width: Features of a token; a multiple of ``heads``.
        depth: Number of blocks.
        heads: Attention heads.
        length: The longest sequence.
        dropout: Chance to drop an attention weight or a feature in training.
        seed: Seed of the initial weights.
    """
    if width % heads:
        raise GraphError("the width of a transformer is a multiple of its heads", got=f"{width} and {heads}")
    with _seeded(seed):
        return Transformer(vocab, classes, width, depth, heads, length, dropout)


class UNet(nn.Module):
    """``down1``, ``pool1``, ..., ``middle``, ..., ``grow1``, ``up1``, ``head``; each down feeds its up."""

    def __init__(self, classes: int, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for i in range(1, depth + 1):
            self.add_module(f"down{i}", _double(channels, width))
            self.add_module(f"pool{i}", nn.MaxPool2d(2))
            channels, width = width, 2 * width
        self.middle = _double(channels, width)
        for i in range(depth, 0, -1):
            self.add_module(f"grow{i}", nn.ConvTranspose2d(width, width // 2, 2, stride=2))
            self.add_module(f"up{i}", _double(width, width // 2))
            width //= 2
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, classes, H, W] of pixels [B, C, H, W]; H and W are multiples of 2**depth."""
        skips = []
        for i in range(1, self.depth + 1):
            skips.append(self.get_submodule(f"down{i}")(x))
            x = self.get_submodule(f"pool{i}")(skips[-1])
        x = self.middle(x)
        for i in range(self.depth, 0, -1):
            grown = self.get_submodule(f"grow{i}")(x)
            x = self.get_submodule(f"up{i}")(torch.cat([skips[i - 1], grown], dim=1))
        logits: Tensor = self.head(x)
        return logits


def unet(classes: int = 2, channels: int = 1, *, width: int = 16, depth: int = 2, seed: int = 0) -> nn.Module:
    """Return a small U-Net that classifies pixels (Ronneberger et al. 2015; padded, BatchNorm).

    Args:
        classes: Number of classes.
        channels: Channels of the input.
        width: Channels after the first convolution, doubled with each step down.
        depth: Steps down; height and width of the input are multiples of ``2**depth``.
        seed: Seed of the initial weights.
    """
    with _seeded(seed):
        return UNet(classes, channels, width, depth)


def _double(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
    )  # fmt: skip


def _kaiming(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _known(what: str, word: str) -> None:
    if word not in ("cifar", "imagenet"):
        raise GraphError(f"unknown {what} {word!r}", todo=nearest(word, ("cifar", "imagenet")))
