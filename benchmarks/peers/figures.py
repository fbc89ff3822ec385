"""What a watched run says in figures; lines that a user writes."""

from __future__ import annotations

import ast
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def figures_of(told: Mapping[str, Any]) -> dict[str, float]:
    """Return speed, start-up time, bytes, memory and accuracy of one run; what it does not tell is left out.

    Speed is that of all epochs but the first, of the only one if there is one, evaluation not counted. A peer tells
    by marks at which step it is; cutlayer tells by its log of events.

    Args:
        told: What watched.py wrote.
    """
    marks = told["marks"]
    spans = _spans_of_log(marks) or _spans_of_marks([mark for mark in marks if "step" in mark])
    measured = spans[1:] or spans
    steps = sum(span["steps"] for span in spans)
    found = {
        "steps": steps,
        "steps_per_second": sum(s["steps"] for s in measured) / sum(s["seconds"] for s in measured),
        "start_up_seconds": spans[0]["began"] - told["began"],
        "whole_seconds": told["ended"] - told["began"],
        "memory_bytes": sum(peak for _, peak in told["peaks"]),
        "largest_process_bytes": max(peak for _, peak in told["peaks"]),
        "processes": len([peak for name, peak in told["peaks"] if name != "sh"]),
    }
    if told["loopback_bytes"]:
        found["loopback_bytes_per_step"] = told["loopback_bytes"] / steps
    accuracy = [_accuracy(mark) for mark in marks if _accuracy(mark) is not None]
    return found | ({"accuracy": accuracy[-1]} if accuracy else {})


def _spans_of_log(events: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    ended = [event for event in events if event.get("event") == "epoch_ended"]
    return [{"began": e["at"] - e["seconds"], "seconds": e["seconds"], "steps": e["steps"]} for e in ended]


def _spans_of_marks(marks: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    pairs = [(a, b) for a, b in itertools.pairwise(marks) if b["step"] > a["step"]]
    return [
        {"began": a["at"], "seconds": b["at"] - a["at"], "steps": b["step"] - a["step"]} for a, b in pairs
    ]


def _accuracy(mark: Mapping[str, Any]) -> float | None:
    return mark.get("accuracy") if "event" not in mark else mark.get("metrics", {}).get("accuracy")


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure over the runs that have it, and of how many runs."""
    names = {name: None for run in runs for name in run}
    return {name: statistics.median(run[name] for run in runs if name in run) for name in names}


def lines_of(path: Path) -> int:
    """Return how many lines a user writes: neither blank, nor comment, nor docstring, nor for marks.

    Args:
        path: A program, a shell script or a study file.
    """
    text = path.read_text(encoding="utf-8")
    skipped = _docstrings(text) if path.suffix == ".py" else set()
    return sum(
        1
        for number, line in enumerate(text.splitlines(), start=1)
        if number not in skipped and line.strip() and not line.strip().startswith("#") and "mark" not in line
    )


def _docstrings(text: str) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.update(range(value.lineno, (value.end_lineno or value.lineno) + 1))
    return found
