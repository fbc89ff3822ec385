"""Membership inference: whether a row was trained on, from how well the trained network does on it.

Yeom et al. 2018, "Privacy risk in machine learning" (CSF; arXiv 1709.01604): a row is a member if its loss is at most
the mean training loss. No shadow models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Attack, Guess, Knowledge, OnProgress
from .learning import applied, frozen
from .transcript import Transcript

__all__ = ["Membership"]


@dataclass(frozen=True)
class Membership(Attack):
    """A threshold on the loss of candidates, or on how sure the network is where their labels are not known.

    Scores are minus that; labels are 1 for members.
    """

    word: ClassVar[str] = "membership"
    after: ClassVar[str] = "members"
    sees: ClassVar[str] = "candidate"
    adversary: ClassVar[str] = (
        "whoever has both trained halves, or the receiver's half and leave to ask the sender's"
    )
    needs: ClassVar[str] = "both trained segments, and candidate rows"
    source: ClassVar[str] = "Yeom et al. 2018"

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: a half is missing, or there are no candidates."""
        if not known.has("client", "own"):
            return "it has not both trained segments"
        return None if known.has("candidates_x") else "there is no row to ask about"

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return how likely each candidate is a member, and whether it is taken for one."""
        self._refuse(seen, known)
        own = frozen(known.module("own"))
        network = nn.Sequential(frozen(known.module("client")), own)
        outputs = applied(network, known.tensor("candidates_x"))
        labels = known.tensor("candidates_y") if known.has("candidates_y") else None
        losses = _losses(outputs, labels)
        trained = _training_losses(seen, own) if labels is not None else None
        threshold = losses.median() if trained is None else trained.mean()
        note = (
            "threshold: the median of candidates" if trained is None else "threshold: the mean training loss"
        )
        return Guess(
            at=torch.arange(len(losses)), labels=(losses <= threshold).long(), scores=-losses, note=note
        )

    def blind(self, guess: Guess, known: Knowledge, seed: int) -> Guess:
        """Return that all were trained on, and the same score for all."""
        alike = torch.zeros(len(guess.at))
        return Guess(at=guess.at, labels=alike.long() + 1, scores=alike, note="all were trained on")


def _losses(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """Return the loss of each row [N], the entropy of its prediction where no label is known.

    Outputs are scores of classes [N, C], or one number a row [N, 1]: of the second class where labels are 0 and 1,
    else a prediction, whose loss is its square.
    """
    if outputs.dim() == 2 and outputs.shape[1] > 1:
        logs = outputs.log_softmax(1)
        if labels is None:
            return -(logs.exp() * logs).sum(1)
        return -logs.gather(1, labels.reshape(-1, 1).long())[:, 0]
    single = outputs.reshape(len(outputs), -1)[:, 0]
    if labels is None:
        return F.binary_cross_entropy_with_logits(single, single.sigmoid(), reduction="none")
    wanted = labels.reshape(-1).to(single.dtype)
    if bool(((wanted == 0) | (wanted == 1)).all()):
        return F.binary_cross_entropy_with_logits(single, wanted, reduction="none")
    return (single - wanted).square()


def _training_losses(seen: Transcript, own: nn.Module) -> Tensor | None:
    """Return the losses of the rows that the adversary saw in training with their labels; None if it saw none."""
    for kind in ("label", "own"):
        activations, labels = seen.pairs("activation", kind)
        if activations:
            z, y = (torch.cat([s.rows for s in sights]) for sights in (activations, labels))
            return _losses(applied(own, z), y)
    return None
