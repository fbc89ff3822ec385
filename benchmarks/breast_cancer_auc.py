"""Two parties with other columns of the same patients: FATE's example of a vertical network.

scikit-learn's breast cancer data, 569 rows. The split and settings of FATE's hetero-NN example: the guest
holds the first 10 columns and the labels, the host the other 20; each has a linear layer to 8 and ReLU, the guest joins
them and ends with a linear layer to 1; Adam with learning rate 0.01, 50 epochs, batches of 256. Columns are
scaled by the fold's training rows. In 5-fold cross-validation the area under the ROC curve on held-out rows is
told for the split network, for its uncut twin on pooled data, and for each party's columns alone.

Ends with 1 if the mean AUC is below 0.99, or if in any fold any weight differs from the twin's in any bit.
"""

from __future__ import annotations

import sys

import measuring
import torch
from common.folds import over_folds, show
from torch import nn

import cutlayer as cl
from cutlayer.data import Source

MIN_AUC = 0.99
COLUMNS = {"guest": slice(0, 10), "host": slice(10, 30)}
EPOCHS, BATCH = 50, 256


def study_of(fold: Source, columns: dict[str, slice]) -> tuple[cl.Study, cl.data.Holdings]:
    """Return the study of the parties that have ``columns``; the guest holds the labels."""
    people = fold.split_columns(columns, labels="guest")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bottoms = {
            name: nn.Sequential(nn.Linear(people.fields(name)["x"].shape[0], 8), nn.ReLU())
            for name in columns
        }
        top = nn.Linear(8 * len(columns), 1)
    graph = cl.vertical(bottoms, top, parties=people, loss=nn.BCEWithLogitsLoss(), server="guest")
    study = cl.Study(
        graph=graph,
        optimizer=cl.optim.Adam(lr=0.01),
        batch_size=BATCH,
        epochs=EPOCHS,
        metrics=("auc", "loss"),
    )
    return study, people


def fold_figures(fold: Source) -> dict[str, float]:
    """Return each AUC on the rows that ``fold`` holds out, and whether weights are equal."""
    study, people = study_of(fold, COLUMNS)
    run, twin = study.simulate(people), study.central(people)
    alone = {f"{name}'s columns alone": {"guest": own} for name, own in COLUMNS.items()}
    figures = {
        "joined": run.metrics("test")["auc"],
        "central twin": twin.metrics("test")["loss"]["auc"],
        "equal": float(run.equals(twin)),
    }
    for name, columns in alone.items():
        single, holdings = study_of(fold, columns)
        figures[name] = single.simulate(holdings).metrics("test")["auc"]
    return figures


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    reached = figures["auc"]["joined"]
    found = [f"AUC {reached:.4f}, at least {MIN_AUC} is wanted"] if reached < MIN_AUC else []
    if figures["folds_equal_to_twin"] < figures["folds"]:
        found.append("weights differ from the uncut twin's")
    return found


def main() -> int:
    """Train, print, and return the exit status."""
    arguments = measuring.parser(__doc__).parse_args()
    measuring.one_thread()
    folds = cl.data.breast_cancer(test=0).folds(5)
    figures = over_folds(list(folds)[: 1 if arguments.quick else 5], fold_figures)
    figures |= {"min_auc": MIN_AUC, "quick": arguments.quick}
    show(figures)
    return measuring.finish("breast_cancer_auc", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
