"""SplitGuard: now and then a client sends wrong labels, and an honest server's gradients show that it noticed.

Erdogan, Küpçü and Çiçek 2022, "SplitGuard: detecting and mitigating training-hijacking attacks in split learning"
(WPES, section 4; arXiv 2108.09052). A server that trains the task punishes what it rewarded before when labels are
wrong: the gradients of such a *fake* batch point elsewhere and are longer. A server that steers the client into a
feature space of its own does not look at the labels. With F the gradients of fake batches and R1, R2 those of two
halves of the others::

    S = (angle(F, R) gap(F, R) - angle(R1, R2) gap(R1, R2)) / (gap(F, R) + gap(R1, R2)),    score = sigmoid(5 S)^2

where gap is the difference of lengths: near 1 for an honest server, about a quarter for one that does not care.

What differs from the paper:

- In a fake batch a third of the rows has wrong labels, not all: those are F, and the others, with right labels, are R1
  and R2. A batch whose labels are all wrong pushes the server's part far off the task, and where it learns with
  momentum, so far that it hardly comes back. The client learns nothing from the rows of F, and from the others as ever.
- The gradients are those at the cut, not of the client's first layer, which a monitor at a cut does not see. Each is
  the mean over the rows of a class, all classes beside each other: the mean over a batch of many would cancel.
- What is said of F and R is the mean of F and R1, F and R2. As F, R1 and R2 are of equally many rows of the same
  batches, S is about 0 where labels make no difference. The last batches count most, by an exponential mean: a server
  may turn dishonest late. The threshold was chosen for these scores; the paper's, for its own, is 0.9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import AlarmError, StudyError
from .base import Defence, Moment, Place
from .noise import Noise

__all__ = ["SplitGuard", "guard_score"]

_MOST_CLASSES = 100
_BATCHES = 3
"""Fake batches before there is a score."""
_FORGETS = 0.9
_NAMES = ("F", "R1", "R2")
_PARTS = len(_NAMES)
"""Of a fake batch."""
_FAKE = "fake batch {}"
"""What a client remembers of the fake batch of a step until its gradient comes: the order of its rows."""


@dataclass(frozen=True)
class SplitGuard(Defence):
    """Sends batches with wrong labels and stops when the gradients do not care.

    Attributes:
        share: Of the training batches, how many have wrong labels, in a third of their rows; each drawn by chance.
        after: How many batches go before, for the server to have learnt something.
        below: Alarm, if the mean of the last scores is below.
        scores: Of so many scores the mean is taken, the paper's policy avg-k; 1 is its policy "fast".
        classes: How many classes there are, where a client may not have all; those that it has seen if 0.

    Raises:
        StudyError: A setting that cannot be.
    """

    share: float = 0.1
    after: int = 20
    below: float = 0.8
    scores: int = 5
    classes: int = 0

    word: ClassVar[str] = "splitguard"
    protects: ClassVar[str] = "rows, by stopping when gradients do not depend on labels"
    against: ClassVar[str] = (
        "a server that hijacks the training, by sending gradients that are not of the task"
    )
    leaves: ClassVar[str] = (
        "what left before the alarm, nor anything from a server that is honest but curious, or that tells batches "
        "with wrong labels from others and answers those as an honest one does"
    )

    def __post_init__(self) -> None:
        self._check_share("share", below=0.5)
        self._check_share("below")
        self._check_whole("after", "classes", least=0)
        self._check_whole("scores")
        fits = self.classes == 0 or 2 <= self.classes <= _MOST_CLASSES
        self._check("classes", fits, f"0, or 2 to {_MOST_CLASSES}")

    def misfit(self, place: Place) -> str | None:
        """Only who sends labels along can send wrong ones, and only a gradient can show whether it was noticed."""
        if not place.gradient:
            return "no gradient comes back"
        return None if place.sent_labels else "no labels are sent along with the activations"

    def labelling(self, labels: Tensor, moment: Moment) -> Tensor:
        """Return labels [B] of which a third is wrong in a fake batch, each of another class than the right one."""
        if not moment.training:
            return labels
        right = _classes(labels, moment)
        known = list(range(self.classes)) if self.classes else _saw(right, moment)
        batches = moment.recall("batches") + 1
        moment.keep("batches", batches)
        wrong_rows = len(labels) // _PARTS
        due = self._falls_due(moment.noise) and batches > self.after
        if not (due and wrong_rows and len(known) > 1):
            return labels
        order = moment.noise.permutation(len(labels))
        moment.memory[_FAKE.format(moment.step)] = order
        moment.facts.count("rows with wrong labels", wrong_rows)
        chosen = order[:wrong_rows].to(right.device)
        right[chosen] = _wrong(right[chosen], known, moment.noise).to(right.device)
        return right.to(labels.dtype).reshape(labels.shape)

    def incoming(self, gradient: Tensor, moment: Moment) -> Tensor:
        """Look at a gradient [B, ...]; rows with wrong labels go no further.

        Raises:
            AlarmError: The gradients do not depend on the labels.
        """
        if moment.labels is None or not moment.training:
            return gradient
        order = moment.memory.pop(_FAKE.format(moment.step), None)
        if order is None:
            return gradient
        size, classes = len(order) // _PARTS, _classes(moment.labels, moment)
        for place, name in enumerate(_NAMES):
            rows = order[place * size : (place + 1) * size]
            _Mean(name, moment).add(gradient[rows.to(gradient.device)], classes[rows.to(classes.device)])
        self._judge(moment)
        return gradient.index_fill(0, order[:size].to(gradient.device), 0)

    def _falls_due(self, noise: Noise) -> bool:
        return float(noise.doubles(1)[0]) < self.share

    def _judge(self, moment: Moment) -> None:
        rounds = moment.recall("rounds") + 1
        moment.keep("rounds", rounds)
        if rounds < _BATCHES:
            return
        means = [_Mean(name, moment) for name in _NAMES]
        classes = max(map(len, means))
        score = guard_score(*(mean.rows(classes) for mean in means))
        moment.facts.add("score", score)
        before = moment.memory["scores"].tolist() if "scores" in moment.memory else []
        last = [*before, score][-self.scores :]
        moment.memory["scores"] = torch.tensor(last, dtype=torch.float64)
        if len(last) == self.scores and sum(last) / len(last) < self.below:
            raise AlarmError(
                "the gradients that come back do not depend on the labels that were sent: the server is not training "
                "the task",
                party=moment.party,
                cut=moment.cut,
                step=moment.step,
                got=f"a mean of the last {self.scores} SplitGuard scores of {sum(last) / len(last):.2f}",
                expected=f"at least {self.below:g}, near 1 from an honest server",
                todo="send nothing more, tell the other parties, and see docs/alarms.md",
            )


def guard_score(fake: Tensor, first: Tensor, second: Tensor) -> float:
    """Return the score, 0 to 1, of gradients of fake batches and of two halves of others, [C, D] each."""
    one, half, other = (gradient.double().flatten() for gradient in (fake, first, second))
    apart = (_gap(one, half) + _gap(one, other)) / 2
    turned = (_angle(one, half) * _gap(one, half) + _angle(one, other) * _gap(one, other)) / 2
    total = apart + _gap(half, other)
    found = (turned - _angle(half, other) * _gap(half, other)) / total if total > 0 else 0.0
    return 1 / (1 + math.exp(-5 * found)) ** 2


class _Mean:
    """Exponential mean of gradients by class, in a client's memory."""

    def __init__(self, name: str, moment: Moment) -> None:
        self._memory, self._sums, self._counts = moment.memory, f"{name} sums", f"{name} counts"

    def __len__(self) -> int:
        return len(self._memory[self._sums]) if self._sums in self._memory else 0

    def add(self, gradient: Tensor, classes: Tensor) -> None:
        """Add the rows of ``gradient`` [B, ...] of these ``classes`` [B]."""
        rows = gradient.detach().flatten(1).float()
        classes = classes.to(rows.device)
        if not len(self):
            self._memory[self._sums] = rows.new_zeros(1, rows.shape[1])
            self._memory[self._counts] = rows.new_zeros(1)
        sums, counts = self._grown(max(len(self), int(classes.max()) + 1))
        self._memory[self._sums] = (sums * _FORGETS).index_add_(0, classes, rows)
        self._memory[self._counts] = (counts * _FORGETS).index_add_(0, classes, torch.ones_like(rows[:, 0]))

    def rows(self, classes: int) -> Tensor:
        """Return the mean of each of so many classes [C, D]; 0 of a class that never came."""
        sums, counts = self._grown(classes)
        return sums / counts.clamp_min(torch.finfo(counts.dtype).tiny)[:, None]

    def _grown(self, classes: int) -> tuple[Tensor, Tensor]:
        """Return sums [C, D] and counts [C] of so many classes."""
        sums, counts = self._memory[self._sums], self._memory[self._counts]
        more = classes - len(sums)
        return functional.pad(sums, (0, 0, 0, more)), functional.pad(counts, (0, more))


def _saw(classes: Tensor, moment: Moment) -> list[int]:
    """Add to the known classes and return them, in order."""
    before = moment.memory["known"].tolist() if "known" in moment.memory else []
    known = sorted({*before, *classes.tolist()})
    moment.memory["known"] = torch.tensor(known)
    return known


def _classes(labels: Tensor, moment: Moment) -> Tensor:
    """Return labels as classes [B], int64.

    Raises:
        StudyError: They are none.
    """
    flat = labels.detach().reshape(len(labels), -1)
    found = flat[:, 0].long().clone()
    if flat.shape[1] != 1 or not bool((found == flat[:, 0]).all()) or int(found.min()) < 0:
        raise StudyError(
            "SplitGuard needs labels that are classes", party=moment.party, cut=moment.cut, step=moment.step,
            got=f"{labels.dtype} {list(labels.shape)}", expected="whole numbers from 0, one a row",
            todo="use it in classification only",
        )  # fmt: skip
    if int(found.max()) >= _MOST_CLASSES:
        raise StudyError(
            "SplitGuard remembers gradients by class", party=moment.party, cut=moment.cut, step=moment.step,
            got=f"class {int(found.max())}", expected=f"at most {_MOST_CLASSES} classes",
        )  # fmt: skip
    return found


def _wrong(right: Tensor, known: list[int], noise: Noise) -> Tensor:
    """Return for each class [B] another one of those that are known."""
    sorted_known = torch.tensor(known)
    place = torch.searchsorted(sorted_known, right.cpu())
    return sorted_known[(place + 1 + noise.whole(len(known) - 1, len(right))) % len(known)]


def _gap(one: Tensor, other: Tensor) -> float:
    return abs(float(one.norm() - other.norm()))


def _angle(one: Tensor, other: Tensor) -> float:
    lengths = float(one.norm() * other.norm())
    return math.acos(max(-1.0, min(1.0, float(one @ other) / lengths))) if lengths > 0 else math.pi / 2
