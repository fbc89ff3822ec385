"""DISCO: a filter learns which channels of each row give a named attribute away, and those do not leave.

Singh, Chopra, Garza, Zhang, Vepakomma, Sharma and Raskar 2021, "DISCO: dynamic and invariant sensitive channel
obfuscation for deep neural networks" (CVPR). The filter plays against a proxy of the adversary, both at the sender
alone: the proxy learns the attribute from what leaves, the filter to keep the task's loss low and the proxy's high::

    filter:  minimise (1 - alpha) task loss + alpha doubt         proxy:  minimise its loss

Of the task's loss the sender knows the gradient that comes back for what left, which is all that it takes. The doubt is
the cross entropy of the proxy's answer and no preference at all; the paper has minus the proxy's loss, which hardly
moves where the proxy is sure and right. The choice of channels is passed straight through: gradients go by the scores
that channels are chosen by. The filter here is one layer on the channels' strengths; the proxy has one hidden layer,
and sees which channels were left out, which may tell as much as what is in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import StudyError, nearest
from .base import Defence, Moment, Place

__all__ = ["LearntPruning"]

_FILTER, _PROXY = ("filter", "filter bias"), ("proxy 1", "proxy bias 1", "proxy 2", "proxy bias 2")
_HIDDEN = 64
_POOLED = 16
"""Numbers to which a channel's are averaged for the proxy."""
_PROXY_STEPS = 3
"""Of the proxy to one of the filter: it must not fall behind."""
_MOST_CLASSES = 100


@dataclass(frozen=True, kw_only=True)
class LearntPruning(Defence):
    """Send 0 in place of a share of a row's channels, those that a filter learnt to tell an attribute.

    Channels are the first dimension of a row, [C, ...].

    Attributes:
        attribute: A field of the sender's with the attribute, whole numbers from 0, one a row; ``"x:3"`` is whether
            column 3 of the field x is above 0. It need not be an input.
        share: Of the channels, above 0 and below 1; at least one is pruned, and one is sent.
        alpha: Weight of hiding the attribute, beside ``1 - alpha`` of the task.
        classes: How many values the attribute has.
        rate: Adam's step size of filter and proxy.
    """

    word: ClassVar[str] = "disco"
    protects: ClassVar[str] = "one named attribute of raw rows"
    against: ClassVar[str] = "whoever receives the activations"
    leaves: ClassVar[str] = (
        "other attributes, nor rows, nor this one from a better adversary than the proxy that the filter learnt "
        "against, or as far as the task needs it; it gives no guarantee, so attack what leaves and see"
    )
    attribute: str
    share: float = 0.5
    alpha: float = 0.5
    classes: int = 2
    rate: float = 3e-2

    def __post_init__(self) -> None:
        self._check("attribute", isinstance(self.attribute, str) and bool(self.attribute), "a field's name")
        self._check_share("share", "alpha")
        self._check_whole("classes", least=2)
        self._check("classes", self.classes <= _MOST_CLASSES, f"2 to {_MOST_CLASSES}")
        self._check_positive("rate")

    def misfit(self, place: Place) -> str | None:
        """Return why not: there must be two channels, and a gradient to learn from."""
        if place.shape is not None and (not place.shape or place.shape[0] < 2):
            return f"a row of shape {list(place.shape)} has no two channels"
        return None if place.gradient else "no gradient comes back that the filter could learn from"

    def outgoing(self, activation: Tensor, moment: Moment) -> Tensor:
        """Return the activation [B, C, ...] without the channels that the filter chooses."""
        rows = activation.detach()
        if rows.dim() < 2 or rows.shape[1] < 2:
            return activation
        self._begin(rows, moment)
        with torch.no_grad():
            kept = self._kept(rows, _those(moment, _FILTER))
            squares = rows.square()
            whole = float(squares.sum())
            if whole > 0:
                moment.facts.add("share of squares sent", float((squares * kept).sum()) / whole)
        sent = activation * kept
        if moment.training and sent.requires_grad:
            hidden = self._attribute(moment).to(rows.device)
            sent.register_hook(partial(self._learn, rows, hidden, moment))  # type: ignore[no-untyped-call]
        return sent

    def _begin(self, rows: Tensor, moment: Moment) -> None:
        """Draw the weights of filter and proxy when they are first asked for."""
        if _FILTER[0] in moment.memory:
            return
        channels, numbers = rows.shape[1], rows[0, 0].numel()
        pooled = channels * (min(_POOLED, numbers) + 1)
        shapes = ((channels, channels), (channels,), (pooled, _HIDDEN), (_HIDDEN,), (_HIDDEN, self.classes))
        for name, shape in zip((*_FILTER, *_PROXY), (*shapes, (self.classes,)), strict=True):
            empty = rows.new_zeros(shape)
            drawn = moment.noise.normal(empty) / shape[0] ** 0.5 if len(shape) == 2 else empty
            moment.memory[name] = drawn

    def _kept(self, rows: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Return 1 for channels that leave and 0 for others [B, C, 1, ...]; its gradient is that of the scores."""
        strength = rows.square().flatten(2).mean(2) if rows.dim() > 2 else rows
        channels = rows.shape[1]
        scores = F.layer_norm(strength, (channels,)) @ weights[0] + weights[1]
        count = min(max(round(self.share * channels), 1), channels - 1)
        found = scores.topk(count, dim=1)
        hard = torch.ones_like(scores).scatter_(1, found.indices, 0.0)
        soft = torch.sigmoid(found.values[:, -1:].detach() - scores)
        kept = hard + soft - soft.detach()
        return kept.reshape(*kept.shape, *[1] * (rows.dim() - 2))

    def _learn(self, rows: Tensor, hidden: Tensor, moment: Moment, gradient: Tensor) -> None:
        """Let proxy and filter learn from one batch.

        Args:
            rows: What would have left [B, C, ...].
            hidden: The attribute [B].
            moment: The batch.
            gradient: Of the task's loss, for what left [B, C, ...].
        """
        with torch.enable_grad():
            proxy = _those(moment, _PROXY)
            with torch.no_grad():
                seen = _seen(rows, self._kept(rows, _those(moment, _FILTER)))
            right = (_proxied(seen, proxy).argmax(1) == hidden).double().mean()
            moment.facts.add("attribute found by the proxy", float(right), len(rows))
            for _ in range(_PROXY_STEPS):
                proxy = _those(moment, _PROXY)
                self._step(moment, _PROXY, proxy, F.cross_entropy(_proxied(seen, proxy), hidden))
            choice, proxy = _those(moment, _FILTER), _those(moment, _PROXY)
            kept = self._kept(rows, choice)
            doubt = -_proxied(_seen(rows, kept), proxy).log_softmax(1).mean()
            task = (rows * kept * gradient.detach()).sum()
            self._step(moment, _FILTER, choice, (1 - self.alpha) * task + self.alpha * doubt)

    def _step(self, moment: Moment, names: Sequence[str], weights: Sequence[Tensor], loss: Tensor) -> None:
        """Do one step of Adam (Kingma and Ba 2015) on weights that are kept in memory."""
        steps = moment.recall(f"{names[0]} steps") + 1
        moment.keep(f"{names[0]} steps", steps)
        for name, weight, slope in zip(names, weights, torch.autograd.grad(loss, weights), strict=True):
            first, second = (moment.memory.get(f"{name} {n}", torch.zeros_like(slope)) for n in ("m", "v"))
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope.square()
            moment.memory[f"{name} m"], moment.memory[f"{name} v"] = first, second
            size = (second / (1 - 0.999**steps)).sqrt() + 1e-8
            moment.memory[name] = weight.detach() - self.rate * (first / (1 - 0.9**steps)) / size

    def _attribute(self, moment: Moment) -> Tensor:
        """Return the attribute of the batch's rows [B], int64.

        Raises:
            StudyError: The sender holds no such field, or it has other values.
        """
        name, colon, column = self.attribute.partition(":")
        values = moment.fields.get(name)
        if values is None or (colon and not _has_column(values, column)):
            raise StudyError(
                f"{self.word}: the sender has no attribute {self.attribute!r}", party=moment.party, cut=moment.cut,
                expected="a field of its own, or a column of one such as 'x:3'",
                todo=None if values is not None else nearest(name, _names(moment.fields)),
            )  # fmt: skip
        if colon:
            return (values[:, int(column)] > 0).long()
        flat = values.reshape(len(values), -1)
        classes = flat[:, 0].long()
        if flat.shape[1] != 1 or not bool((classes == flat[:, 0]).all()) or _outside(classes, self.classes):
            raise StudyError(
                f"{self.word}: the field {name!r} is no such attribute", party=moment.party, cut=moment.cut,
                got=f"{values.dtype} {list(values.shape)} from {flat.min():g} to {flat.max():g}",
                expected=f"whole numbers from 0 to {self.classes - 1}, one a row",
                todo="say how many values there are with classes=",
            )  # fmt: skip
        return classes


def _those(moment: Moment, names: Sequence[str]) -> list[Tensor]:
    """Return weights out of the memory, to learn on."""
    return [moment.memory[name].detach().requires_grad_() for name in names]


def _seen(rows: Tensor, kept: Tensor) -> Tensor:
    """Return what the proxy sees of rows [B, C, ...]: few numbers of each channel, and which ones are kept [B, D]."""
    channels = (rows * kept).flatten(2) if rows.dim() > 2 else (rows * kept)[:, :, None]
    pooled = F.adaptive_avg_pool1d(channels, min(_POOLED, channels.shape[2]))
    return torch.cat([pooled.flatten(1), kept.reshape(len(rows), -1)], dim=1)


def _proxied(seen: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return the proxy's scores of the attribute [B, classes] from what it sees [B, D]."""
    first, first_bias, second, second_bias = weights
    scaled = F.layer_norm(seen, (seen.shape[1],))
    return F.relu(scaled @ first + first_bias) @ second + second_bias


def _has_column(values: Tensor, column: str) -> bool:
    return values.dim() == 2 and column.isdecimal() and int(column) < values.shape[1]


def _outside(classes: Tensor, count: int) -> bool:
    return int(classes.min()) < 0 or int(classes.max()) >= count


def _names(fields: Mapping[str, Tensor]) -> list[str]:
    return [name for name in fields if " " not in name]
