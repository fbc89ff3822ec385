"""PyTorch's own FLOP counter, told of the one operation it does not know: attention on a CPU."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

__all__ = ["flop_counter"]

_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}


def flop_counter() -> FlopCounterMode:
    """Return a counter of the FLOPs of matrix products, convolutions and attention; a multiply-add is two."""
    return FlopCounterMode(display=False, custom_mapping=_ATTENTION)
