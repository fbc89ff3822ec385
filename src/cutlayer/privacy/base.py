"""What a defence of a cut is: one small class whose every method does nothing until it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .facts import Facts
from .noise import Noise
from .worded import Worded

__all__ = ["Defence", "Moment", "Place", "acts"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """The cut at which a defence is to stand.

    Attributes:
        cut: The cut's name.
        shape: Of one row of the first tensor that crosses; None where it is not known.
        raw: Fields that the sender holds and that what crosses is made of.
        numbers: Those of them that are floating-point numbers; ids of words, say, are not.
        labels: Where the labels of the loss behind the cut are: ``"source"``, ``"target"``, or elsewhere (empty).
        sent_labels: Whether the source sends the labels along.
        gradient: Whether a gradient comes back.
    """

    cut: str
    shape: tuple[int, ...] | None
    raw: tuple[str, ...]
    labels: str
    sent_labels: bool
    gradient: bool
    numbers: tuple[str, ...] = ()


@dataclass(slots=True)
class Moment:
    """One batch, as a party that a defence works for has it.

    Attributes:
        party: The party.
        cut: The cut.
        step: The step.
        training: Whether the batch trains.
        fields: The party's own rows of the batch, by field.
        labels: The batch's labels [B], where this party has them.
        noise: Draws random numbers that no other party can draw.
        facts: Where what was done is noted.
        memory: What the defence keeps from batch to batch at this party and cut: tensors by name. It is part of the
            party's snapshots, so that it is as old as the weights wherever a run goes on.
    """

    party: str
    cut: str
    step: int
    training: bool
    fields: Mapping[str, Tensor]
    labels: Tensor | None
    noise: Noise
    facts: Facts
    memory: dict[str, Tensor]

    def recall(self, name: str) -> int:
        """Return the whole number that `keep` kept; 0 if none."""
        return int(self.memory[name]) if name in self.memory else 0

    def keep(self, name: str, number: int) -> None:
        """Keep a whole number in the memory."""
        self.memory[name] = torch.tensor(number)


@dataclass(frozen=True)
class Defence(Worded):
    """Base of all defences: what is done at a cut so that less is told, and what is said about it.

    A defence is its settings, a frozen dataclass. It overrides what it does; whatever it leaves alone costs nothing.
    It must be a function of what it is given, of ``moment.noise`` and of ``moment.memory``, so that a run that goes on
    after a crash has the same bits. It must not rely on where the tensors in its memory are: after a crash they are on
    the party's device.

    Attributes:
        word: How it is chosen in a study file, ``nopeek`` in ``nopeek:0.1``.
        protects: What it protects, in words for the disclosure statement.
        against: From whom.
        leaves: What it does not protect.
    """

    protects: ClassVar[str] = ""
    against: ClassVar[str] = ""
    leaves: ClassVar[str] = ""

    def misfit(self, place: Place) -> str | None:
        """Return in words why the defence cannot stand at ``place``; None if it can."""
        return None

    def outgoing(self, activation: Tensor, moment: Moment) -> Tensor:
        """Return what leaves in place of ``activation`` [B, ...], in training and in evaluation.

        Called with gradients on: what comes back over the cut goes through it backwards.
        """
        return activation

    def penalty(self, inputs: tuple[Tensor, ...], activation: Tensor, moment: Moment) -> Tensor | None:
        """Return a scalar that joins the sender's loss; computed and back-propagated at the sender alone.

        Args:
            inputs: The raw fields that the activation is made of, [B, ...] each.
            activation: What leaves [B, ...], before `outgoing`, with its graph.
            moment: The batch.
        """
        return None

    def returning(self, gradient: Tensor, moment: Moment) -> Tensor:
        """Return what goes back in place of ``gradient`` [B, ...], at the party that sends it."""
        return gradient

    def incoming(self, gradient: Tensor, moment: Moment) -> Tensor | None:
        """Return what the sender of the activation goes on with in place of the gradient that came; None: nothing.

        Raises:
            AlarmError: What came is not what an honest party sends.
        """
        return gradient

    def labelling(self, labels: Tensor, moment: Moment) -> Tensor:
        """Return the labels [B] that the source sends along in place of ``labels``."""
        return labels

    def relabelled(self, labels: Tensor, noise: Noise) -> Tensor:
        """Return the training labels [N] with which their holder trains in place of its own, once and for all."""
        return labels

    def statement(self) -> str:
        """Return what it does, what it protects, from whom and what it leaves open, in a few sentences."""
        return f"{self}: protects {self.protects} from {self.against}. It does not protect {self.leaves}."


def acts(defence: Defence, method: str) -> bool:
    """Return whether ``defence`` does anything in ``method``."""
    return getattr(type(defence), method) is not getattr(Defence, method)
