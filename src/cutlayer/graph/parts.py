"""The parts a split graph is made of: tensor specs, roles, segments, losses, cuts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..codecs import EXACT, Codec
from ..errors import GraphError
from ..privacy import Defence

__all__ = ["Cut", "Loss", "Party", "Placement", "Ref", "Role", "Segment", "Share", "TensorSpec", "valid_name"]

LossFunction = Callable[[Tensor, Tensor], Tensor]

_LIKE_PREDICTION = (nn.BCEWithLogitsLoss, nn.BCELoss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)


def valid_name(name: str, what: str) -> str:
    """Return ``name`` if it can stand in programs, file names and module trees, else raise GraphError."""
    if not name or not all(c.isalnum() or c in "_-" for c in name):
        raise GraphError(
            f"{name!r} cannot be the name of a {what}",
            todo="use letters, digits, '_' and '-' only",
        )
    return name


@dataclass(frozen=True)
class TensorSpec:
    """Shape of one sample (without the batch dimension) and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @staticmethod
    def of(batch: Tensor) -> TensorSpec:
        """Return the spec of ``batch`` [B, ...], whose first dimension counts samples."""
        return TensorSpec(tuple(batch.shape[1:]), batch.dtype)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{dtype}[{', '.join(['B', *map(str, self.shape)])}]"


class Ref(NamedTuple):
    """A segment's output: ``head`` (its first) or ``head:layer1_add`` (by name)."""

    segment: str
    output: str

    def __str__(self) -> str:
        return f"{self.segment}:{self.output}"


@dataclass(frozen=True)
class Party:
    """An organisation or device that fills a role, with its own data and its own part of the model."""

    name: str
    role: str

    def __post_init__(self) -> None:
        valid_name(self.name, "party")


@dataclass(frozen=True)
class Role:
    """A place in the graph, filled by one party or by many (a hundred hospitals).

    Attributes:
        name: The role's name.
        parties: The parties that fill it, in the order in which they take turns.
        fields: The data fields that each of its parties holds.
    """

    name: str
    parties: tuple[str, ...]
    fields: Mapping[str, TensorSpec | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        valid_name(self.name, "role")
        if not self.parties:
            raise GraphError(f"role {self.name!r} is filled by no party", todo="name at least one party")
        for party in self.parties:
            valid_name(party, "party")
        if len(set(self.parties)) != len(self.parties):
            raise GraphError(f"role {self.name!r} names a party twice", got=", ".join(self.parties))


@dataclass(frozen=True, eq=False)
class Segment:
    """An ordinary module placed on a role.

    Attributes:
        name: The segment's name, unique in the graph.
        role: The role whose parties run it.
        module: Called with the inputs in order; returns a tensor, or a tuple for several outputs.
        inputs: Names of data fields of the role (``"x"``) or of other segments' outputs
            (``"head"``, ``"head:layer1_add"``).
        outputs: Names of what the module returns.
        origin: Name of each parameter and buffer in the network that was cut, by its name here.
    """

    name: str
    role: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("out",)
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        valid_name(self.name, "segment")
        if not self.inputs:
            raise GraphError(
                f"segment {self.name!r} has no input", todo="name a data field or another segment"
            )
        if not self.outputs or len(set(self.outputs)) != len(self.outputs):
            raise GraphError(
                f"segment {self.name!r} needs outputs with different names", got=str(self.outputs)
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class Loss:
    """A loss where prediction and label meet; several losses of a graph are summed with their weights.

    Attributes:
        role: The role whose parties compute it; it must run the predicting segment and hold the label.
        prediction: The segment (or ``segment:output``) that predicts.
        target: The data field that holds the label.
        function: ``function(prediction, target)`` returns a scalar, the mean over the batch.
        weight: Its weight in the sum of all losses.
        name: Its name in logs.
        reconstructs: The target is no label but an input of the role's own, which the prediction makes again
            from it (an autoencoder): nothing of it is another role's.
    """

    role: str
    prediction: str
    target: str = "y"
    function: LossFunction = field(default_factory=nn.CrossEntropyLoss)
    weight: float = 1.0
    name: str = "loss"
    reconstructs: bool = False

    def __post_init__(self) -> None:
        valid_name(self.name, "loss")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise GraphError(f"loss {self.name!r} needs a positive weight", got=str(self.weight))

    def compute(self, prediction: Tensor, label: Tensor) -> Tensor:
        """Return the scalar loss of a batch.

        The losses of PyTorch that compare numbers (MSE, L1, BCE with logits, …) want the label in the
        prediction's shape and dtype; integer labels [B] against predictions [B, 1] are brought there.
        """
        if isinstance(self.function, _LIKE_PREDICTION) and label.numel() == prediction.numel():
            label = label.to(prediction.dtype).reshape(prediction.shape)
        value = self.function(prediction, label)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise GraphError(
                f"loss {self.name!r} must return one number",
                got=f"{tuple(value.shape)} numbers" if isinstance(value, Tensor) else type(value).__name__,
                expected="a tensor with the mean over the batch",
                todo="reduction='mean' in PyTorch's losses",
            )
        return value


@dataclass(frozen=True)
class Share:
    """A label field that ``source`` openly sends to ``target`` with each batch (Gupta & Raskar, algorithm 1)."""

    field: str
    source: str
    target: str


@dataclass(frozen=True)
class Cut:
    """An edge whose ends are on different roles: what one segment gives to one other role.

    Attributes:
        name: ``segment->role`` for activations, ``field->role`` for shared labels.
        kind: Whether activations (and their gradients) cross, or labels.
        source: The role that sends forwards.
        target: The role that receives forwards.
        producer: The segment (or field) whose tensors cross.
        tensors: Names of the outputs that cross.
        specs: Their shapes and dtypes, where known.
        returns_gradient: Whether a gradient comes back for each tensor.
        codec: How activations are written as they cross.
        return_codec: How the gradients that come back are.
        defences: What protects it, in order.
    """

    name: str
    kind: Literal["activation", "label"]
    source: str
    target: str
    producer: str
    tensors: tuple[str, ...]
    specs: tuple[TensorSpec | None, ...]
    returns_gradient: tuple[bool, ...]
    codec: Codec = EXACT
    return_codec: Codec = EXACT
    defences: tuple[Defence, ...] = ()

    @property
    def backward_name(self) -> str:
        """Name of the gradient's frames: ``head->server`` comes back as ``head<-server``."""
        return self.name.replace("->", "<-")

    @property
    def has_gradient(self) -> bool:
        """Whether any gradient comes back over this cut."""
        return any(self.returns_gradient)


class Placement(Protocol):
    """Who holds what: the part of ``cutlayer.data.Holdings`` that a graph needs."""

    @property
    def roles(self) -> Mapping[str, tuple[str, ...]]:
        """Parties by role."""
        ...

    def fields(self, role: str) -> Mapping[str, Any]:
        """Specs (``shape`` of one sample, ``dtype``) of the fields that the parties of ``role`` hold."""
        ...

    def example(self, role: str, rows: int = 2) -> Mapping[str, Tensor]:
        """Return a few rows of each field of ``role``."""
        ...
