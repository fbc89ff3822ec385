"""From arrays to the tensors that networks take: images to float32 NCHW, labels to int64."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cutlayer.errors import DataError, NumericsError

__all__ = ["ArrayLike", "Scale", "features", "labels"]

ArrayLike: TypeAlias = np.ndarray | Tensor
Scale: TypeAlias = Literal["unit", "none"]

_CHANNELS = (1, 3, 4)


def features(values: ArrayLike, name: str = "x", scale: Scale = "unit") -> Tensor:
    """Return features as a tensor with rows first.

    - uint8 of four dimensions, NHWC or NCHW with 1, 3 or 4 channels: images, float32 NCHW.
    - uint8 of three dimensions: grey images, float32 [rows, 1, height, width].
    - other uint8: float32 of the same shape.
    - float: float32 of the same shape, checked for NaN and infinity.
    - other whole numbers: int64 of the same shape (token ids, say). Truth values: float32.

    Args:
        values: [rows, ...].
        name: What to call it in messages.
        scale: "unit" divides uint8 by 255; "none" leaves 0 to 255.

    Raises:
        DataError: Objects, text or complex numbers; no rows dimension; no channels dimension.
        NumericsError: NaN or infinity; names the first row.
    """
    if scale not in ("unit", "none"):
        raise DataError(f"unknown scale {scale!r}", expected="'unit' or 'none'")
    tensor = _tensor(values, name)
    if not tensor.dim():
        raise DataError(f"{name!r} is a single number", expected="an array of rows")
    if tensor.dtype == torch.uint8:
        images = _channels_first(tensor, name).to(torch.float32, memory_format=torch.contiguous_format)
        return images.div_(255) if scale == "unit" else images
    if tensor.dtype == torch.bool:
        return tensor.float()
    if not tensor.is_floating_point():
        return tensor.to(torch.int64)
    tensor = tensor.float()
    check_finite(tensor, name)
    return tensor.contiguous()


def labels(values: ArrayLike, name: str = "y") -> Tensor:
    """Return labels: whole numbers as int64 (a column [rows, 1] becomes [rows]), others as float32.

    Raises:
        DataError: Objects, text or complex numbers.
        NumericsError: NaN or infinity; names the first row.
    """
    tensor = _tensor(values, name)
    if tensor.dim() == 2 and tensor.shape[1] == 1:
        tensor = tensor.squeeze(1)
    if not tensor.dim():
        raise DataError(f"{name!r} is a single number", expected="an array with one label per row")
    if tensor.is_floating_point():
        check_finite(tensor, name)
        if tensor.dim() > 1 or (tensor != tensor.round()).any():
            return tensor.to(torch.float32)
    return tensor.to(torch.int64)


def check_finite(tensor: Tensor, name: str) -> None:
    """Raise :class:`NumericsError` that names the first row with NaN or infinity."""
    if not tensor.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()):
        return
    bad = ~torch.isfinite(tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)).all(1)
    raise NumericsError(
        f"{name!r} holds NaN or infinity in {int(bad.sum())} of {len(bad)} rows",
        got=f"the first at row {int(bad.int().argmax())}",
        todo="fill or drop these rows; columns of a table may have gaps, arrays may not",
    )


def _tensor(values: ArrayLike, name: str) -> Tensor:
    if isinstance(values, Tensor):
        if values.is_complex():
            raise DataError(f"{name!r} holds complex numbers", expected="real numbers")
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{name!r} does not hold numbers",
            got=f"NumPy type {array.dtype}",
            expected="whole numbers, floats or truth values",
            todo="text labels: load them from a table, or number them first",
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    array = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _channels_first(images: Tensor, name: str) -> Tensor:
    if images.dim() == 3:
        return images.unsqueeze(1)
    if images.dim() != 4:
        return images
    if images.shape[3] in _CHANNELS:
        return images.permute(0, 3, 1, 2)
    if images.shape[1] in _CHANNELS:
        return images
    raise DataError(
        f"{name!r} looks like images without a dimension of channels",
        got=str(list(images.shape)),
        expected=f"[rows, height, width, channels] with channels one of {_CHANNELS}",
    )
