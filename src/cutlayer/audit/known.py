"""Every attack of a curious party that can be chosen by its word."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import StudyError, nearest
from .attributes import AttributeInference
from .base import Attack
from .decoding import Decoding, Shadow
from .inversion import Inversion
from .labels import ActivationClusters, Completion, CosineLabels, GradientClusters, NormLabels
from .membership import Membership
from .pcat import Pcat
from .unsplit import UnSplit
from .unsplit_labels import UnSplitLabels

__all__ = ["ATTACKS", "attacks_of"]

ATTACKS: tuple[type[Attack], ...] = (
    Inversion, Decoding, Shadow, UnSplit, Pcat, NormLabels, CosineLabels, GradientClusters, ActivationClusters,
    UnSplitLabels, Completion, Membership, AttributeInference,
)  # fmt: skip
"""In the order in which an audit tries them."""


def attacks_of(words: Sequence[str]) -> list[Attack]:
    """Return attacks with the settings that they have unless told otherwise; all if no word is given.

    Raises:
        StudyError: There is no such attack.
    """
    known = {attack.word: attack for attack in ATTACKS}
    for word in words:
        if word not in known:
            raise StudyError(f"no attack is named {word!r}", todo=nearest(word, list(known)))
    return [known[word]() for word in words or known]
