"""Every defence that can be chosen by its word."""

from __future__ import annotations

from .base import Defence
from .disco import LearntPruning
from .dp_sgd import DPSGD
from .dropout import ActivationDropout
from .label_dp import LabelDP
from .marvell import Marvell
from .max_norm import IsotropicNoise, MaxNorm
from .noising import GaussianNoise, LaplaceNoise, NoiseOnly
from .nopeek import NoPeek
from .patches import ShuffledPatches
from .pruning import PrunedChannels
from .scrutinizer import Scrutinizer
from .shredder import LearntNoise
from .splitguard import SplitGuard

__all__ = ["DEFENCES"]

DEFENCES: tuple[type[Defence], ...] = (
    GaussianNoise,
    LaplaceNoise,
    NoiseOnly,
    LabelDP,
    NoPeek,
    DPSGD,
    IsotropicNoise,
    MaxNorm,
    Marvell,
    ActivationDropout,
    PrunedChannels,
    LearntPruning,
    ShuffledPatches,
    LearntNoise,
    SplitGuard,
    Scrutinizer,
)
