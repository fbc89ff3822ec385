"""WHAT PROTECTS a cut: defences, each one word, and what is known of what they are worth."""

from __future__ import annotations

from .base import Defence, Moment, Place
from .facts import Facts
from .known import DEFENCES
from .noise import Noise
from .words import defence_of, defences_of, known_defences

__all__ = [
    "DEFENCES",
    "Defence",
    "Facts",
    "Moment",
    "Noise",
    "Place",
    "defence_of",
    "defences_of",
    "known_defences",
]
