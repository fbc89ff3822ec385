"""The figures as tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

TITLES = {
    "w": "Workload W: 784 -> 256 | 256 -> 10, batch 64, 1,000 steps",
    "breast": "FATE's example, breast cancer, 10 + 20 columns, 569 rows, batch 256, 50 epochs",
    "cifar10": "NVFLARE's CIFAR-10 SplitNN, batch 64, float16 over the cut (TorchSlicer and FATE: float32)",
    "resnet18": "TorchSlicer's example, ResNet-18 on CIFAR-10, halved behind its second stage, batch 64",
}
HEADS = (
    "", "steps/s", "of cutlayer's", "s to first step", "s in all", "KB a step", "accuracy", "MB (processes)", "lines",
)  # fmt: skip


def tables(figures: Mapping[str, Any]) -> str:
    """Return a table for each workload."""
    parts = [f"{TITLES.get(work, work)}:\n\n{_table(sides)}" for work, sides in figures["workloads"].items()]
    return "\n\n".join(parts)


def page_part(results: Mapping[str, Any]) -> str:
    """Return when, where and under what load the figures were taken, and the tables.

    Args:
        results: All that ``results/peers.json`` holds.
    """
    figures, machine = results["figures"], results["hardware"]
    load = machine["load_average_before"][0]
    taken = (
        f"Taken {results['date'][:10]} on {machine['processor']}, {machine['cores']} cores, with a load average "
        f"of {load:g} before the first run; rounds of W: {figures['rounds']}, whose speeds lay within "
        f"{_apart(figures['workloads']['w']):.0%} of their side's median."
    )
    if load >= machine["cores"]:
        taken += " **The machine was busy with other work: orders of magnitude hold, figures do not.**"
    failed = "".join(
        f"\n\nNo figures: {name}, which did not end well or in time." for name in figures["failed"]
    )
    return f"{taken}\n\n{tables(figures)}{failed}"


def _apart(sides: Mapping[str, Any]) -> float:
    """Return by how much of its side's median a round's speed was off at most."""
    medians = [(one["steps_per_second"], one["speeds_of_rounds"]) for one in sides.values()]
    return float(max(abs(speed / median - 1) for median, speeds in medians for speed in speeds))


def place(results: Mapping[str, Any], page: Path) -> None:
    """Put the tables where ``page`` has room for them, between two comments."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{page_part(results)}\n{END}{after}", encoding="utf-8")


def _table(sides: Mapping[str, Mapping[str, Any]]) -> str:
    ours = sides.get("cutlayer", {}).get("steps_per_second")
    lines = [_row(HEADS), _row(["---", *["--:"] * (len(HEADS) - 1)])]
    return "\n".join([*lines, *(_row(_cells(name, told, ours)) for name, told in sides.items())])


def _cells(name: str, told: Mapping[str, Any], ours: float | None) -> list[str]:
    traffic = told.get("loopback_bytes_per_step")
    return [
        name,
        f"{told['steps_per_second']:.3g}",
        f"{told['steps_per_second'] / ours:.2g}" if ours else "–",
        f"{told['start_up_seconds']:.1f}",
        f"{told['whole_seconds']:.0f}",
        f"{traffic / 1000:.0f}" if traffic else "–",
        f"{told['accuracy']:.3f}" if "accuracy" in told else "–",
        f"{told['memory_bytes'] / 1e6:.0f} ({told['processes']:.0f})",
        f"{told['lines']}",
    ]


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
