"""WHAT PROTECTS a cut: defences, each one word, and what is known of what they are worth."""

from __future__ import annotations

from .accounting import Guarantee, guarantees
from .base import Defence, Moment, Place
from .disco import LearntPruning
from .dp_sgd import DPSGD
from .dropout import ActivationDropout
from .facts import Facts
from .known import DEFENCES
from .label_dp import LabelDP
from .marvell import Marvell
from .max_norm import IsotropicNoise, MaxNorm
from .noise import Noise
from .noising import GaussianNoise, LaplaceNoise, NoiseOnly
from .nopeek import NoPeek
from .patches import ShuffledPatches
from .pruning import PrunedChannels
from .scrutinizer import Scrutinizer
from .shredder import LearntNoise
from .splitguard import SplitGuard
from .words import defence_of, defences_of, known_defences

__all__ = [
    "DEFENCES", "DPSGD", "ActivationDropout", "Defence", "Facts", "GaussianNoise", "Guarantee", "IsotropicNoise",
    "LabelDP", "LaplaceNoise", "LearntNoise", "LearntPruning", "Marvell", "MaxNorm", "Moment", "NoPeek", "Noise",
    "NoiseOnly", "Place", "PrunedChannels", "Scrutinizer", "ShuffledPatches", "SplitGuard", "defence_of",
    "defences_of", "guarantees", "known_defences",
]  # fmt: skip
