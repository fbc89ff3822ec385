"""What 500 clients cost beside 10 that have the same rows between them.

Round robin: a turn is an epoch of a client's own rows, then its half of the network, with all that the
optimizer keeps, is handed over to the next client as a sealed frame. Both sides have the same total number
of rows, the same tensors in memory, the same batch size and the same number of steps; only the number of
hand-overs differs, 499 against 9 an epoch. Both train two epochs in turn, in one thread; the ratio of the
times per step is the median over the rounds (told beside it: that of the fastest rounds, and of processor
seconds). What a hand-over costs depends on the size of the client's
half, and how much that matters on the steps between two; so several are measured:

- small convolution: the client has 3 -> 16 channels, 3 x 3, ReLU, on 32 x 32 pixels (448 weights, 2 KB);
  500 x 32 rows in batches of 16: 2 steps a turn;
- workload W: the client has 784 -> 256, ReLU (200,960 weights, 804 KB); 500 x 128 rows in batches of 64:
  2 steps a turn;
- workload W with longer turns: 500 x 512 rows in batches of 64: 8 steps a turn.

Memory is told by Linux, in processes of their own with 10 and with 500 clients that train an epoch on the same
rows: the most the process ever held (VmHWM) less what it held when it had made the data (VmRSS). The
difference between both processes, divided by 490, is what a client costs beyond its data; median of
two. glibc keeps freed memory for later, so its threshold is set (MALLOC_MMAP_THRESHOLD_=65536) to give
tensors back when they are freed; the figure without that setting is told beside it.

Ends with 1 if a step with 500 clients takes more than 1.1 times as long as with 10, for the small
convolution, or if a client costs more than 50 KB of memory beyond its data. Workload W is told, not judged: its
client hands over 804 KB, nearly the whole network, after a millisecond's work or eight.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import measuring
import torch
from torch import Tensor, nn

import cutlayer as cl

MAX_RATIO, MAX_KB_PER_CLIENT = 1.1, 50.0
FEW, MANY, EPOCHS = 10, 500, 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, how many rows each of 500 clients has, and the batch size."""

    name: str
    network: Callable[[], nn.Module]
    cut: str
    row: tuple[int, ...]
    rows_per_client: int
    batch: int
    judged: bool = True

    @property
    def steps_per_turn(self) -> int:
        """Steps between two hand-overs with 500 clients."""
        return self.rows_per_client // self.batch


def small_convolution() -> nn.Module:
    """Return a network of two convolutions in the manner of VGG: [B, 3, 32, 32] -> [B, 10]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4),
            nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip


def workload_w() -> nn.Module:
    """Return 784 -> 256 ReLU -> 10."""
    return cl.networks.mlp((784, 256, 10))


W = Case(
    name="workload W", network=workload_w, cut="activation1", row=(784,), rows_per_client=128, batch=64, judged=False
)  # fmt: skip
CASES = (
    Case(
        name="small convolution",
        network=small_convolution,
        cut="1",
        row=(3, 32, 32),
        rows_per_client=32,
        batch=16,
    ),
    W,
    dataclasses.replace(W, name="workload W, longer turns", rows_per_client=512),
)


def pool(case: Case) -> tuple[Tensor, Tensor]:
    """Return all rows and labels."""
    draw = torch.Generator().manual_seed(0)
    rows = MANY * case.rows_per_client
    return torch.rand(rows, *case.row, generator=draw), torch.randint(0, 10, (rows,), generator=draw)


def study_of(
    case: Case, clients: int, x: Tensor, y: Tensor, epochs: int = EPOCHS
) -> tuple[cl.Study, cl.data.Holdings]:
    """Return the study and the holdings of ``clients`` clients, whose rows are views of ``x`` and ``y``."""
    ids = torch.arange(len(x)).numpy()
    each = len(x) // clients
    parties = {}
    for number in range(clients):
        mine = slice(number * each, (number + 1) * each)
        parties[f"client-{number}"] = {"train": cl.data.Records(ids[mine], {"x": x[mine], "y": y[mine]})}
    holdings = cl.data.Holdings.of(parties, dict.fromkeys(parties, "client"))
    study = cl.Study(
        graph=cl.vanilla(case.network(), case.cut, clients=holdings), optimizer=cl.optim.SGD(lr=0.05),
        batch_size=case.batch, epochs=epochs, evaluate=(),
    )  # fmt: skip
    return study, holdings


def compare(case: Case, rounds: int) -> measuring.Figures:
    """Return milliseconds a step with few and with many clients, and their ratio."""
    x, y = pool(case)
    steps = EPOCHS * len(x) // case.batch
    print(f"{case.name}: {len(x):,} rows, {case.steps_per_turn} steps a turn with {MANY} clients; ms a step:")

    def side(clients: int) -> Callable[[], float]:
        study, holdings = study_of(case, clients, x, y)
        return lambda: 1000 * measuring.training_seconds(study.simulate(holdings)) / steps

    found = measuring.in_turn({f"{n} clients": side(n) for n in (FEW, MANY)}, rounds, warm_up=False)
    few, many = found.values.values()
    cpu_few, cpu_many = found.cpu_seconds.values()
    figures = {
        "case": case.name,
        "rows": len(x),
        "batch_size": case.batch,
        "steps_per_turn": case.steps_per_turn,
        "ms_per_step": found.medians(),
        "ratio": measuring.ratio(many, few),
        "ratio_of_fastest": min(many) / min(few),
        "ratio_of_cpu_seconds": measuring.ratio(cpu_many, cpu_few),
        "judged": case.judged,
    }
    more = statistics.median(m - f for m, f in zip(many, few, strict=True)) * case.steps_per_turn
    figures["ms_per_hand_over"] = more * MANY / (MANY - FEW)
    print(f"  {figures['ratio']:.3f} times as long; {figures['ms_per_hand_over']:.3f} ms for a hand-over")
    return figures


# Memory


def status_kb(word: str) -> int:
    """Return a figure of this process in KB, as Linux tells it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{word}:"):
            return int(line.split()[1])
    raise ValueError(f"/proc/self/status says nothing of {word}")


def hold(case: Case, clients: int) -> int:
    """Train with so many clients and print how many KB that took beyond the data; the work of one process."""
    x, y = pool(case)
    study_of(case, FEW, x[: FEW * case.batch], y)  # what is imported on first use is no client's cost
    before = status_kb("VmRSS")
    study, holdings = study_of(case, clients, x, y, epochs=1)
    run = study.simulate(holdings)
    print(status_kb("VmHWM") - before)
    return 0 if run.events else 1


def beyond_data_kb(case: Case, clients: int, *, give_back: bool) -> int:
    """Return what :func:`hold` prints in a process of its own."""
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "65536"} if give_back else {})
    command = [sys.executable, __file__, "--hold", str(clients), "--case", str(CASES.index(case))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return int(done.stdout.splitlines()[-1])


def memory(case: Case, repeats: int) -> measuring.Figures:
    """Return KB beyond the data with few and with many clients, and for each client more."""
    figures: measuring.Figures = {}
    for give_back, what in ((True, "kb_per_client"), (False, "kb_per_client_with_freed_memory")):
        found: dict[int, list[int]] = {FEW: [], MANY: []}
        for number in range(repeats if give_back else 1):
            for clients, values in found.items():
                values.append(beyond_data_kb(case, clients, give_back=give_back))
            now = ", ".join(f"{clients} clients {values[-1]:,} KB" for clients, values in found.items())
            print(
                f"  beyond the data, {'' if give_back else 'with freed memory, '}round {number + 1}: {now}",
                flush=True,
            )
        few, many = (statistics.median(values) for values in found.values())
        figures[what] = (many - few) / (MANY - FEW)
    return figures


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    found = []
    for row in figures["cases"]:
        if row["judged"] and row["ratio"] > MAX_RATIO and not figures["quick"]:
            found.append(f"{row['case']}: {row['ratio']:.3f} times as long, at most {MAX_RATIO} is wanted")
        if row.get("kb_per_client", 0.0) > MAX_KB_PER_CLIENT:
            found.append(
                f"{row['case']}: {row['kb_per_client']:.1f} KB a client, at most {MAX_KB_PER_CLIENT}"
            )
    return found


def arguments() -> argparse.Namespace:
    """Return the arguments; the hidden ones start a process whose memory is measured."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--hold", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--case", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Measure, print, and return the exit status."""
    asked = arguments()
    measuring.one_thread()
    if asked.hold:
        return hold(CASES[asked.case], asked.hold)
    rows = []
    for case in (W,) if asked.quick else CASES:
        row = compare(case, 1 if asked.quick else 3)
        if case.steps_per_turn == 2:
            row |= memory(case, 1 if asked.quick else 2)
            print(f"  {row['kb_per_client']:.1f} KB a client beyond its data")
        rows.append(row)
    figures = {
        "cases": rows, "clients": [FEW, MANY], "epochs": EPOCHS, "max_ratio": MAX_RATIO,
        "max_kb_per_client": MAX_KB_PER_CLIENT, "quick": asked.quick,
    }  # fmt: skip
    return measuring.finish("many_clients", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
