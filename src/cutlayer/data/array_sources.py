"""Sources of data in memory: NumPy arrays, tensors, ``.npz`` files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cutlayer.data.lazy import Field
from cutlayer.data.pool import Pool
from cutlayer.data.source import Source
from cutlayer.data.tensors import ArrayLike, Scale, features, labels
from cutlayer.errors import DataError, nearest

__all__ = ["arrays", "npz"]

Features: TypeAlias = ArrayLike | Mapping[str, ArrayLike]
_SPLIT_WORDS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}


def arrays(
    x_train: Features,
    y_train: ArrayLike | None = None,
    x_test: Features | None = None,
    y_test: ArrayLike | None = None,
    x_valid: Features | None = None,
    y_valid: ArrayLike | None = None,
    *,
    ids: Mapping[str, np.ndarray] | None = None,
    about: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    scale: Scale = "unit",
    standardize: bool = False,
    classes: tuple[str, ...] = (),
) -> Source:
    """Use arrays or tensors; see :func:`cutlayer.data.tensors.features` for what becomes of them.

    Args:
        x_train: Training features [rows, ...], or several by name, e.g. ``{"image": ..., "record": ...}``.
        y_train: Training labels [rows].
        x_test: Test features.
        y_test: Test labels.
        x_valid: Validation features.
        y_valid: Validation labels.
        ids: Ids by split; left out: rows are numbered through all splits.
        about: By split, columns that say something about the rows (site, patient) and are no input.
        scale: "unit" divides uint8 by 255; "none" does not.
        standardize: Scale float fields at each party by its own training rows.
        classes: Names of the classes.

    Raises:
        DataError: Types, shapes or lengths are wrong.
        NumericsError: NaN or infinity among the features.
    """
    given = {"train": (x_train, y_train), "valid": (x_valid, y_valid), "test": (x_test, y_test)}
    for what, by_split in (("ids", ids or {}), ("about", about or {})):
        for split in by_split:
            if split not in given or given[split][0] is None:
                raise DataError(f"{what} are given for {split!r}, which has no features")
    splits: dict[str, Pool] = {}
    numbered = 0
    for split, (x, y) in given.items():
        if x is None:
            if y is not None:
                raise DataError(f"y_{split} is given without x_{split}")
            continue
        fields = _fields(split, x, y, scale)
        rows = len(next(iter(fields.values())))
        own = (ids or {}).get(split)
        splits[split] = Pool(
            ids=np.arange(numbered, numbered + rows) if own is None else own,
            fields=fields,
            about={name: np.asarray(values) for name, values in (about or {}).get(split, {}).items()},
        )
        numbered += rows
    return Source(splits=splits, standardize=standardize, classes=classes)


def npz(
    path: str | Path,
    x: str | tuple[str, ...] = "x",
    y: str | None = "y",
    *,
    about: tuple[str, ...] = (),
    scale: Scale = "unit",
    standardize: bool = False,
) -> Source:
    """Read a NumPy ``.npz`` file; nothing pickled is ever loaded.

    The keys are the names with the split before or behind: ``x_train`` or ``train_x``, likewise ``test``
    and ``valid`` (or ``val``). A key without a split, ``x``, holds training rows;
    :meth:`Source.hold_out` takes test rows from them.

    Args:
        path: The file.
        x: Name of the features; several give several fields of these names.
        y: Name of the labels; None: there are none.
        about: Names of columns that say something about the rows (site, patient) and are no input.
        scale: "unit" divides uint8 by 255; "none" does not.
        standardize: Scale float fields at each party by its own training rows.

    Raises:
        DataError: The file is missing, damaged, holds pickled objects or lacks a key.
    """
    path = Path(path)
    content = _read_npz(path)
    names = (x,) if isinstance(x, str) else x
    found: dict[str, dict[str, np.ndarray]] = {split: {} for split in _SPLIT_WORDS}
    for name in (*names, *((y,) if y is not None else ()), *about):
        for split in _SPLIT_WORDS:
            key = _key(name, split, content)
            if key is not None:
                found[split][name] = content[key]
        if name not in found["train"]:
            raise DataError(
                f"{path.name} has no training rows of {name!r}",
                got="keys " + ", ".join(sorted(content)),
                expected=f"{name}_train, train_{name} or {name}",
                todo=nearest(f"{name}_train", tuple(content)),
            )
    present = [split for split, columns in found.items() if columns]
    for split in present:
        missing = [name for name in found["train"] if name not in found[split]]
        if missing:
            raise DataError(f"{path.name} lacks {', '.join(missing)} of split {split!r}")
    x_of = {
        split: found[split][names[0]] if isinstance(x, str) else {name: found[split][name] for name in names}
        for split in present
    }
    y_of = {split: found[split][y] for split in present} if y is not None else {}
    return arrays(
        x_of["train"],
        y_of.get("train"),
        x_of.get("test"),
        y_of.get("test"),
        x_of.get("valid"),
        y_of.get("valid"),
        about={split: {name: found[split][name] for name in about} for split in present},
        scale=scale,
        standardize=standardize,
    )


def _fields(split: str, x: Features, y: ArrayLike | None, scale: Scale) -> dict[str, Field]:
    inputs = x if isinstance(x, Mapping) else {"x": x}
    if not inputs or "y" in inputs:
        raise DataError("features need names other than 'y'", got=", ".join(inputs) or "none")
    fields: dict[str, Field] = {
        name: features(values, f"{name}_{split}", scale) for name, values in inputs.items()
    }
    if y is not None:
        fields["y"] = labels(y, f"y_{split}")
    rows = {name: len(value) for name, value in fields.items()}
    if len(set(rows.values())) > 1:
        raise DataError(
            f"the fields of split {split!r} differ in length",
            got=", ".join(f"{name}: {n} rows" for name, n in rows.items()),
        )
    if not any(rows.values()):
        raise DataError(f"split {split!r} is empty", todo="leave it out")
    return fields


def _key(name: str, split: str, content: Mapping[str, np.ndarray]) -> str | None:
    for word in _SPLIT_WORDS[split]:
        for key in (f"{name}_{word}", f"{word}_{name}"):
            if key in content:
                return key
    return name if split == "train" and name in content else None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError) as error:
        raise DataError(f"{path.name} is damaged", got=str(error), todo="copy or save it again") from error
    except ValueError as error:
        raise DataError(
            f"{path.name} cannot be read",
            got=str(error),
            todo="it may hold Python objects, which are never loaded: save numbers, not objects",
        ) from error
    raise DataError(f"{path.name} is not an .npz archive", todo="save it with numpy.savez")
