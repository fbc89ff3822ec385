"""The sides that benchmarks of the network compare, each in processes of its own: parties, a pair by hand, the loop."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import measuring
import network_pair
from measuring import Failures, Figures, Rounds
from network_pair import HOST, Told, listen, started

__all__ = ["below_the_loop", "beside_the_loop", "loop", "middle", "parties", "raw_pair", "rows_compared"]


def loop(work: str, epochs: int, *more: object) -> float:
    """Return the steps a second of the uncut loop in a process of its own."""
    told = Told()
    with started("network_rivals.py", ["loop", work, "--epochs", epochs, *more]) as process:
        listen(process, told)
    return 1 / told.step_seconds()


def raw_pair(work: str, epochs: int, *more: object) -> float:
    """Return the steps a second of two processes by hand."""
    told, other = Told(), Told()
    common = [work, "--epochs", epochs, *more]
    with started("network_rivals.py", ["server", *common]) as server:
        port = listen(server, told, "port")["port"]
        with started("network_rivals.py", ["client", *common, "--port", port]) as client:
            listen(client, other)
        listen(server, told)
    return 1 / told.step_seconds()


def parties(work: str, epochs: int, keys: Path, actions: list[dict[str, float]]) -> float:
    """Return the steps a second of two parties; note how long their actions take."""
    told = network_pair.two_parties(work, keys, epochs)
    found = {}
    for name, one in told.items():
        for line in one.all("op"):
            if line["epoch"] == epochs - 2:
                found[f"{name} {line['op']}"] = 1e6 * line["seconds"] / line["calls"]
    actions.append(found)
    return 1 / told[HOST].step_seconds()


def middle(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each name."""
    return {name: round(statistics.median(row[name] for row in rows), 1) for name in rows[0]}


def rows_compared(sides: Rounds, **more: object) -> Figures:
    """Return rows a second of the sides ``parties`` and ``loop``, their ratio, and what else is to be told."""
    return {
        "rows_per_second": sides.medians(),
        "ratio_to_loop": measuring.ratio(sides.values["parties"], sides.values["loop"]),
        **more,
    }


def beside_the_loop(
    name: str,
    doc: str | None,
    measure: Callable[[int, int], Figures],
    failures: Callable[[Figures], Failures],
    *,
    rounds: int,
    epochs: int,
) -> int:
    """Be a benchmark that compares parties with the uncut loop: measure, print, and return the exit status.

    Args:
        name: Its name.
        doc: Its docstring.
        measure: Returns the figures of so many rounds of so many epochs, with ``ratio_to_loop``.
        failures: Says what is beyond its bar.
        rounds: Rounds unless the command says otherwise.
        epochs: Epochs, likewise.
    """
    parser = measuring.parser(doc)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--epochs", type=int, default=epochs)
    asked = parser.parse_args()
    print("VGG-11 in two processes, rows a second:", flush=True)
    figures = measure(*(1, 2) if asked.quick else (asked.rounds, asked.epochs)) | {"quick": asked.quick}
    print(f"the parties train on {figures['ratio_to_loop']:.3f} times the rows of the uncut loop")
    return measuring.finish(name, figures, failures(figures))


def below_the_loop(figures: Figures, bar: float) -> Failures:
    """Return that ``ratio_to_loop`` is below ``bar``, if so, in words."""
    reached = figures["ratio_to_loop"]
    missed = reached < bar and not figures["quick"]
    return [f"{reached:.3f} of the uncut loop, at least {bar} is wanted"] if missed else []
