"""What the figures depend on: hardware, load, date, commit, command, versions; as benchmarks/run.py tells it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def circumstances(arguments: Sequence[str]) -> dict[str, Any]:
    """Return what stands beside the figures.

    Args:
        arguments: Of the command.
    """
    path = Path(__file__).resolve().parent.parent / "run.py"
    spec = importlib.util.spec_from_file_location("benchmarks_run", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    runner = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = runner
    spec.loader.exec_module(runner)
    told: dict[str, Any] = runner.circumstances(runner.Benchmark(name="peers/run", bar=""), arguments)
    return told
