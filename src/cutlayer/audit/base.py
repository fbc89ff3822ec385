"""What an attack is: it gets what its adversary saw and knows, never the truth, and says what it makes of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import StudyError
from ..privacy.worded import Worded
from .transcript import Transcript

__all__ = ["Attack", "Guess", "Knowledge", "OnProgress"]

OnProgress = Callable[[float], None] | None
"""Called now and then with how much of an attack is done, from 0 to 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Knowledge:
    """What an adversary knows apart from what it saw in the run; nothing here is ever what it is asked to guess.

    Attributes:
        shape: Of one row of the input that it wants back, e.g. (1, 28, 28).
        low: The least value that an input can have; minus infinity where there is none, as in a standardized table.
        high: The greatest; infinity where there is none.
        classes: How many classes there are; 0 if labels are no classes, or it does not know.
        rarer_share: The share of the rarer of two classes; None if it does not know.
        architecture: The sender's segment with random weights, or with the initial ones, which all parties of a study
            know; None if it does not know it.
        client: The sender's segment with its trained weights, as the white box or to be asked; None if it has not got
            it. This and the others are called with one tensor and return one.
        behind: The segment that the sent goes to, up to what is compared with labels, with random weights, or with the
            initial ones; None if it does not know it.
        own: Its own trained segment, from what it receives to what is compared with labels; None if it has none.
        public_x: Rows that are like the sender's but none of them [M, ...].
        public_y: Their labels [M].
        public_attribute: A private attribute of theirs [M], classes.
        leaked_x: Rows of the sender that leaked [K, ...].
        leaked_z: The activations that it saw of them [K, ...].
        leaked_attribute: A private attribute of theirs [K], classes.
        hints: Places, among the rows it saw in training, of rows whose label it knows [H], int64.
        hint_labels: Their labels [H].
        candidates_x: Rows of which it asks whether they were trained on [C, ...].
        candidates_y: Their labels [C].
    """

    shape: tuple[int, ...]
    low: float = -math.inf
    high: float = math.inf
    classes: int = 0
    rarer_share: float | None = None
    architecture: nn.Module | None = None
    client: nn.Module | None = None
    behind: nn.Module | None = None
    own: nn.Module | None = None
    public_x: Tensor | None = None
    public_y: Tensor | None = None
    public_attribute: Tensor | None = None
    leaked_x: Tensor | None = None
    leaked_z: Tensor | None = None
    leaked_attribute: Tensor | None = None
    hints: Tensor | None = None
    hint_labels: Tensor | None = None
    candidates_x: Tensor | None = None
    candidates_y: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise StudyError(
                "the range of inputs is empty", got=f"{self.low} to {self.high}", expected="low < high"
            )
        for first, second in (
            ("public_x", "public_y"), ("public_x", "public_attribute"), ("leaked_x", "leaked_z"),
            ("leaked_z", "leaked_attribute"),
            ("hints", "hint_labels"), ("candidates_x", "candidates_y"),
        ):  # fmt: skip
            one, other = getattr(self, first), getattr(self, second)
            if one is not None and other is not None and len(one) != len(other):
                raise StudyError(
                    f"{first} and {second} are of different rows",
                    got=f"{len(one)} and {len(other)} rows",
                    expected="a row of one for each of the other",
                )

    @property
    def bounded(self) -> bool:
        """Whether inputs have a range."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def tensor(self, name: str) -> Tensor:
        """Return what it knows by this name, on the CPU.

        Raises:
            StudyError: It does not know it.
        """
        found = getattr(self, name)
        if not isinstance(found, Tensor):
            raise StudyError(f"the adversary does not know {name}", todo=f"give Knowledge({name}=…)")
        return found.detach().cpu()

    def module(self, name: str) -> nn.Module:
        """Return a copy of the segment that it knows by this name, on the CPU.

        Raises:
            StudyError: It does not know it.
        """
        found = getattr(self, name)
        if not isinstance(found, nn.Module):
            raise StudyError(f"the adversary does not know {name}", todo=f"give Knowledge({name}=…)")
        return copy.deepcopy(found).cpu()

    def has(self, *names: str) -> bool:
        """Return whether it knows all of these."""
        return all(getattr(self, name) is not None for name in names)

    def blind_input(self) -> Tensor:
        """Return the input that somebody expects who saw nothing [*shape]: the mean of known rows, else the middle."""
        for known in (self.public_x, self.leaked_x):
            if known is not None and len(known):
                return known.detach().cpu().float().mean(0)
        return torch.full(self.shape, (self.low + self.high) / 2 if self.bounded else 0.0)

    def blind_label(self) -> int:
        """Return the label that somebody expects who saw nothing: the commonest among known rows, else 0."""
        for known in (self.hint_labels, self.public_y):
            if known is not None and len(known):
                return int(known.reshape(-1).mode().values)
        return 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Guess:
    """What an attack believes, about rows of the `Attack.sees` that it was shown, or about candidates.

    Attributes:
        at: Which of them, places in their order [N], int64.
        inputs: The inputs that they were made of [N, ...].
        labels: Their labels, or another attribute of theirs [N], int64.
        scores: The more, the likelier: of the rarer class, or a member [N].
        note: How it went, in words: what it chose, where it stopped.
    """

    at: Tensor
    inputs: Tensor | None = None
    labels: Tensor | None = None
    scores: Tensor | None = None
    note: str = ""


@dataclass(frozen=True)
class Attack(Worded):
    """Base of all attacks: who does it, what it needs, and what comes out.

    An attack is its settings, a frozen dataclass. It must follow from what it is given and the seed.

    Attributes:
        word: How it is chosen, ``inversion`` in ``inversion:steps=500``.
        after: What it is after: ``"inputs"``, ``"labels"``, ``"members"`` or ``"attribute"``.
        sees: Rows of which kind it is about: ``"activation"``, ``"gradient"``, or ``"candidate"``.
        adversary: Who may do it, in words.
        needs: What the adversary must have seen and must know, in words.
        source: The paper.
    """

    after: ClassVar[str] = ""
    sees: ClassVar[str] = "activation"
    adversary: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    source: ClassVar[str] = ""

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return in words why the attack cannot be tried on that; None if it can."""
        return None

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return what the adversary believes.

        Args:
            seen: What it saw, of one cut.
            known: What else it knows.
            seed: From which all its random numbers follow.
            on_progress: Called with how much is done.

        Raises:
            StudyError: It cannot be tried on that; see `misfit`.
        """
        raise StudyError(f"{type(self).__name__} does not say how it guesses", todo="override guess")

    def blind(self, guess: Guess, known: Knowledge, seed: int) -> Guess:
        """Return what somebody would say of the same rows who knows as much but saw nothing."""
        raise StudyError(f"{type(self).__name__} does not say what a blind guess is", todo="override blind")

    def _refuse(self, seen: Transcript, known: Knowledge) -> None:
        """Refuse what the attack cannot be tried on.

        Raises:
            StudyError: It cannot.
        """
        if why := self.misfit(seen, known):
            raise StudyError(
                f"attack {self.word!r} cannot be tried: {why}",
                party=seen.party,
                expected=self.needs or None,
            )
