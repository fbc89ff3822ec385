"""A process starts sooner: what PyTorch would import for its compiler, which no party uses, stays away.

PyTorch wraps some of its functions, among them those of optimizers and of its FLOP counter, so that its compiler
``torch.compile`` leaves them alone. To ask the compiler for that, the first call of any of them imports the whole
of it, ``torch._dynamo``: half a second or more, and 100 MB of memory, in a process that never compiles. Each wrapper
keeps the compiler's answer as an attribute of the function. `quick_start` puts there, before the first call, the answer
that comes out when nothing is compiled: the function itself. So exactly the same arithmetic is done.

The attribute is PyTorch's own business. Where it is not found under this name, nothing is changed and the start takes
as long as PyTorch takes. It concerns the whole process, so it is for programs, not for libraries: the commands
``serve``, ``join`` and ``local`` call it; who imports cutlayer is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FunctionType

__all__ = ["quick_start"]

_ANSWER = "__dynamo_disable"


def quick_start() -> int:
    """Spare this process the import of PyTorch's compiler; call it before anything is computed.

    A process that has the compiler already, or that compiles later, works as well; what it compiles may then trace
    through an optimizer's small functions instead of around them.

    Returns:
        How many functions it concerns; 0 if nothing was changed.
    """
    if "torch._dynamo" in sys.modules:
        return 0
    code = _wrapper()
    spared = [function for function in _candidates() if code is not None and function.__code__ is code]
    for function in spared:
        plain = getattr(function, "__wrapped__", None)
        if isinstance(plain, FunctionType) and not hasattr(plain, _ANSWER):
            setattr(plain, _ANSWER, plain)
    return len(spared)


def _wrapper() -> CodeType | None:
    """Return the code that all wrapped functions share, if it asks for the answer where it is expected."""
    try:
        from torch._compile import _disable_dynamo
    except ImportError:
        return None
    wrapped = _disable_dynamo(lambda: None)
    code = getattr(wrapped, "__code__", None)
    return code if isinstance(code, CodeType) and _ANSWER in code.co_consts else None


def _candidates() -> Iterator[FunctionType]:
    """Yield the functions of those parts of PyTorch that a party uses."""
    import torch
    from torch.utils import flop_counter

    owners: list[object] = [torch.optim.Optimizer, *_classes(torch.optim), *_classes(flop_counter)]
    for owner in dict.fromkeys(owners):
        for value in vars(owner).values():
            # Optimizers put a profiler's mark around some of them, once more.
            while isinstance(value, FunctionType):
                yield value
                value = getattr(value, "__wrapped__", None)


def _classes(module: object) -> Iterator[type]:
    return (value for value in vars(module).values() if isinstance(value, type))
