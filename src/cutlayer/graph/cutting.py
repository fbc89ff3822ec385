"""Cut any module at named places: pieces for different parties that together do what the module does.

``cut_module(resnet18(), "layer2", x)`` gives the part up to and with ``layer2`` and the part after it. The
model need not be a chain: residual connections and U-Nets give several tensors that cross, each by name.

- A word means "right after this module has run", in execution order. What is computed between two modules
  (an addition, a flatten) belongs to the piece in which it is executed.
- A number is a share of the forward FLOPs: the place that works and comes nearest is taken.
- A module that runs several times ends in several places, so its name is refused; cut after a neighbour.
- The pieces hold the model's own submodules and parameter names, not wrappers, and run at the same speed.
- Weights that two pieces would share, and raw inputs that would cross to another role, are refused, with the
  nearest place that works.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from torch import Tensor, nn

from ..errors import CutError
from .building import build_pieces
from .candidates import Candidate, Survey, candidates
from .replay import note_gradient_strides, replay

__all__ = ["Candidate", "Piece", "Pieces", "candidates", "cut_module"]


@dataclass(frozen=True, eq=False)
class Piece:
    """What runs between two cuts.

    Attributes:
        module: Called with the tensors ``inputs`` in order; returns a tensor, or a tuple for several outputs.
        inputs: Names of the model's inputs, or of values that earlier pieces made.
        outputs: Names of the values that a later piece, or the model's result, uses.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Pieces:
    """A module in pieces, in execution order.

    Attributes:
        pieces: The pieces; a copy of the module's weights is in them.
        inputs: Names of the model's inputs.
        results: Names of the values that are the model's output.
        cuts: Names of the modules after which it was cut.
        model: The uncut model with the same weights, a copy that shares nothing with the pieces.
    """

    pieces: tuple[Piece, ...]
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    cuts: tuple[str, ...]
    model: nn.Module

    def parameter_names(self) -> list[dict[str, str]]:
        """Return, for each piece, what its parameters and buffers are called in the model, by their names."""
        known = {n for n, _ in self.model.named_parameters(remove_duplicate=False)}
        known |= {n for n, _ in self.model.named_buffers(remove_duplicate=False)}
        names = []
        for piece in self.pieces:
            module = piece.module
            own = {name for name, _ in module.named_parameters(remove_duplicate=False)}
            own |= {name for name, _ in module.named_buffers(remove_duplicate=False)}
            names.append({name: name for name in sorted(own & known)})
        return names


def cut_module(
    model: nn.Module,
    cuts: str | float | Sequence[str | float],
    example: Tensor | Sequence[Tensor],
    *,
    roles: Sequence[str] | None = None,
    verify: bool = True,
) -> Pieces:
    """Cut ``model`` into pieces.

    Args:
        model: Any module; it is copied, not changed.
        cuts: Where: a module's path (``"layer2"``: right after it), a share of the forward FLOPs (``0.25``),
            or several of these in execution order.
        example: A few rows of the model's input, or a tuple of its inputs.
        roles: The role of each piece, such as ``("client", "server", "client")``; each its own by default.
        verify: Run pieces and uncut model side by side on the example, forwards and backwards, in training
            and evaluation mode, and refuse if a single bit differs.

    Raises:
        CutError: The model cannot be cut there; says why and names the nearest cut that works.
    """
    words = [cuts] if isinstance(cuts, str | int | float) else list(cuts)
    if not words:
        raise CutError("no cut is given", todo="name a module after which to cut")
    if roles is not None and len(roles) != len(words) + 1:
        raise CutError(
            f"{len(words)} cut(s) make {len(words) + 1} pieces",
            got=f"roles {tuple(roles)}",
            todo="name one role each",
        )
    _check_words(model, words)
    work, twin = copy.deepcopy(model), copy.deepcopy(model)
    survey = Survey(work, example, _around(words))
    paths = _Chooser(survey, roles).choose(words)
    splits = survey.split(paths)
    modules = build_pieces(work, *splits)
    training = splits[0]
    values = zip(modules, training.inputs, training.outputs, strict=True)
    pieces = Pieces(
        pieces=tuple(Piece(module, training.names(i), training.names(o)) for module, i, o in values),
        inputs=training.course.trace.inputs,
        results=training.names(training.results),
        cuts=tuple(paths),
        model=twin,
    )
    note_gradient_strides(pieces, survey.worlds[0])
    if verify:
        replay(pieces, survey.worlds[0])
    return pieces


def _check_words(model: nn.Module, words: Sequence[str | float]) -> None:
    known = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
    for word in words:
        if isinstance(word, str) and word not in known:
            close = difflib.get_close_matches(word, known, n=4, cutoff=0.4) or known[:8]
            raise CutError(
                f"{type(model).__name__} has no module of that name",
                cut=word,
                todo=f"nearest: {', '.join(close)}" if close else "it has no submodules",
            )
        if not isinstance(word, str) and (isinstance(word, bool) or not 0 < word < 1):
            raise CutError(
                "a cut is a module's name, or a share of the forward FLOPs between 0 and 1", got=repr(word)
            )


def _around(words: Sequence[str | float]) -> set[str]:
    """Return the paths of all modules around the named ones."""
    parts = [word.split(".") for word in words if isinstance(word, str)]
    return {".".join(path[:i]) for path in parts for i in range(1, len(path))}


class _Chooser:
    """Turns words into places that work, or says why not and what would."""

    def __init__(self, survey: Survey, roles: Sequence[str] | None) -> None:
        self.survey, self.roles = survey, roles

    def choose(self, words: Sequence[str | float]) -> list[str]:
        paths = [word if isinstance(word, str) else self._by_share(word) for word in words]
        for i, path in enumerate(paths):
            obstacle = self.survey.obstacle(path)
            if obstacle:
                self._refuse(obstacle, paths, [i])
        positions = [self.survey.position(path) for path in paths]
        if any(b <= a for a, b in pairwise(positions)):
            ordered = sorted(dict.fromkeys(paths), key=self.survey.position)
            raise CutError(
                "cuts must be different places, in the order in which the model runs them",
                got=", ".join(paths),
                expected=", ".join(ordered) if len(set(positions)) == len(positions) else "different places",
            )
        refusal = self.survey.refusal(paths, self.roles)
        if refusal is not None:
            self._refuse(refusal.reason, paths, refusal.cuts)
        return paths

    def _by_share(self, share: float) -> str:
        working = [one for one in self.survey.candidates() if one.works]
        if not working:
            raise CutError(
                "this model cannot be cut anywhere", todo="candidates(model, example) lists the reasons"
            )
        return min(working, key=lambda one: abs(one.flops_share - share)).name

    def _refuse(self, reason: str, paths: list[str], movable: Sequence[int]) -> NoReturn:
        """Raise CutError with the nearest working place to move one of the cuts ``movable`` to."""
        raise CutError(reason, cut=paths[movable[0]], todo=self._nearest(paths, movable))

    def _nearest(self, paths: list[str], movable: Sequence[int]) -> str:
        options = [
            (abs(self.survey.position(path) - self.survey.position(paths[i])), path, i)
            for i in movable
            for path in self.survey.paths()
        ]
        for _, path, i in sorted(options, key=lambda option: (option[0], option[1].count("."))):
            moved = [*paths[:i], path, *paths[i + 1 :]]
            positions = [self.survey.position(p) for p in moved]
            in_order = all(a < b for a, b in pairwise(positions))
            settled = in_order and not any(map(self.survey.obstacle, moved))
            if settled and self.survey.refusal(moved, self.roles) is None:
                return f"the nearest cut that works is {path!r} instead of {paths[i]!r}"
        return "no other place works either: candidates(model, example) lists the reasons"
