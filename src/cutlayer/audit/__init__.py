"""Attacks on what parties of a run really saw, and scores of what they get."""

from __future__ import annotations

from .base import Attack, Guess, Knowledge
from .transcript import Sight, Transcript, together, watch
from .truth import Truth

__all__ = ["Attack", "Guess", "Knowledge", "Sight", "Transcript", "Truth", "together", "watch"]
