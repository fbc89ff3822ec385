"""The command of each benchmark of NoPeek: measure, or only draw, or only write the table of a page."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable

import measuring
from measuring import Failures, Figures

from . import real_images
from .kept_runs import RESULTS
from .nopeek_shown import table
from .nopeek_trial import QUICK, Data, Trial, measure, picture
from .pages import put

__all__ = ["ended"]

Load = Callable[[argparse.Namespace, int, int], Data]


def ended(
    doc: str | None,
    dataset: str,
    trial: Trial,
    load: Load,
    failures: Callable[[Figures], Failures],
    more: Callable[[Data, bool], Figures] | None = None,
) -> int:
    """Do what the command line says and return the exit status.

    Args:
        doc: What the benchmark says of itself.
        dataset: Whose file is needed, as an argument is named.
        trial: What is trained and attacked.
        load: Makes images of the arguments and of numbers of training and test rows.
        failures: Says what is beyond its bar.
        more: Measures further figures with the images, quickly or not.
    """
    parser = measuring.parser(doc)
    real_images.wanted(parser, dataset)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--picture", action="store_true", help="only draw what decoders make of six images")
    parser.add_argument("--table", action="store_true", help="only write the table, from the results")
    asked = parser.parse_args()
    if asked.table:
        figures = json.loads((RESULTS / f"{trial.name}.json").read_text(encoding="utf-8"))["figures"]
        put("defences.md", trial.name, table(figures, trial.task))
        return 0
    measuring.one_thread()
    if asked.quick:
        trial = dataclasses.replace(trial, settings=trial.settings | QUICK)
    data = load(asked, trial.settings["rows"], trial.settings["test"])
    if asked.picture:
        picture(trial, data)
        return 0
    figures = measure(trial, data, asked.seeds, quick=asked.quick)
    if more is not None:
        figures |= more(data, asked.quick)
    return measuring.finish(trial.name, figures, failures(figures))
