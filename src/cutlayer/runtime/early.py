"""The gradient of a segment's inputs first, those of its weights while others already work with it.

The party before a cut waits for the gradient of what it sent, which needs none of the weights' gradients. So
these are put off: what each layer needs for them is kept, and they are worked out when the optimizer wants
to step (the idea of zero-bubble pipelines: Qi et al. 2024, section 2). Every layer runs the same arithmetic in
either order, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

__all__ = ["Owed", "inputs_first"]

Owed = Callable[[], None]
"""Works out the gradients of weights that were put off."""


def inputs_first(
    roots: Sequence[Tensor], gradients: Sequence[Tensor], inputs: Sequence[Tensor], weights: Iterable[Tensor]
) -> Owed | None:
    """Back-propagate from ``roots`` to ``inputs`` alone, whose ``grad`` is set; return the rest of the work.

    Args:
        roots: What to start from.
        gradients: Their gradients.
        inputs: Leaves whose gradients are wanted now.
        weights: Leaves whose gradients are added to their ``grad`` when what is returned is called.

    Returns:
        None, and nothing was done, where the graph does not allow it: a weight that several layers use, or one
        that nothing between the roots and the inputs uses.
    """
    plan = _plan(roots, inputs, list(weights))
    if plan is None:
        return None
    kept: dict[Node, Sequence[Tensor | None]] = {}
    hooks = [node.register_prehook(_keeper(kept, node)) for node in plan]
    try:
        found = torch.autograd.grad(roots, inputs, gradients, retain_graph=True, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    for leaf, gradient in zip(inputs, found, strict=True):
        leaf.grad = gradient

    def owed() -> None:
        for node, own in plan.items():
            _finish(node, kept.pop(node, ()), own)
        plan.clear()

    return owed


def _keeper(kept: dict[Node, Sequence[Tensor | None]], node: Node) -> Callable[[Any], None]:
    def keep(gradients: Sequence[Tensor | None]) -> None:
        kept[node] = gradients

    return keep


def _finish(node: Node, gradients: Sequence[Tensor | None], weights: list[Tensor]) -> None:
    """Add to the weights that ``node`` uses what its own gradients say of them."""
    there = [(GradientEdge(node, at), one) for at, one in enumerate(gradients) if one is not None]
    if not there:
        return
    edges, values = zip(*there, strict=True)
    for weight, gradient in zip(
        weights, torch.autograd.grad(edges, weights, values, allow_unused=True), strict=True
    ):
        if gradient is not None:
            weight.grad = gradient if weight.grad is None else weight.grad + gradient


def _plan(
    roots: Sequence[Tensor], inputs: Sequence[Tensor], weights: list[Tensor]
) -> dict[Node, list[Tensor]] | None:
    """Return the weights by the node on the way to the inputs that uses them, the roots' first."""
    by_leaf = {get_gradient_edge(weight).node: weight for weight in weights}
    wanted = {get_gradient_edge(one).node for one in inputs}
    order = _order([get_gradient_edge(root).node for root in roots])
    on_the_way: set[Node] = set()
    users: dict[Node, Node] = {}  # of each node beside the way that leads to weights: who on the way uses it
    for node in reversed(order):  # leaves first
        if node in wanted or any(
            following in on_the_way for following, _ in node.next_functions if following
        ):
            on_the_way.add(node)
    found: dict[Node, list[Tensor]] = {}
    for node in order:
        user = node if node in on_the_way else users.get(node)
        if user is None:
            if node in by_leaf or any(following for following, _ in node.next_functions):
                return None  # it leads to weights, but from no node on the way
            continue
        for following, _ in node.next_functions:
            if following is None or following in on_the_way:
                continue
            if users.setdefault(following, user) is not user:
                return None
            if following in by_leaf:
                own = found.setdefault(user, [])
                if not any(one is by_leaf[following] for one in own):
                    own.append(by_leaf[following])
    return found or None


def _order(roots: Iterable[Node]) -> list[Node]:
    """Return all nodes from ``roots`` on, each before those it leads to."""
    done: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in dict.fromkeys(roots)]
    while stack:
        node, left = stack.pop()
        if left:
            done.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(following, False) for following, _ in node.next_functions if following is not None]
    return done[::-1]
