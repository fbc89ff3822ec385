"""What codecs cost and what they save, for 16 MB and 66 KB of ReLU activations, and on which link they pay.

A codec pays on a link on which the bytes that it saves would take longer than writing and reading take: below
``saved bits / seconds``. Times are processor time of one thread, the best of several.

Ends with 1 if a codec does not pay at 1 Gbit/s: with 16 MB any of them, with 66 KB the casts and integers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from measuring import Failures, Figures, finish, one_thread, parser
from torch import Tensor

from cutlayer.codecs import Like, Moment, codec_of, full_word, written_bytes

WORDS = (
    "bfloat16", "float16", "float8:e4m3", "float8:e5m2", "int8", "int8:channel", "int8:row", "int4", "int4:row",
    "topk:0.1", "topk:0.06,bfloat16", "topk:0.01", "random-topk:0.1,0.1", "pq:4,16", "pq:8,64", "c3:2", "c3:8",
)  # fmt: skip
SHAPES = {"16 MB": (64, 64, 32, 32), "66 KB": (64, 256)}
LINK_MBIT_S = 1000.0
SMALL_TOO = ("bfloat16", "float16", "int8", "int8:channel", "int8:row", "int4", "int4:row")
MOMENT = Moment(0, 1, True)


def best_ms(work: Callable[[], object], seconds: float) -> float:
    """Return the shortest processor time of one call, in ms, of as many as fit in ``seconds`` (at least three)."""
    work()
    began, best, calls = time.perf_counter(), float("inf"), 0
    while calls < 3 or time.perf_counter() - began < seconds:
        start = time.thread_time()
        work()
        best, calls = min(best, time.thread_time() - start), calls + 1
    return best * 1e3


def measure(word: str, tensor: Tensor, seconds: float) -> Figures:
    """Return the figures of one codec."""
    codec, like = codec_of(word), Like(tuple(tensor.shape), tensor.dtype)
    parts = codec.write(tensor, MOMENT).parts
    (read,) = codec.read(parts, like, MOMENT).parts
    size = written_bytes(codec, like)
    encode = best_ms(lambda: codec.write(tensor, MOMENT), seconds)
    decode = best_ms(lambda: codec.read(parts, like, MOMENT), seconds)
    return {
        "codec": full_word(codec),
        "encode_ms": encode,
        "decode_ms": decode,
        "ratio": tensor.nbytes / size,
        "relative_error": float((read - tensor).norm() / tensor.norm()),
        "pays_below_mbit_s": (tensor.nbytes - size) * 8 / 1e3 / (encode + decode),
    }


def failures(figures: Figures) -> Failures:
    """Return what is beyond its bar."""
    if figures["quick"]:
        return []
    return [
        f"{row['codec']} pays below {row['pays_below_mbit_s']:.0f} Mbit/s only, for {size}"
        for size, rows in figures["sizes"].items()
        for row in rows
        if row["pays_below_mbit_s"] < LINK_MBIT_S and (size == "16 MB" or row["codec"] in SMALL_TOO)
    ]


def main() -> int:
    """Measure, print, and return the exit status."""
    asked = parser(__doc__).parse_args()
    one_thread()
    sizes: dict[str, list[Figures]] = {}
    for size, shape in SHAPES.items():
        tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu()
        print(
            f"{size:22} {'encode ms':>10} {'decode ms':>10} {'ratio':>7} {'error':>9} {'pays below Mbit/s':>18}"
        )
        sizes[size] = []
        for word in WORDS:
            row = measure(word, tensor, 0.01 if asked.quick else 0.5)
            sizes[size].append(row)
            print(
                f"{row['codec']:22} {row['encode_ms']:10.3f} {row['decode_ms']:10.3f} {row['ratio']:7.2f} "
                f"{row['relative_error']:9.1e} {row['pays_below_mbit_s']:18,.0f}",
                flush=True,
            )
    figures = {"sizes": sizes, "quick": asked.quick}
    return finish("codec_costs", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
