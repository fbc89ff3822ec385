"""What a run was done with: versions of software, and how many threads computed."""

from __future__ import annotations

import platform

import numpy as np
import torch

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Return versions and threads by name, for a run's log."""
    from .. import __version__

    return {
        "cutlayer": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }
