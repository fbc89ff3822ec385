"""What a frame costs: bytes beside the tensor, and time beside copying it.

Prints a table for tensors from 4 KB to 16 MB and, as the last line, all figures as JSON. Ends with 1 if
a frame of 64 KB or more has over 0.5 % overhead, or if encoding or decoding 64 KB takes over 20
microseconds more than copying it. Times are the best of several repetitions, in one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import timeit
from collections.abc import Callable

import torch

from cutlayer.wire import Kind, Message, decode, encode

SIZES = tuple(2**power for power in range(12, 25, 2))  # bytes: 4 KB to 16 MB
BAR_BYTES = 2**16
MAX_OVERHEAD_PERCENT = 0.5
MAX_BESIDE_COPY_US = 20.0


def best_us(work: Callable[[], object], seconds: float) -> float:
    """Return the shortest time of one call, in microseconds, measured for about ``seconds``."""
    once = max(timeit.timeit(work, number=3) / 3, 1e-7)
    number = max(1, int(seconds / 10 / once))
    return min(timeit.repeat(work, number=number, repeat=10)) / number * 1e6


def measure(size: int, seconds: float) -> dict[str, float]:
    """Return the figures of a float32 tensor of ``size`` bytes."""
    tensor = torch.randn(size // 1024, 256)
    message = Message(Kind.ACTIVATION, "head->server", 1000, (("activation", tensor),))
    frame = encode(message)
    return {
        "tensor_bytes": size,
        "frame_bytes": len(frame),
        "overhead_percent": 100 * (len(frame) - size) / size,
        "copy_us": best_us(tensor.clone, seconds),
        "encode_us": best_us(lambda: encode(message), seconds),
        "decode_us": best_us(lambda: decode(frame), seconds),
    }


def failures(rows: list[dict[str, float]]) -> list[str]:
    """Return what is beyond its bar, in words."""
    found = []
    for row in rows:
        if row["tensor_bytes"] >= BAR_BYTES and row["overhead_percent"] > MAX_OVERHEAD_PERCENT:
            found.append(f"{row['overhead_percent']:.3f} % overhead at {row['tensor_bytes']} bytes")
        for what in ("encode", "decode"):
            beside = row[f"{what}_us"] - row["copy_us"]
            if row["tensor_bytes"] == BAR_BYTES and beside > MAX_BESIDE_COPY_US:
                found.append(f"{what} takes {beside:.1f} us more than a copy")
    return found


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="time for each figure, in seconds (default: %(default)s)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'tensor':>10} {'frame':>10} {'overhead':>10} {'copy':>9} {'encode':>9} {'decode':>9}")
    print(f"{'bytes':>10} {'bytes':>10} {'%':>10} {'us':>9} {'us':>9} {'us':>9}")
    rows = []
    for size in SIZES:
        row = measure(size, arguments.seconds)
        rows.append(row)
        print(
            f"{size:10d} {row['frame_bytes']:10d} {row['overhead_percent']:10.4f} "
            f"{row['copy_us']:9.1f} {row['encode_us']:9.1f} {row['decode_us']:9.1f}"
        )
    failed = failures(rows)
    for failure in failed:
        print(f"over the bar: {failure}")
    print(
        json.dumps(
            {
                "benchmark": "frames_overhead",
                "passed": not failed,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "rows": [{name: round(value, 4) for name, value in row.items()} for row in rows],
            }
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
