"""The table ``[graph]``: one kind for each topology."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .words import Call, LossWord, Model, Name, Table, expects

__all__ = [
    "ChainTable",
    "ExtendedVanillaTable",
    "GraphTable",
    "MergedTable",
    "MultiHopTable",
    "MultiTaskTable",
    "UShapedTable",
    "VanillaTable",
    "VerticalTable",
]

CutWord = Annotated[
    str | Annotated[float, Field(gt=0, lt=1)],
    expects("a module's name, or a share of the forward FLOPs between 0 and 1"),
]


class ChainTable(Table):
    """``[graph]`` of a model cut in a row of pieces; ``cut_words`` are its cuts.

    With a ``decoder``, of weight ``alpha``, clients have an autoencoder: see :func:`cutlayer.with_decoder`.
    """

    model: Model
    loss: LossWord = "cross_entropy"
    server: Name = "server"
    decoder: Model | None = None
    alpha: Annotated[float, Field(gt=0)] = 1.0


class VanillaTable(ChainTable):
    """See :func:`cutlayer.vanilla`."""

    topology: Literal["vanilla"]
    cut: CutWord


class UShapedTable(ChainTable):
    """See :func:`cutlayer.u_shaped`."""

    topology: Literal["u_shaped"]
    cuts: Annotated[list[CutWord], Field(min_length=2, max_length=2)]


class MultiHopTable(ChainTable):
    """See :func:`cutlayer.multi_hop`."""

    topology: Literal["multi_hop"]
    cuts: Annotated[list[CutWord], Field(min_length=1)]
    hops: list[Name] | None = None


class MergedTable(Table):
    """``[graph]`` of several bottoms whose activations are merged."""

    bottoms: Annotated[dict[str, Model], Field(min_length=1)]
    merge: Model = Call(function="concat")

    @property
    def label_holders(self) -> tuple[str, ...]:
        """The roles that hold labels."""
        return ()


class VerticalTable(MergedTable):
    """See :func:`cutlayer.vertical`."""

    topology: Literal["vertical"]
    top: Model
    loss: LossWord = "cross_entropy"
    server: Name = "server"

    @property
    def label_holders(self) -> tuple[str, ...]:
        """The roles that hold labels."""
        return (self.server,)


class ExtendedVanillaTable(MergedTable):
    """See :func:`cutlayer.extended_vanilla`."""

    topology: Literal["extended_vanilla"]
    middle: Model
    top: Model
    loss: LossWord = "cross_entropy"
    worker: Name = "worker"
    server: Name = "server"

    @property
    def label_holders(self) -> tuple[str, ...]:
        """The roles that hold labels."""
        return (self.server,)


class MultiTaskTable(MergedTable):
    """See :func:`cutlayer.multi_task`."""

    topology: Literal["multi_task"]
    tops: Annotated[dict[str, Model], Field(min_length=1)]
    losses: dict[str, LossWord] = Field(default_factory=dict)
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)

    @property
    def label_holders(self) -> tuple[str, ...]:
        """The roles that hold labels."""
        return tuple(self.tops)


GraphTable = Annotated[
    VanillaTable | UShapedTable | MultiHopTable | VerticalTable | ExtendedVanillaTable | MultiTaskTable,
    Field(discriminator="topology"),
]
