"""Functions of the user's own Python files, and the networks of cutlayer by name."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..errors import CutlayerError, StudyError, nearest
from ..graph import networks
from ..seeds import stream
from .code import code_digests, is_beside
from .words import Call

__all__ = ["Functions"]


class Functions:
    """Finds functions by words like ``model.py:network``; each file is executed once.

    Args:
        folder: What paths are relative to.
        seed: The study's seed, from which initial weights are drawn.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = folder, seed
        self._files: dict[Path, ModuleType] = {}
        self._beside: dict[str, ModuleType] = {}

    @property
    def code(self) -> dict[str, str]:
        """SHA-256 (hex) by path of every file executed so far, with the files beside it that it imports."""
        return code_digests(self.folder, self._files)

    def make(self, call: Call, *place: str, input_shape: tuple[int, ...] | None = None) -> nn.Module:
        """Call a function that returns a module, seeded with ``stream(seed, "model", *place)``.

        So all who share the file get the same initial weights, and the caller's random state stays as it was.

        Args:
            call: The function and its keyword arguments.
            place: Which of the study's modules it is: ``"bottoms", "clinic"``; nothing if it is the only one.
            input_shape: Given to a parameter of that name: the shape of one sample.

        Raises:
            StudyError: There is no such function, it wants other arguments, fails, or returns no module.
        """
        function = self.find(call.function)
        arguments = dict(call.arguments)
        parameters = _parameters(function)
        if input_shape is not None and "input_shape" in parameters:
            arguments.setdefault("input_shape", input_shape)
        if ":" not in call.function:
            arguments.setdefault("seed", self.seed)
        _check_arguments(call.function, parameters, arguments)
        with self._seeded(*place):
            made = _called(call.function, function, arguments)
        if not isinstance(made, nn.Module):
            raise StudyError(
                f"{call.function} returned no module", got=type(made).__name__, expected="a torch.nn.Module"
            )
        return made

    def find(self, word: str) -> Callable[..., Any]:
        """Return the function that ``word`` names."""
        if ":" not in word:
            return _network(word)
        file, _, name = word.rpartition(":")
        module = self._load(file)
        found = getattr(module, name, None)
        if found is None:
            known = [
                n for n, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
            ]
            known = [n for n in known if not n.startswith("_")]
            todo = nearest(name, known) if known else "define one in it that returns the network"
            raise StudyError(f"{file} has no function {name!r}", todo=todo)
        if not callable(found) or isinstance(found, nn.Module):
            raise StudyError(
                f"{word} is not a function",
                got=type(found).__name__,
                todo="name a function that makes it, so that the study's seed decides its weights",
            )
        return found  # type: ignore[no-any-return]

    def _load(self, file: str) -> ModuleType:
        path = (self.folder / file).resolve()
        if path not in self._files:
            if not path.is_file():
                known = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
                todo = nearest(path.name, known) if known else f"there are no Python files in {path.parent}"
                raise StudyError(f"there is no file {self.folder / file}", todo=todo)
            with self._seeded("file", path.name):
                self._files[path] = _executed(
                    path, Path(os.path.relpath(path, self.folder.resolve())), self._beside
                )
        return self._files[path]

    @contextlib.contextmanager
    def _seeded(self, *place: str) -> Iterator[None]:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(stream(self.seed, "model", *place))
            yield


def _network(word: str) -> Callable[..., Any]:
    if word.endswith(".py"):
        raise StudyError(
            f"{word} does not say which of its functions makes the network", todo=f"name it: {word}:FUNCTION"
        )
    if word not in networks.__all__:
        known = nearest(word, networks.__all__)
        own = "a function of your own is file.py:function"
        raise StudyError(
            f"no network is named {word!r}", todo=f"{known} {own}" if known[-1] == "?" else f"{known}; {own}"
        )
    found: Callable[..., Any] = getattr(networks, word)
    return found


def _executed(path: Path, word: Path, beside: dict[str, ModuleType]) -> ModuleType:
    """Execute a Python file as a module of its own; files beside it can be imported meanwhile.

    Args:
        path: The file.
        word: Its path as the study sees it, from which the module's name is made: the same at every party.
        beside: Modules that earlier files of the study imported from their folders; more are added.
    """
    name = f"cutlayer_study_{hashlib.sha256(word.as_posix().encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path.name} is not a Python file", expected="a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importable(path.parent, beside):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise StudyError(
            f"{path} cannot be executed: {_said(error)}", todo="run it with python to see where"
        ) from error
    return module


@contextlib.contextmanager
def _importable(folder: Path, beside: dict[str, ModuleType]) -> Iterator[None]:
    """Let files of ``folder`` be imported; afterwards they are no longer to be found by others under their names.

    So of two studies in one process, each is given its own ``layers.py``.
    """
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    sys.modules.update(beside)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name in beside or is_beside(name, sys.modules[name], folder):
                beside[name] = sys.modules.pop(name)


def _called(word: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> object:
    try:
        return function(**arguments)
    except CutlayerError:
        raise
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise StudyError(
            f"{word}({given}) failed: {_said(error)}", todo="call it in Python to see where"
        ) from error


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (ValueError, TypeError):  # some callables have no signature to read
        return {}


def _check_arguments(
    word: str, parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> None:
    kinds = {p.kind for p in parameters.values()}
    if not parameters or inspect.Parameter.VAR_KEYWORD in kinds:
        return
    for name in arguments:
        if name not in parameters:
            raise StudyError(f"{word} has no parameter {name!r}", todo=nearest(name, list(parameters)))
    for name, parameter in parameters.items():
        wanted = (
            parameter.default is inspect.Parameter.empty
            and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
        )
        if wanted and name not in arguments:
            raise StudyError(f"{word} needs a value for {name!r}", todo=f"give arguments = {{ {name} = … }}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
