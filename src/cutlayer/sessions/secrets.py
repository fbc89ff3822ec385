"""What only one party knows: the secret from which its noise follows, kept so that it is the same after a crash."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..errors import LogError

__all__ = ["own_secret"]

_NAME, _BYTES = "secret", 32


def own_secret(folder: Path) -> bytes:
    """Return the secret of the party whose part is in ``folder``, drawn when it first asks.

    Raises:
        LogError: It cannot be read or written, or is too short.
    """
    path = folder / _NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            new = path.with_name(f"{_NAME}.{os.getpid()}")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_BYTES))
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        found = path.read_bytes()
    except OSError as error:
        raise LogError(f"the party's secret cannot be kept in {path}: {error.strerror}") from error
    if len(found) < _BYTES:
        raise LogError(
            f"the party's secret in {path} is damaged",
            got=f"{len(found)} bytes",
            expected=f"{_BYTES}",
            todo="delete it, and begin the study anew: noise would differ from what others have received",
        )
    return found
