"""Cores and memory of a process that is a party: said once, unless somebody said otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

WAITING = """
import json, os
from cutlayer.sessions.process import patient_threads
patient_threads()
print(json.dumps({name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}))
"""

FAULTS = """
import json, resource, threading
import torch
from cutlayer.sessions.process import keep_memory
done = keep_memory() if {keep} else None

network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU(),
    torch.nn.MaxPool2d(2), torch.nn.Conv2d(32, 64, 3, padding=1), torch.nn.ReLU(),
)
images = torch.rand(64, 3, 32, 32)

def work():
    for count in range(20):
        if count == 10:
            seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        network(images).sum().backward()
    seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

seen = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(json.dumps({{"done": done, "faults": seen[1] - seen[0]}}))
"""


def in_a_process(program: str, **environment: str) -> dict[str, object]:
    """Run a program, without what this process was told about threads and memory; return what it prints."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("OMP_", "GOMP_", "MALLOC_"))}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True, timeout=120
    )
    return dict(json.loads(ended.stdout))


def test_threads_soon_sleep() -> None:
    assert in_a_process(WAITING) == {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}


def test_what_the_environment_says_about_waiting_wins() -> None:
    assert in_a_process(WAITING, OMP_WAIT_POLICY="active") == {
        "OMP_WAIT_POLICY": "active",
        "GOMP_SPINCOUNT": None,
    }
    assert in_a_process(WAITING, GOMP_SPINCOUNT="7")["GOMP_SPINCOUNT"] == "7"


@pytest.mark.skipif(
    sys.platform != "linux", reason="the memory of another C library: try it on Linux with glibc"
)
def test_large_pieces_of_memory_are_used_again() -> None:
    kept = in_a_process(FAULTS.format(keep=True))
    given_back = in_a_process(FAULTS.format(keep=False))
    assert kept["done"] is True
    assert int(str(given_back["faults"])) > 20_000  # ten steps, 12,700 pages of 4 KB in each
    assert int(str(kept["faults"])) < int(str(given_back["faults"])) / 10


def test_what_the_environment_says_about_memory_wins() -> None:
    assert in_a_process(FAULTS.format(keep=True), MALLOC_TRIM_THRESHOLD_="131072")["done"] is False
