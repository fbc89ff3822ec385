"""One party's records as a file: ``records.safetensors``, all splits, fields and ids; read back bit for bit."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..data import PartyData, Records
from ..data.tensors import check_finite
from ..errors import DataError

__all__ = ["RECORDS", "read_records", "write_records"]

RECORDS = "records.safetensors"
"""The name of the file in a party's folder."""
_FORMAT = "cutlayer records 1"


def write_records(path: Path, own: PartyData) -> None:
    """Write all records of ``own``; lazy fields are read once.

    Fields are named ``split/field``; ids are ``split:ids``, int64, or text as JSON in bytes.

    Raises:
        DataError: The file cannot be written, a lazy row cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    for split, records in own.splits.items():
        tensors[f"{split}:ids"] = _packed(records.ids)
        for name, field in records.read(torch.arange(len(records)), seed=0).items():
            tensors[f"{split}/{name}"] = field.contiguous()
    fields = {split: list(records.fields) for split, records in own.splits.items()}
    metadata = {"format": _FORMAT, "role": own.role, "group": str(own.group), "fields": json.dumps(fields)}
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, new, metadata=metadata)
        new.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise DataError(
            f"cannot write {path}: {error}", todo="make room on the disk, or choose another folder"
        ) from error


def read_records(path: Path, party: str, role: str) -> PartyData:
    """Return the records that the file holds, as those of ``party``; every tensor in memory of its own, aligned.

    Raises:
        DataError: The file is missing, damaged, or of another role.
        NumericsError: A value is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_kind(path, metadata, party, role)
            fields: dict[str, list[str]] = json.loads(metadata["fields"])
            splits = {
                split: Records(
                    _ids(file.get_tensor(f"{split}:ids")),
                    {name: _value(file.get_tensor(f"{split}/{name}"), name) for name in names},
                )
                for split, names in fields.items()
            }
            group = int(metadata["group"])
    except (OSError, SafetensorError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", party=party, todo="make it again with `cutlayer deal`"
        ) from error
    return PartyData(party, role, splits, group)


def _check_kind(path: Path, metadata: dict[str, str], party: str, role: str) -> None:
    if metadata.get("format") != _FORMAT:
        raise DataError(
            f"{path} does not hold records",
            party=party,
            got=metadata.get("format", "a file of another kind"),
            expected=_FORMAT,
            todo="make it with `cutlayer deal`",
        )
    if metadata.get("role") != role:
        raise DataError(
            f"{path} holds the records of another role",
            party=party,
            got=metadata.get("role", ""),
            expected=role,
            todo="name the party's own folder",
        )


def _value(tensor: Tensor, name: str) -> Tensor:
    """Return the values in memory of their own: a view into the file lies where the file has it."""
    if tensor.is_floating_point():
        check_finite(tensor, name)
    return tensor.clone()


def _packed(ids: np.ndarray) -> Tensor:
    if ids.dtype.kind != "U":
        return torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))
    return torch.frombuffer(bytearray(json.dumps(ids.tolist()).encode()), dtype=torch.uint8)


def _ids(packed: Tensor) -> np.ndarray:
    if packed.dtype == torch.int64:
        return packed.clone().numpy()
    return np.array(json.loads(packed.numpy().tobytes()), dtype=str)
