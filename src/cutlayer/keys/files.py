"""Files of keys and certificates: private where they must be, and either as before or complete, never torn."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import IdentityError

__all__ = [
    "AUTHORITY",
    "CERTIFICATE",
    "INDEX",
    "KEY",
    "KNOWN",
    "NEXT_KEY",
    "REQUEST",
    "REVOKED",
    "locked",
    "make_folder",
    "new_folder",
    "read_file",
    "read_key_file",
    "sync_folder",
    "write_file",
]

KEY = "key.pem"
NEXT_KEY = "key.next.pem"
CERTIFICATE = "certificate.pem"
AUTHORITY = "authority.pem"
REVOKED = "revoked.pem"
REQUEST = "request.pem"
INDEX = "issued.jsonl"
KNOWN = "known"

_LARGEST = 16 * 2**20


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, unless it exists."""
    with _explained(f"cannot make the folder {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            folder.mkdir(mode=0o700)


@contextlib.contextmanager
def new_folder(folder: Path, todo: str) -> Iterator[Path]:
    """Give a folder to fill, which takes the place of ``folder`` when all is written, or leaves no trace.

    Raises:
        IdentityError: If there is something in ``folder`` already; ``todo`` is the advice.
    """
    full = IdentityError(f"there is something in {folder} already, and nothing is overwritten", todo=todo)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise full
    filling = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    make_folder(filling)
    try:
        yield filling
        with _explained(f"cannot make the folder {folder}"):
            sync_folder(filling)
            filling.replace(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(filling, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time pass, where the system has locks that end with their process."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with _explained(f"cannot open {path}"):
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb")  # noqa: SIM115
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write ``content`` so that after a crash the file is as before or complete.

    Args:
        path: Where to.
        content: The bytes.
        private: Whether only its owner may read it.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with _explained(f"cannot write {path}"):
        try:
            with open(
                os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644), "wb"
            ) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make sure that renames in ``folder`` outlive a power cut, where the system has a way to."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_file(path: Path, what: str, *, todo: str | None = None) -> bytes:
    """Return the content of ``path``.

    Args:
        path: Where it lies.
        what: What it should be, for the message.
        todo: What to do if there is no such file.

    Raises:
        IdentityError: If it is missing, cannot be read, or is far too large for what it should be.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise IdentityError(f"{what} is missing: there is no {path}", todo=todo) from error
    except OSError as error:
        raise IdentityError(f"cannot read {what}, {path}: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise IdentityError(f"{path} is no {what}", got=f"more than {_LARGEST:,} bytes")
    return content


def read_key_file(path: Path, what: str, *, todo: str | None = None) -> bytes:
    """Return the content of a private key's file, which nobody but its owner may be able to read."""
    content = read_file(path, what, todo=todo)
    mode = path.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o077:
        raise IdentityError(
            f"{what}, {path}, can be read or written by others on this machine",
            got=f"mode {mode:o}",
            expected="mode 600",
            todo=f"chmod 600 {path}; if others may have read it, have the certificate revoked and make a new key",
        )
    return content


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IdentityError(f"{what}: {error.strerror or error}") from error
