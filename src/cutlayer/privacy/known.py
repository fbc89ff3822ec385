"""Every defence that can be chosen by its word."""

from __future__ import annotations

from .base import Defence

__all__ = ["DEFENCES"]

DEFENCES: tuple[type[Defence], ...] = ()
