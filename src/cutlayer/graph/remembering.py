"""Remember what was worked out from a graph, as long as the graph lives and no longer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["remembered"]

Given = ParamSpec("Given")
Found = TypeVar("Found")


def remembered(
    most: int,
) -> Callable[
    [Callable[Concatenate[SplitGraph, Given], Found]], Callable[Concatenate[SplitGraph, Given], Found]
]:
    """Return a decorator: a function of a graph is called once for what it is given, and the same object comes back.

    `functools.lru_cache` would keep the graph, with all its weights, after everybody else has forgotten it.

    Args:
        most: How many results are kept for each graph; those used the longest ago go first. They must not refer to
            the graph.
    """

    def decorate(
        function: Callable[Concatenate[SplitGraph, Given], Found],
    ) -> Callable[Concatenate[SplitGraph, Given], Found]:
        known: weakref.WeakKeyDictionary[SplitGraph, Callable[Given, Found]] = weakref.WeakKeyDictionary()

        @wraps(function)
        def recall(graph: SplitGraph, /, *given: Given.args, **named: Given.kwargs) -> Found:
            of_this = known.get(graph)
            if of_this is None:
                of_this = known[graph] = _kept(function, weakref.ref(graph), most)
            return of_this(*given, **named)

        return recall

    return decorate


def _kept(
    function: Callable[Concatenate[SplitGraph, Given], Found], graph: weakref.ref[SplitGraph], most: int
) -> Callable[Given, Found]:
    @lru_cache(maxsize=most)
    def work_out(*given: Given.args, **named: Given.kwargs) -> Found:
        alive = graph()
        if alive is None:
            raise ReferenceError("the graph is gone")
        return function(alive, *given, **named)

    return work_out  # type: ignore[return-value]  # arguments must be hashable, which a type cannot say
