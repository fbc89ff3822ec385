"""Fields that are read when a batch asks for them: any map-style dataset as a source of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from cutlayer.data.randomness import seeded
from cutlayer.errors import CutlayerError, DataError

__all__ = ["Field", "FieldSpec", "LazyField", "LazyRows", "MapDataset", "select_fields", "spec_of"]


@dataclass(frozen=True)
class FieldSpec:
    """Shape and type of one field.

    Attributes:
        shape: Per sample, without the batch dimension.
        dtype: Element type.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


@runtime_checkable
class MapDataset(Protocol):
    """What :class:`torch.utils.data.Dataset` is in practice: it has a length and numbered items."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class LazyRows:
    """Some rows of a dataset, read and stacked batch by batch.

    One item holds several fields (``x`` and ``y``), which are asked for one after the other. The rest of
    a batch is kept until it is asked for, so an item is read once, and image and label stem from the same
    reading even where the dataset augments at random.

    Args:
        dataset: Gives ``(x, y)`` or a dict of named values per item.
        rows: Which items, int64 [rows]; all of them if left out.
    """

    def __init__(self, dataset: MapDataset, rows: Tensor | None = None) -> None:
        self._dataset = dataset
        self._rows = torch.arange(len(dataset)) if rows is None else rows
        self._waiting: dict[str, Tensor] = {}
        self._waiting_rows: Tensor | None = None
        self._waiting_seed: int | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, rows: Tensor) -> LazyRows:
        """Return the rows at these positions, with a memory of its own."""
        return LazyRows(self._dataset, self._rows[rows])

    def fields(self) -> dict[str, LazyField]:
        """Return the fields that an item holds; reads the first item."""
        if not len(self):
            raise DataError("the dataset is empty", expected="at least one item")
        with seeded(0):
            first = self._item(0)
        return {name: LazyField(self, name, _spec(value)) for name, value in first.items()}

    def take(self, name: str, rows: Tensor, seed: int | None = None) -> Tensor:
        """Return one field of these rows, [len(rows), ...].

        Args:
            name: The field.
            rows: Positions, int64 [rows].
            seed: Where random augmentation draws from; None: from the process's own random state.
        """
        fresh = self._waiting_rows is None or not torch.equal(self._waiting_rows, rows)
        if fresh or seed != self._waiting_seed or name not in self._waiting:
            with seeded(seed):
                self._waiting = self._stack(rows)
            self._waiting_rows, self._waiting_seed = rows.clone(), seed
        if name not in self._waiting:
            raise DataError(f"the dataset's items lack {name!r}", got=", ".join(self._waiting))
        return self._waiting.pop(name)

    def _stack(self, rows: Tensor) -> dict[str, Tensor]:
        items = [self._item(row) for row in rows.tolist()]
        if not items:
            return {name: torch.empty((0, *v.shape), dtype=v.dtype) for name, v in self._item(0).items()}
        return {name: _stacked(name, [item.get(name) for item in items], rows) for name in items[0]}

    def _item(self, row: int) -> dict[str, Tensor]:
        number = int(self._rows[row])
        try:
            item = self._dataset[number]
        except CutlayerError:
            raise
        except Exception as error:
            text = str(error).splitlines()[0] if str(error) else ""
            raise DataError(
                f"item {number} of the dataset cannot be read",
                got=f"{type(error).__name__}: {text}" if text else type(error).__name__,
                todo=f"mend dataset[{number}] or leave it out of the dataset",
            ) from error
        if isinstance(item, Mapping):
            return {str(name): _tensor(str(name), value, number) for name, value in item.items()}
        if isinstance(item, tuple | list) and len(item) == 2:
            return {name: _tensor(name, value, number) for name, value in zip("xy", item, strict=True)}
        raise DataError(
            f"item {number} of the dataset is not understood",
            got=type(item).__name__ + (f" of {len(item)}" if isinstance(item, tuple | list) else ""),
            expected="(x, y), or a dict of named values",
        )


@dataclass(frozen=True, eq=False, repr=False)
class LazyField:
    """One field of :class:`LazyRows`; answers :meth:`index_select` like a tensor does.

    Attributes:
        source: The rows it belongs to.
        name: Its name in an item.
        spec: Shape and type per sample, from the first item.
    """

    source: LazyRows
    name: str
    spec: FieldSpec

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        return f"LazyField({self.name!r}, rows={len(self)}, {self.spec})"

    def index_select(self, dim: int, rows: Tensor, seed: int | None = None) -> Tensor:
        """Read these rows, [len(rows), ...]; ``dim`` must be 0; ``seed`` as in :meth:`LazyRows.take`."""
        if dim != 0:
            raise DataError("a lazy field can only be indexed by rows", got=f"dim={dim}", expected="dim=0")
        return self.source.take(self.name, rows, seed)


Field: TypeAlias = Tensor | LazyField


def spec_of(field: Field) -> FieldSpec:
    """Return shape and type of one sample."""
    return field.spec if isinstance(field, LazyField) else FieldSpec(tuple(field.shape[1:]), field.dtype)


def select_fields(fields: Mapping[str, Field], rows: Tensor) -> dict[str, Field]:
    """Return these rows of every field: compact copies of tensors; lazy fields stay lazy."""
    sources: dict[int, LazyRows] = {}
    chosen: dict[str, Field] = {}
    for name, field in fields.items():
        if isinstance(field, LazyField):
            key = id(field.source)
            if key not in sources:
                sources[key] = field.source.select(rows)
            chosen[name] = LazyField(sources[key], field.name, field.spec)
        else:
            chosen[name] = field.index_select(0, rows)
    return chosen


def _spec(sample: Tensor) -> FieldSpec:
    return FieldSpec(tuple(sample.shape), sample.dtype)


def _tensor(name: str, value: object, number: int) -> Tensor:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.asarray(value))
    elif isinstance(value, bool | int | float):
        value = torch.tensor(value)
    if not isinstance(value, Tensor):
        raise DataError(
            f"field {name!r} of item {number} is not a tensor",
            got=type(value).__name__,
            expected="a tensor, a NumPy array or a number",
            todo="convert it in the dataset, e.g. with a transform",
        )
    return value.float() if value.dtype == torch.float64 else value


def _stacked(name: str, values: list[Tensor | None], rows: Tensor) -> Tensor:
    first = values[0]
    for row, value in zip(rows.tolist(), values, strict=True):
        if value is None or first is None or value.shape != first.shape or value.dtype != first.dtype:
            raise DataError(
                f"field {name!r} of row {row} cannot join its batch",
                got="nothing" if value is None else str(_spec(value)),
                expected="nothing" if first is None else str(_spec(first)),
                todo="bring all items to one shape, e.g. with a transform",
            )
    return torch.stack([value for value in values if value is not None])
