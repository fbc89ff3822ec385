"""Which Python files make up the model code: those that a study names, and those beside them that they import.

Import statements are followed as they are written, in functions too, to files of the folder that holds the
importing file (where Python looks first while the study is loaded). Not followed: installed packages, and
modules imported by computed names.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from ..errors import StudyError

__all__ = ["code_digests", "is_beside", "with_imports"]


def code_digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Return SHA-256 (hex) by path relative to ``folder``, of ``files`` and all that they import beside them."""
    found = {path for file in files for path in with_imports(file)}
    named = {Path(os.path.relpath(path, folder.resolve())).as_posix(): path for path in found}
    return {name: hashlib.sha256(named[name].read_bytes()).hexdigest() for name in sorted(named)}


def with_imports(file: Path) -> set[Path]:
    """Return ``file`` and every file beside it that it imports, directly or not."""
    root, found, waiting = file.parent, {file}, [file]
    while waiting:
        for path in _imported(waiting.pop(), root):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return found


def is_beside(name: str, module: ModuleType | None, root: Path) -> bool:
    """Return whether the module was read from a file or package of ``root``."""
    top = name.partition(".")[0]
    read = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return read is not None and (Path(read) == root / f"{top}.py" or Path(read).is_relative_to(root / top))


def _imported(file: Path, root: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        raise StudyError(
            f"{file} cannot be read as Python: {error}", todo="run it with python to see where"
        ) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = file.parents[node.level - 1] if node.level else root
            yield from _files(start, node.module or "")
            for alias in node.names:
                yield from _files(start, f"{node.module}.{alias.name}" if node.module else alias.name)


def _files(start: Path, module: str) -> Iterator[Path]:
    """Yield the files that importing ``module`` executes, packages first."""
    place = start
    for word in filter(None, module.split(".")):
        place = place / word
        for path in (place / "__init__.py", place.with_name(f"{word}.py")):
            if path.is_file():
                yield path
                break
