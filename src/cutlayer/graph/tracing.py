"""Write down what a module's forward does as a graph that says where each submodule ends.

Built on ``torch.fx`` with three additions:

- Control flow that depends on shapes only (``if x.dim() == 3``, ``for i in range(x.shape[1])``) is followed
  for the example, and a guard in the graph refuses, with a clear error, an input that would go another way.
- A submodule that cannot be followed (its control flow reads the data, or it switches gradients off) becomes
  one opaque step, and the reason is remembered.
- Tensors that a forward makes itself (noise, zeros) are made anew in each call, never frozen into the graph.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import Attribute, TraceError

from ..errors import CutError

__all__ = ["Trace", "expect", "in_mode", "input_names", "is_free", "knows_sizes_only", "trace"]

_FACTORIES = (
    "arange", "empty", "eye", "full", "linspace", "normal", "ones", "rand", "randint", "randn", "randperm",
    "zeros",
)  # fmt: skip


@dataclass
class Trace:
    """One forward, step by step.

    Attributes:
        graph: The steps in execution order.
        inputs: Names of the model's inputs.
        ends: The last step of each submodule that ran, one entry per call, by the submodule's path.
        names: A readable name for the value of each step.
        opaque: Why the inside of a submodule could not be followed, by its path.
    """

    graph: fx.Graph
    inputs: tuple[str, ...]
    ends: dict[str, list[fx.Node]] = field(default_factory=dict)
    names: dict[fx.Node, str] = field(default_factory=dict)
    opaque: dict[str, str] = field(default_factory=dict)

    def same_steps(self, other: Trace) -> bool:
        """Whether both traces do the same thing."""
        return _text(self.graph) == _text(other.graph)


def expect(value: object, known: object) -> None:
    """Guard in a traced forward: refuse an input for which the forward would go another way."""
    if value != known:
        raise CutError(
            "for this input the model's forward goes another way than for the example it was cut with",
            got=str(value),
            expected=str(known),
            todo="feed batches like the example, or cut with an example like this batch",
        )


def is_free(node: fx.Node) -> bool:
    """Whether ``node`` only names something (an input, a parameter) and does no work."""
    return node.op in ("placeholder", "get_attr", "output")


_SIZES: set[Any] = {
    "dim", "element_size", "is_complex", "is_contiguous", "is_floating_point", "ndimension", "numel", "size",
    "stride", getattr, len, "chunk", "split", "unbind", torch.chunk, torch.split, torch.unbind,
}  # fmt: skip
"""Steps of which the number, or the number of parts, follows from a tensor's size and type alone."""


def knows_sizes_only(node: fx.Node, is_tensor: Callable[[fx.Node], bool]) -> bool:
    """Whether the number ``node`` follows from tensors' sizes and types alone, not from what is in them."""
    sizes = node.op != "call_module" and node.target in _SIZES
    return all(
        sizes if is_tensor(source) else knows_sizes_only(source, is_tensor) for source in node.all_input_nodes
    )


def input_names(model: nn.Module, count: int) -> tuple[str, ...]:
    """Return the names of the first ``count`` positional parameters of ``model.forward``."""
    names: list[str] = []
    needed = 0
    for p in inspect.signature(model.forward).parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            names += [f"input{i}" for i in range(len(names), count)]
        elif p.kind is p.KEYWORD_ONLY or p.kind is p.VAR_KEYWORD:
            continue
        else:
            names.append(p.name)
            needed += p.default is p.empty
    if not needed <= count <= len(names):
        raise CutError(
            f"forward of {type(model).__name__} takes ({', '.join(names)})",
            got=f"an example of {count} tensor{'s' * (count != 1)}",
            todo="give one example tensor for each input",
        )
    return tuple(names[:count])


def trace(model: nn.Module, worlds: Sequence[tuple[Tensor, ...]], enter: Collection[str] = ()) -> Trace:
    """Trace ``model`` in its present mode; its inside may change (hand in a copy).

    Args:
        model: The module to trace.
        worlds: Example inputs, the same with another number of rows each.
        enter: Paths of submodules to look into even if they belong to ``torch.nn``.

    Raises:
        CutError: The model's own forward cannot be followed.
    """
    opaque: dict[str, str] = {}
    while True:
        tracer = _Tracer(model, worlds, set(enter), opaque)
        try:
            with torch.random.fork_rng(devices=[]), torch.enable_grad(), _factories_recorded(tracer):
                graph = tracer.trace(model)
            return Trace(graph, tracer.input_names, _ends(model, tracer), _names(graph, tracer), opaque)
        except _Untraceable as stop:
            opaque[stop.path] = stop.reason
        except Exception as error:
            raise CutError(
                f"forward of {type(model).__name__} cannot be followed: {_reason(error)}, so no cut of it works",
                todo="move that part of forward into a submodule: cuts before and after it then work",
            ) from error


class _Untraceable(BaseException):
    """Leaves every frame of a forward, also those that catch ``Exception``."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason


class _Known(fx.Proxy):
    """A value in the traced forward that can say its length, number or truth where only shapes decide it."""

    tracer: _Tracer

    def __getattr__(self, name: str) -> _KnownAttribute:
        return _KnownAttribute(self, name)

    def __len__(self) -> int:
        length = self.tracer.create_proxy("call_function", len, (self,), {})
        return int(self.tracer.concrete(length))

    def __index__(self) -> int:
        return operator.index(self.tracer.concrete(self))

    def __int__(self) -> int:
        return int(self.tracer.concrete(self))

    def __float__(self) -> float:
        return float(self.tracer.concrete(self))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


class _KnownAttribute(_Known, Attribute):
    """An attribute of a known value, written into the graph when it is used."""


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(
        self, root: nn.Module, worlds: Sequence[tuple[Tensor, ...]], enter: set[str], opaque: dict[str, str]
    ) -> None:
        super().__init__()
        self.enter, self.opaque, self.worlds = enter, opaque, worlds
        self.input_names = input_names(root, len(worlds[0]))
        self.ends: dict[str, list[fx.Node]] = {}
        self.results: dict[fx.Node, str] = {}
        self.owners: dict[fx.Node, str] = {}
        self.open: list[str] = []
        self.evaluating = False
        self.guarded: dict[fx.Node, Any] = {}
        self.engines: list[fx.Interpreter] = []

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        self.engines = [
            fx.Interpreter(self.root, garbage_collect_values=False, graph=self.graph) for _ in self.worlds
        ]
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in self.input_names]
        for engine, values in zip(self.engines, self.worlds, strict=True):
            engine.env.update({p.node: value for p, value in zip(proxies, values, strict=True)})
        return root_fn, [self.root, *proxies]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Known(node, self)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        if not torch.is_grad_enabled():
            raise TraceError("it switches gradients off inside its forward")
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise TraceError("it changes precision (autocast) inside its forward")
        node = super().create_node(kind, target, *args, **kwargs)
        self.owners[node] = self.open[-1] if self.open else ""
        return node

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        return attr_val if self.evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.opaque:
            return True
        return module_qualified_name not in self.enter and super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.evaluating:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        self.open.append(path)
        try:
            result = super().call_module(m, forward, args, kwargs)
        except Exception as error:
            if self.is_leaf_module(m, path):  # the fault is around it
                raise
            raise _Untraceable(path, _reason(error)) from error
        finally:
            self.open.pop()
        self.ends.setdefault(path, []).append(next(reversed(self.graph.nodes)))
        if isinstance(result, fx.Proxy) and f"{self.owners[result.node]}.".startswith(f"{path}."):
            self.results[result.node] = path
        return result

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.concrete(obj))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        return iter([cast(Any, obj)[i] for i in range(len(cast(_Known, obj)))])

    def concrete(self, obj: fx.Proxy) -> Any:
        """Return what ``obj`` is for the example, if only shapes decide it, and guard it in the graph."""
        node = obj.node
        if node in self.guarded:
            return self.guarded[node]
        values = [self._evaluate(engine, node) for engine in self.engines]
        known = self.engines[0].env
        if isinstance(values[0], Tensor) or not knows_sizes_only(
            node, lambda n: isinstance(known[n], Tensor)
        ):
            raise TraceError("its control flow depends on the data")
        if any(value != values[0] for value in values):
            raise TraceError("its control flow depends on the number of rows")
        with self.graph.inserting_after(node):
            self.create_node("call_function", expect, (node, values[0]), {})
        self.guarded[node] = values[0]
        return values[0]

    def _evaluate(self, engine: fx.Interpreter, node: fx.Node) -> Any:
        wanted, stack = set[fx.Node](), [node]
        while stack:
            one = stack.pop()
            if one not in engine.env and one not in wanted:
                wanted.add(one)
                stack += one.all_input_nodes
        self.evaluating = True
        try:
            with torch.no_grad():
                for one in self.graph.nodes:
                    if one in wanted:
                        engine.env[one] = engine.run_node(one)
        finally:
            self.evaluating = False
        return engine.env[node]


@contextmanager
def _factories_recorded(tracer: _Tracer) -> Iterator[None]:
    """Record tensors that a forward makes from nothing, so that each call makes them anew."""

    def recorded(original: Callable[..., Tensor]) -> Callable[..., Any]:
        def make(*args: Any, **kwargs: Any) -> Any:
            if tracer.evaluating:
                return original(*args, **kwargs)
            return tracer.create_proxy("call_function", original, args, kwargs)

        return make

    originals = {name: getattr(torch, name) for name in _FACTORIES}
    try:
        for name, original in originals.items():
            setattr(torch, name, recorded(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(torch, name, original)


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return text if isinstance(error, TraceError) else f"{type(error).__name__}: {text}"


def _text(graph: fx.Graph) -> list[str]:
    return [f"{n.name} {n.op} {n.target} {n.args} {n.kwargs}" for n in graph.nodes]


def _ends(model: nn.Module, tracer: _Tracer) -> dict[str, list[fx.Node]]:
    """Return where submodules end; a list of modules, which never runs itself, ends with its last module."""
    ends = dict(tracer.ends)
    order = {node: i for i, node in enumerate(tracer.graph.nodes)}
    for path, module in model.named_modules():
        if path and path not in ends and isinstance(module, nn.ModuleList | nn.ModuleDict):
            inner = [nodes for name, nodes in ends.items() if name.startswith(f"{path}.")]
            if inner and all(len(nodes) == 1 for nodes in inner):
                ends[path] = [max((nodes[0] for nodes in inner), key=order.__getitem__)]
    for path, module in model.named_modules(remove_duplicate=False):
        if path and path not in ends:
            same = next(name for name, other in model.named_modules() if other is module)
            if same in ends:
                ends[path] = ends[same]
    return ends


def _names(graph: fx.Graph, tracer: _Tracer) -> dict[fx.Node, str]:
    """Name each value after the outermost submodule that returns it, else after its owner and operation."""
    names: dict[fx.Node, str] = {}
    taken = set(tracer.input_names)
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = str(node.target)
            continue
        owner, operation = tracer.owners.get(node, ""), node.name.rstrip("0123456789").rstrip("_")
        path = tracer.results.get(node) or (f"{owner}.{operation}" if owner else operation)
        if node.target is operator.getitem and isinstance(node.args[1], int):
            path = f"{names[cast(fx.Node, node.args[0])]}_{node.args[1]}"
        name = path.replace(".", "_")
        name = name if name[0].isalpha() else f"layer_{name.lstrip('_')}"
        unique, count = name, 0
        while unique in taken:
            count += 1
            unique = f"{name}_{count}"
        taken.add(unique)
        names[node] = unique
    return names


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put ``model`` into training or evaluation mode for a while; each submodule gets its own mode back."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, flag in before.items():
            module.training = flag
