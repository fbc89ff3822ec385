"""What is chosen by a word: a frozen dataclass that is its settings, says them again, and refuses those that cannot be.

Defences are, and so are attacks.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, TypeGuard

from ..errors import StudyError

__all__ = ["Worded"]


@dataclass(frozen=True)
class Worded:
    """Base of what is chosen by a word; printed, it is the word that it is chosen by.

    Attributes:
        word: The word, ``nopeek`` in ``nopeek:weight=0.1``.
    """

    word: ClassVar[str] = ""

    def __str__(self) -> str:
        settings = ",".join(
            f"{field.name}={_short(getattr(self, field.name))}" for field in dataclasses.fields(self)
        )
        return f"{self.word}:{settings}" if settings else self.word

    def _check(self, name: str, right: bool, expected: str) -> None:
        """Refuse a setting that cannot be.

        Raises:
            StudyError: It is not right.
        """
        if not right:
            raise StudyError(
                f"{self.word}: {name} cannot be that", got=repr(getattr(self, name)), expected=expected
            )

    def _check_positive(self, *names: str) -> None:
        """Refuse what is no finite number above 0."""
        for name in names:
            value = getattr(self, name)
            self._check(name, _is_number(value) and value > 0, "a number above 0")

    def _check_not_negative(self, *names: str) -> None:
        """Refuse what is no finite number from 0 on."""
        for name in names:
            value = getattr(self, name)
            self._check(name, _is_number(value) and value >= 0, "a number, 0 or more")

    def _check_share(self, *names: str, below: float = 1) -> None:
        """Refuse what is no number between 0 and ``below``, or is one of them."""
        for name in names:
            value = getattr(self, name)
            self._check(name, _is_number(value) and 0 < value < below, f"above 0 and below {below:g}")

    def _check_whole(self, *names: str, least: int = 1) -> None:
        """Refuse what is no whole number from ``least`` on."""
        for name in names:
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            self._check(name, whole and value >= least, f"a whole number, at least {least}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
