"""What a plan says, beside what a run of it then takes: FLOPs, bytes, time.

In one process: for several networks, cuts and schedules, and for 2, 8 and 32 clients, a study is rehearsed (two
clients, up to 32 where a server joins their batches; a few batches of noise), what its run will take is told from
that and the program, and the run is done and metered: FLOPs by party and segment, frames and bytes by cut and
direction, and the seconds of training by its log. In turn, several times; the median of the errors counts.

Between hosts: 2, 8 and 32 clients with keys of their own train 784-64-10 with a server over mutual TLS and one link
of 80 ms and 10 Mbit/s (two_hosts.py: network namespaces of this machine; needs Linux and root, and is left out
elsewhere), and the same program is gone through event by event, with that link and the arithmetic of a rehearsal.
Seconds of an epoch are compared (the median of all but the first), and bytes and FLOPs of all parties' logs. TCP's
congestion control is `reno`, since one that paces, as BBR does, keeps each of several clients at the rate that it had
last; the events know nothing of that. Likewise the steps of two parties that network_wan.py measured and keeps in
`results/network_wan.json`.

Ends with 1 if FLOPs or bytes differ at all, or a time by more than 15 %.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import measuring
import torch
from common import far_crowd
from two_hosts import why_not

import cutlayer as cl
from cutlayer.metering.events import Computed, Event, Traffic
from cutlayer.planner import Forecast, Line
from cutlayer.planner.events import Timeline
from cutlayer.planner.pace import moves
from cutlayer.planner.rehearsal import Kind, Rehearsed, rehearse
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.schedules import Schedule

MAX_ERROR = 0.15
KEPT = Path(__file__).parent / "results" / "network_wan.json"


@dataclass(frozen=True)
class Case:
    """What is planned and run.

    Attributes:
        network: Makes the network.
        cuts: Where it is cut: one, or two for U-shaped.
        shape: One row.
        schedule: When.
        rows: Of each client, to train on; a quarter of them are measured.
        codec: How what crosses is written.
        clients: How many.
        batches: Of each client in an epoch of the rehearsal.
    """

    network: Callable[[], torch.nn.Module]
    cuts: tuple[str, ...]
    shape: tuple[int, ...]
    schedule: Schedule
    rows: int
    codec: str | None = None
    clients: int = 4
    batches: int = 8


def mlp() -> torch.nn.Module:
    """Return a small network."""
    return cl.networks.mlp((784, 256, 128, 10))


CASES = {
    "mlp": Case(mlp, ("activation1",), (784,), cl.RoundRobin(), 2560),
    "mlp, 8 bits": Case(mlp, ("activation1",), (784,), cl.RoundRobin(), 2560, "int8"),
    "lenet, splitfed": Case(cl.networks.lenet, ("pool1",), (1, 28, 28), cl.SplitFed(), 512),
    "lenet, u-shaped": Case(cl.networks.lenet, ("pool1", "relu4"), (1, 28, 28), cl.RoundRobin(), 512),
    "lenet, parallel": Case(cl.networks.lenet, ("pool2",), (1, 28, 28), cl.Parallel(), 512),
    "vgg11": Case(cl.networks.vgg11, ("features.5",), (3, 32, 32), cl.RoundRobin(), 128, batches=2),
    "resnet18": Case(cl.networks.resnet18, ("layer1",), (3, 16, 16), cl.RoundRobin(), 128, batches=2),
} | {
    f"{clients} clients, {schedule.name}": Case(
        mlp, ("activation1",), (784,), schedule, 8 * 32, clients=clients
    )
    for schedule in (cl.RoundRobin(), cl.SplitFed(), cl.Parallel())
    for clients in (2, 8, 32)
}
QUICK = ("mlp", "lenet, splitfed")
CROWDS = {f"{clients} clients, {word}": (clients, word) for word in ("round_robin", "splitfed1", "parallel")
          for clients in (2, 8, 32)}  # fmt: skip
QUICK_CROWDS = ("2 clients, round_robin",)


def prepared(case: Case, quick: bool) -> tuple[cl.Study, cl.data.Holdings]:
    """Return study and data of a case."""
    rows, draw = case.clients * (32 if quick else case.rows), torch.Generator().manual_seed(0)
    x = torch.randn(rows + rows // 4, *case.shape, generator=draw)
    y = torch.randint(10, (len(x),), generator=draw)
    people = cl.data.arrays(x[:rows], y[:rows], x[rows:], y[rows:]).split_rows(case.clients)
    made = (
        cl.vanilla(case.network(), case.cuts[0], clients=people, codecs=case.codec)
        if len(case.cuts) == 1
        else cl.u_shaped(case.network(), (case.cuts[0], case.cuts[1]), clients=people, codecs=case.codec)
    )
    optimizer = cl.optim.SGD(lr=0.001, momentum=0.9)
    study = cl.Study(
        graph=made, schedule=case.schedule, optimizer=optimizer, batch_size=32, epochs=2, metrics=["loss"]
    )
    return study, people


def counted(events: Iterable[Event], kind: type[Event]) -> Counter[tuple[object, ...]]:
    """Return FLOPs by party and segment, or frames and bytes by cut, over the whole training."""
    sums: Counter[tuple[object, ...]] = Counter()
    for e in events:
        if isinstance(e, Computed) and kind is Computed:
            sums[e.party, e.segment, e.direction] += e.flops
        elif isinstance(e, Traffic) and kind is Traffic:
            sums[e.phase, e.cut, e.content, e.sender, e.receiver, "frames"] += e.frames
            sums[e.phase, e.cut, e.content, e.sender, e.receiver, "bytes"] += e.frame_bytes
    return sums


def compared(case: Case, rounds: int, quick: bool) -> measuring.Figures:
    """Return what was told beside what was metered."""
    study, people = prepared(case, quick)
    rows = Cohorts(study.graph, people).rows
    told, took, found = [], [], []
    for _ in range(rounds):
        pace = rehearse(study, batches=1 if quick else case.batches, rows=rows[0]["test"])
        told.append(pace.simulation(Forecast(study, rows)))
        run = study.simulate(people)
        found = run.events
        took.append(measuring.training_seconds(run))
    foretold = Forecast(study, rows).events()
    return {
        "flops_equal": counted(found, Computed) == counted(foretold, Computed),
        "bytes_equal": counted(found, Traffic) == counted(foretold, Traffic),
        "seconds_told": statistics.median(told),
        "seconds_taken": statistics.median(took),
        "error": statistics.median(a / b - 1 for a, b in zip(told, took, strict=True)),
    }


def over_a_link(units: int, kept: measuring.Figures, link: measuring.Figures) -> measuring.Figures:
    """Return the milliseconds of a step between two hosts, event by event, beside those that were measured."""
    example = {"x": torch.zeros(2, 784), "y": torch.zeros(2, dtype=torch.long)}
    graph = cl.vanilla(cl.networks.mlp((784, units, 10)), "activation1", clients=1, example=example)
    study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=64, evaluate=())
    forecast, steps = Forecast(study, [{"train": 64 * 50}]), 50
    roles = {"client-0": "client", "server": "server"}
    pace = Rehearsed(
        known={Kind("client", "forward", "head", True): {64: kept["arithmetic_ms"] / 1000}}, roles=roles
    )
    timeline = Timeline({"client-0": Line(mbit=link["mbit_s"], latency_ms=link["rtt_ms"] / 2)})
    for items in forecast.epochs():
        timeline.perform(moves(items, pace))
    told = 1000 * timeline.end / steps
    return {"ms_told": told, "ms_taken": kept["step_ms"], "error": told / kept["step_ms"] - 1}


def between_hosts(
    clients: int, word: str, ends: far_crowd.Ends, asked: argparse.Namespace
) -> measuring.Figures:
    """Return the seconds of an epoch over a link, event by event, beside those that processes took."""
    epochs = 2 if asked.quick else 4
    study, people = far_crowd.study_of(clients, word, epochs)
    forecast = Forecast(study, Cohorts(study.graph, people).rows)
    pace = rehearse(study, batches=2 if asked.quick else 8)
    link = Line(mbit=asked.rate, latency_ms=asked.rtt / 2)
    timeline = Timeline({} if asked.quick else {"server": link}, hub="server")
    done = []
    for items in forecast.epochs(3):
        timeline.perform(moves(items, pace))
        done.append(timeline.clock["server"])
    told = done[-1] - done[-2]
    found = far_crowd.measured(Path(__file__).name, clients, word, epochs, ends)
    foretold = forecast.events()
    return {
        "flops_equal": counted(found.events, Computed) == counted(foretold, Computed),
        "bytes_equal": counted(found.events, Traffic) == counted(foretold, Traffic),
        "seconds_told": told,
        "seconds_taken": found.epoch_s,
        "error": told / found.epoch_s - 1,
    }


def crowds(asked: argparse.Namespace) -> dict[str, measuring.Figures]:
    """Return the figures of all crowds between hosts; of none where there can be no hosts."""
    if not asked.quick and (reason := why_not()):
        print(f"left out: {reason}", flush=True)
        return {}
    found = {}
    no_link = contextlib.nullcontext(far_crowd.Ends())
    with no_link if asked.quick else far_crowd.link(asked.rtt, asked.rate, asked.control) as ends:
        for name in QUICK_CROWDS if asked.quick else CROWDS:
            found[name] = between_hosts(*CROWDS[name], ends, asked)
            _show(f"{name}, between hosts", found[name])
    return found


def _show(name: str, figures: measuring.Figures) -> None:
    told, took, error = (figures[n] for n in ("seconds_told", "seconds_taken", "error"))
    print(f"{name}: told {told:.3g} s, took {took:.3g} s ({error:+.1%})", flush=True)


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond the bar."""
    found = []
    between = {f"{name}, between hosts": crowd for name, crowd in figures["crowds"].items()}
    for name, case in (figures["cases"] | between).items():
        found += [f"{name}: {what} differ" for what in ("flops", "bytes") if not case[f"{what}_equal"]]
        if abs(case["error"]) > MAX_ERROR and not figures["quick"]:
            found.append(f"{name}: the time told is {case['error']:+.0%} beside the time taken")
    for name, link in figures["links"].items():
        if abs(link["error"]) > MAX_ERROR:
            found.append(f"{name} over a link: the time told is {link['error']:+.0%} beside the time taken")
    return found


def main() -> int:
    """Run it."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--rtt", type=float, default=80.0, metavar="MS")
    parser.add_argument("--rate", type=float, default=10.0, metavar="MBIT/S")
    parser.add_argument(
        "--control",
        default="reno",
        help="TCP's congestion control; one that paces, as bbr, is slower than is told",
    )
    far_crowd.add_arguments(parser)
    asked = parser.parse_args()
    measuring.one_thread()
    if asked.names:
        far_crowd.be_parties(asked)
        return 0
    cases = {}
    for name in QUICK if asked.quick else CASES:
        cases[name] = compared(CASES[name], 1 if asked.quick else 5, asked.quick)
        _show(name, cases[name])
    kept = json.loads(KEPT.read_text(encoding="utf-8"))["figures"]
    links = {
        name: over_a_link(units, kept["works"][name], kept) for name, units in (("w", 256), ("wide", 4096))
    }
    figures = {
        "cases": cases,
        "links": links,
        "crowds": crowds(asked),
        "rtt_ms": asked.rtt,
        "mbit_s": asked.rate,
        "control": asked.control,
        "max_error": MAX_ERROR,
        "quick": asked.quick,
    }
    return measuring.finish("plan_against_meters", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
