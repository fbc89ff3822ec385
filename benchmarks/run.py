"""Run the benchmarks, one after the other, and keep their figures; those that take long only when they are named.

Each runs in a process of its own, with one thread for arithmetic. What it prints is shown; the last line, its
figures, is written to ``results/<name>.json`` with hardware, load, date, commit, command and versions.

Ends with 1 if any benchmark ends beyond its bar; all are run in any case.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
IMAGES = ("CUTLAYER_CIFAR10", "CUTLAYER_HAM10000", "CUTLAYER_MNIST")
PACKAGES = ("cutlayer", "torch", "numpy", "scikit-learn", "pandas")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A script beside this one.

    Attributes:
        name: Its name, without ``.py``.
        bar: What it must reach.
        quick: Arguments that make it quick.
        minutes: How long it takes, where that is so long that it is only run when it is named; else 0.
    """

    name: str
    bar: str
    quick: tuple[str, ...] = ("--quick",)
    minutes: int = 0


BENCHMARKS = (
    Benchmark(name="equality", bar="weights equal to the uncut network's, bit for bit, after at least 50 steps"),
    Benchmark(name="workload_w", bar="at least 0.9 times the steps a second of a loop written by hand"),
    Benchmark(name="vgg11_cifar", bar="at least 0.97 times the steps a second of the uncut loop"),
    Benchmark(name="precision", bar="in bfloat16 and compiled: every bit equal to the central twin's"),
    Benchmark(name="many_clients", bar="500 clients: a step at most 1.1 times as long as with 10, at most 50 KB each"),
    Benchmark(name="many_parties", bar="100 parties: the host's memory grows by at most 5 % from round 1 to 5"),
    Benchmark(name="transport_throughput", bar="16 MB there and back: at least 0.8 of a mutual TLS socket"),
    Benchmark(name="nhanes_auc", bar="AUC at least 0.82 joined, and 0.03 above the best institution alone"),
    Benchmark(name="breast_cancer_auc", bar="AUC at least 0.99, weights equal to the uncut twin's"),
    Benchmark(name="mnist5k_accuracy", bar="at least 95 %, and within 0.1 points of one client with all the data"),
    Benchmark(name="semi_supervised", bar="52 labels: at least 1 point more with rows that have none, as many bytes"),
    Benchmark(name="label_leak", bar="leak AUC by norm at least 0.9 open, at most 0.6 with max-norm or Marvell"),
    Benchmark(
        name="disco", bar="sex found with an AUC of 0.85 open, 0.15 less with a filter, at 0.02 of the task's AUC",
        minutes=5,
    ),
    Benchmark(
        name="hijacking", bar="a hijacker's SSIM at least 0.5; both alarms within 2,000 steps, none of 20 false",
        minutes=30,
    ),
    Benchmark(
        name="frames_overhead", bar="at most 0.5 % beside tensors of 64 KB, at most 20 us beside copying them",
        quick=("--seconds", "0.02"),
    ),
    Benchmark(name="codec_costs", bar="every codec pays at 1 Gbit/s with 16 MB, casts and integers with 66 KB too"),
    Benchmark(name="network_w", bar="at least 0.7 times the steps of a pair by hand without TLS, 0.45 of the loop"),
    Benchmark(name="overlap_vgg", bar="micro-batches in flight: at least the rows a second of the uncut loop"),
    Benchmark(
        name="parallel_schedules",
        bar="a joint step 3 times as quick as 16 steps, SplitFed v1 at most 1.2 times round robin's step",
    ),
    Benchmark(name="network_vgg", bar="at least 0.95 times the rows a second of the uncut loop with the same cores"),
    Benchmark(name="network_bytes", bar="at most 1 % of bytes on the interface beyond the frames (needs root)"),
    Benchmark(name="network_start", bar="at most 1 s beyond the import of PyTorch from join to the first step"),
    Benchmark(name="network_wan", bar="at most 5 % over what latency and rate of the link force (needs root)"),
    Benchmark(
        name="codec_accuracy", bar="8 bits: within 0.5 points of exact; 16 times fewer bytes: within 2 points",
        minutes=35,
    ),
    Benchmark(name="schedules_table", bar="every schedule learns something: a mean AUC above 0.5", minutes=35),
    Benchmark(
        name="nopeek", bar="distance correlation at most 0.48 for 1 point, at most 20 % more of a client's step",
        minutes=20,
    ),
    Benchmark(
        name="nopeek_cifar10", bar="distance correlation at most 0.48 for 1 point, SSIM beyond a guess down by 1.2",
        minutes=8,
    ),
    Benchmark(
        name="nopeek_ham10000", bar="distance correlation at most 0.48 for 1 point of AUC, SSIM as for CIFAR-10",
        minutes=20,
    ),
    Benchmark(
        name="inversion_depth", bar="SSIM at least 0.98 after the first convolution, and falling with depth",
        minutes=10,
    ),
    Benchmark(
        name="seed_experiment", bar="SplitNN beyond 85 % of its final accuracy when FedAvg passes 25 %",
        minutes=60,
    ),
    Benchmark(name="seed_vgg16", bar="a client's compute of the whole network's is what the planner says", minutes=25),
    Benchmark(name="plan_at_scale", bar="times of 4,000 clients, told by smaller crowds, at most 20 % off"),
    Benchmark(
        name="plan_against_meters", bar="FLOPs and bytes of plan and meters equal, times within 15 %", minutes=5,
    ),
    Benchmark(
        name="wan_schedules", bar="overlap and codec: at least 0.9 of what link or arithmetic allow (needs root)",
        minutes=5,
    ),
)  # fmt: skip


def run(benchmark: Benchmark, arguments: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Run one benchmark, show what it prints, and return its exit status and figures (none if it broke)."""
    command = [sys.executable, str(HERE / f"{benchmark.name}.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            if last:
                print(last, end="", flush=True)
            last = line
    try:
        figures: dict[str, Any] = json.loads(last)
    except json.JSONDecodeError:
        print(last)
        return process.returncode or 1, {}
    return process.returncode, figures


def circumstances(benchmark: Benchmark, arguments: Sequence[str]) -> dict[str, Any]:
    """Return what the figures depend on: hardware, load, date, commit, command, versions."""
    images = {name: os.environ.get(name) for name in IMAGES}
    given = [f"{name}={Path(path).name}" for name, path in images.items() if path]
    return {
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "load_average_before": [round(load, 2) for load in os.getloadavg()],
        },
        "date": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
        "commit": commit(),
        "command": " ".join(
            [*given, "OMP_NUM_THREADS=1", "python", f"benchmarks/{benchmark.name}.py", *arguments]
        ),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version(), "platform": platform.platform()},
    }


def processor() -> str:
    """Return the processor's name."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """Return the commit of the source, and whether it was changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../src", "*.py")
    return (git("rev-parse", "HEAD") or "unknown") + (" with changes" if changed else "")


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """Return the benchmarks of these names; all that are not long if there are none."""
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    for name in names:
        if name not in known:
            sys.exit(f"no benchmark is named {name!r}; known: {', '.join(known)}")
    return [known[name] for name in names] or [one for one in BENCHMARKS if not one.minutes]


def parsed() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run (default: all but long ones)")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and their bars")
    parser.add_argument(
        "--quick", action="store_true", help="smoke test: little is measured and nothing is kept"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the figures")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for and return the exit status."""
    asked = parsed()
    if asked.list:
        for benchmark in BENCHMARKS:
            long = f" ({benchmark.minutes} minutes; name it)" if benchmark.minutes else ""
            print(f"{benchmark.name:20} {benchmark.bar}{long}")
        return 0
    statuses = {}
    for benchmark in chosen(asked.names):
        print(f"\n== {benchmark.name}: {benchmark.bar}", flush=True)
        arguments = benchmark.quick if asked.quick else ()
        kept = circumstances(benchmark, arguments)
        began = time.perf_counter()
        statuses[benchmark.name], figures = run(benchmark, arguments)
        print(f"took {time.perf_counter() - began:.0f} s", flush=True)
        if figures and not asked.quick:
            asked.out.mkdir(parents=True, exist_ok=True)
            kept["seconds"] = round(time.perf_counter() - began, 1)
            path = asked.out / f"{benchmark.name}.json"
            path.write_text(json.dumps({"figures": figures, **kept}, indent=2) + "\n")
    print()
    for name, status in statuses.items():
        print(f"{name:20} {'passed' if status == 0 else 'BEYOND ITS BAR'}")
    return 1 if any(statuses.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
