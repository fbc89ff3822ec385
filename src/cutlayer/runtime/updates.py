"""What training changed in a tensor, to the last bit: weights are initial weights and an update.

Clients share a seed, and with it the initial weights, and later pass on only what became of these (Gupta & Raskar
2018). Their update is ``w_now - w_start``; in floating point ``w_start + (w_now - w_start)`` is another number than
``w_now`` now and then, so the difference is taken between bits here: ``now XOR start``. As with sums, several
updates make one, ``(c XOR b) XOR (b XOR a) = c XOR a``, in any order and without rounding.

Bits of numbers that are close have their first bytes in common. So the update's bytes are written in planes, first all
first bytes and so on, and deflated (RFC 1951), which takes out the zeros.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from ..errors import FrameError

__all__ = ["pack", "unpack"]

_RAW = -15  # deflate without header and checksum: frames have their own


def pack(now: Tensor, start: Tensor) -> Tensor:
    """Return the update from ``start`` to ``now``, of the same shape and dtype: uint8 [bytes]."""
    planes = np.bitwise_xor(_bits(now), _bits(start)).T
    deflate = zlib.compressobj(1, zlib.DEFLATED, _RAW, 9, zlib.Z_RLE)
    written = deflate.compress(planes.tobytes()) + deflate.flush()
    return torch.frombuffer(bytearray(written), dtype=torch.uint8)


def unpack(update: Tensor, start: Tensor) -> Tensor:
    """Return ``start`` with ``update``, which :func:`pack` made; it never takes more memory than ``start`` has bytes.

    Raises:
        FrameError: ``update`` is not one of a tensor like ``start``.
    """
    before = _bits(start)
    inflate = zlib.decompressobj(_RAW)
    try:
        if update.dtype is not torch.uint8 or update.ndim != 1:
            raise zlib.error
        # One byte more than there may be, so that what is too long is seen.
        read = inflate.decompress(update.numpy().tobytes(), before.size + 1)
    except zlib.error:
        raise FrameError("an update cannot be read", todo="both sides must load the same study") from None
    if len(read) != before.size or not inflate.eof or inflate.unused_data:
        raise FrameError(
            "an update is not of the tensor that it is said to be of",
            got=f"{len(read)} bytes{'' if inflate.eof else ' and more'}",
            expected=f"{before.size}",
            todo="both sides must load the same study",
        )
    now = torch.empty(start.shape, dtype=start.dtype)
    np.bitwise_xor(np.frombuffer(read, np.uint8).reshape(before.shape[::-1]).T, before, out=_bits(now))
    return now


def _bits(tensor: Tensor) -> np.ndarray:
    """Return the bytes of a tensor's numbers: uint8 [numbers, bytes of each]."""
    flat = tensor.detach().cpu().reshape(-1).contiguous()
    found: np.ndarray = flat.view(torch.uint8).numpy().reshape(-1, tensor.element_size())
    return found
