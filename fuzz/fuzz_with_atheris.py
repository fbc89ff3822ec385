"""One fuzzing process: ``python fuzz_with_atheris.py TARGET [options and folders of libFuzzer]``.

Started by ``run.py``. Only the modules that read bytes are instrumented.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import atheris
import torch

torch.set_num_threads(1)
INSTRUMENTED = [
    "cutlayer.wire",
    "cutlayer.runtime.live",
    "cutlayer.runtime.restoring",
    "cutlayer.sessions.messages",
    "cutlayer.transports.network.envelopes",
]

with atheris.instrument_imports(include=INSTRUMENTED):
    from targets import TARGETS, mend, mend_scalars


def mutate_frame(data: bytes, most: int, seed: int) -> bytes:
    """Change some bytes; nine times of ten the checksum fits afterwards."""
    changed = bytes(atheris.Mutate(data, most))
    return mend(changed) if seed % 10 else changed


def mutate_state(data: bytes, most: int, seed: int) -> bytes:
    """Change the frame, or the JSON of its counters alone."""
    if random.Random(seed).random() < 0.4:
        return mutate_frame(data, most, seed)
    changed = mend_scalars(data, lambda raw: bytes(atheris.Mutate(raw, max(len(raw) * 2, 64))))
    return changed if len(changed) <= most else data


MUTATORS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "frames": mutate_frame,
    "states": mutate_state,
    "control": lambda data, most, seed: bytes(atheris.Mutate(data, most)),
}


if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name], custom_mutator=MUTATORS[name])
    atheris.Fuzz()
