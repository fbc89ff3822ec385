"""What a plan says, beside what a run of it then takes: FLOPs, bytes, time.

For several networks, cuts and schedules a study is rehearsed (two clients, a few batches of noise), what its run will
take is told from that and the study's program, and the run is done and metered: FLOPs by party and segment, frames and
bytes by cut and direction, and the seconds of all actions together, which in a simulation is the time it takes. In
turn, several times; the median of the errors counts.

Over links: steps between two hosts 40 ms and 100 Mbit/s apart, as network_wan.py measured them and keeps them in
`results/network_wan.json`, beside the same steps gone through event by event with the arithmetic measured there.

Ends with 1 if FLOPs or bytes differ at all, or a time by more than 15 %.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import measuring
import torch

import cutlayer as cl
from cutlayer.metering.events import Computed, Event, Traffic, Worked
from cutlayer.planner import Forecast, Line
from cutlayer.planner.events import Timeline
from cutlayer.planner.pace import moves
from cutlayer.planner.rehearsal import Rehearsed, rehearse
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.schedules import Op

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
        rows: Of each of four clients, to train on; a quarter of them are measured.
        codec: How what crosses is written.
    """

    network: Callable[[], torch.nn.Module]
    cuts: tuple[str, ...]
    shape: tuple[int, ...]
    schedule: object
    rows: int
    codec: str | None = None


CASES = {
    "mlp": Case(
        lambda: cl.networks.mlp((784, 256, 128, 10)), ("activation1",), (784,), cl.RoundRobin(), 2560
    ),
    "mlp, 8 bits": Case(
        lambda: cl.networks.mlp((784, 256, 128, 10)), ("activation1",), (784,), cl.RoundRobin(), 2560, "int8"
    ),
    "lenet, splitfed": Case(cl.networks.lenet, ("pool1",), (1, 28, 28), cl.SplitFed(), 512),
    "lenet, u-shaped": Case(cl.networks.lenet, ("pool1", "relu4"), (1, 28, 28), cl.RoundRobin(), 512),
    "lenet, parallel": Case(cl.networks.lenet, ("pool2",), (1, 28, 28), cl.Parallel(), 512),
    "vgg11": Case(cl.networks.vgg11, ("features.5",), (3, 32, 32), cl.RoundRobin(), 128),
    "resnet18": Case(cl.networks.resnet18, ("layer1",), (3, 16, 16), cl.RoundRobin(), 128),
}
QUICK = ("mlp", "lenet, splitfed")


def prepared(case: Case, quick: bool) -> tuple[cl.Study, cl.data.Holdings]:
    """Return study and data of a case."""
    rows, draw = 4 * (32 if quick else case.rows), torch.Generator().manual_seed(0)
    x = torch.randn(rows + rows // 4, *case.shape, generator=draw)
    y = torch.randint(10, (len(x),), generator=draw)
    people = cl.data.arrays(x[:rows], y[:rows], x[rows:], y[rows:]).split_rows(4)
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
        pace = rehearse(study, batches=1 if quick else 4, rows=rows[0]["test"])
        items = [item for epoch in Forecast(study, rows).epochs() for item in epoch]
        told.append(sum(pace.seconds(priced) for item in items for priced in item))
        found = study.simulate(people).events
        took.append(sum(e.seconds for e in found if isinstance(e, Worked)))
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
    arithmetic = {("client", Op.FORWARD): kept["arithmetic_ms"] / 1000}
    pace = Rehearsed(arithmetic, dict.fromkeys(arithmetic, 64.0), roles)
    timeline = Timeline({"client-0": Line(mbit=link["mbit_s"], latency_ms=link["rtt_ms"] / 2)})
    for items in forecast.epochs():
        timeline.perform(moves(items, pace))
    told = 1000 * timeline.end / steps
    return {"ms_told": told, "ms_taken": kept["step_ms"], "error": told / kept["step_ms"] - 1}


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond the bar."""
    found = []
    for name, case in figures["cases"].items():
        found += [f"{name}: {what} differ" for what in ("flops", "bytes") if not case[f"{what}_equal"]]
        if abs(case["error"]) > MAX_ERROR and not figures["quick"]:
            found.append(f"{name}: the time told is {case['error']:+.0%} beside the time taken")
    for name, link in figures["links"].items():
        if abs(link["error"]) > MAX_ERROR:
            found.append(f"{name} over a link: the time told is {link['error']:+.0%} beside the time taken")
    return found


def main() -> int:
    """Run it."""
    asked = measuring.parser(__doc__).parse_args()
    measuring.one_thread()
    cases = {}
    for name in QUICK if asked.quick else CASES:
        cases[name] = compared(CASES[name], 1 if asked.quick else 5, asked.quick)
        print(
            f"{name}: told {cases[name]['seconds_told']:.3g} s, took {cases[name]['seconds_taken']:.3g} s",
            flush=True,
        )
    kept = json.loads(KEPT.read_text(encoding="utf-8"))["figures"]
    links = {
        name: over_a_link(units, kept["works"][name], kept) for name, units in (("w", 256), ("wide", 4096))
    }
    figures = {"cases": cases, "links": links, "max_error": MAX_ERROR, "quick": asked.quick}
    return measuring.finish("plan_against_meters", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
