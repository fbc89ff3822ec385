"""What five institutions gain by joining, each with other columns of the same people.

NHANES 2017-18 (the package ``nhanes``): 5,098 adults, 16.4 % with diabetes; registry, clinic, laboratory,
nutrition and questionnaire hold their own columns, a study centre the diagnosis. The study is that of
``cutlayer demo``: each institution turns its columns into 16 numbers a person, the centre joins them. In
5-fold cross-validation the area under the ROC curve on held-out people is told for all five joined, for
each institution alone (the same study with one institution), for the uncut twin on pooled data, and for
scikit-learn's logistic regression (C = 0.01) on all columns pooled. Columns are prepared (gaps filled, scaled, one
column for each word) from the fold's training people only.

Ends with 1 if the mean AUC joined is below 0.82, if any institution alone comes closer to it than 0.03, or if in
any fold the weights differ from the twin's in any bit.
"""

from __future__ import annotations

import sys

import measuring
import numpy as np
import torch
from common.folds import over_folds, show
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import cutlayer as cl
from cutlayer.data import NHANES_INSTITUTIONS, Holdings, Source
from cutlayer.demo import diabetes_study

MIN_AUC, MIN_GAIN = 0.82, 0.03
CENTRE = "study-centre"


def logistic_regression(people: Holdings) -> float:
    """Return the AUC of logistic regression on all institutions' columns side by side."""
    pooled = {}
    for split in ("train", "test"):
        centre = people.party(CENTRE).splits[split]
        ids, labels = centre.ids, centre.batch(torch.arange(len(centre)))["y"].numpy()
        columns = []
        for name in NHANES_INSTITUTIONS:
            records = people.party(name).splits[split]
            columns.append(records.batch(records.rows_of(ids))["x"].numpy())
        pooled[split] = np.concatenate(columns, axis=1), labels
    model = LogisticRegression(C=0.01, max_iter=2000).fit(*pooled["train"])
    x, y = pooled["test"]
    return float(roc_auc_score(y, model.predict_proba(x)[:, 1]))


def fold_figures(fold: Source) -> dict[str, float]:
    """Return each AUC on the people that ``fold`` holds out, and whether weights are equal."""
    everyone = fold.split_columns(NHANES_INSTITUTIONS, labels=CENTRE)
    study = diabetes_study(everyone)
    run, twin = study.simulate(everyone), study.central(everyone)
    figures = {
        "joined": run.metrics("test")["auc"],
        "central twin": twin.metrics("test")["loss"]["auc"],
        "logistic regression, pooled": logistic_regression(everyone),
        "equal": float(run.equals(twin)),
    }
    for name, columns in NHANES_INSTITUTIONS.items():
        single = fold.split_columns({name: columns}, labels=CENTRE)
        figures[name] = diabetes_study(single, name=f"{name} alone").simulate(single).metrics("test")["auc"]
    return figures


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    auc = figures["auc"]
    found = []
    if auc["joined"] < MIN_AUC:
        found.append(f"AUC {auc['joined']:.3f} joined, at least {MIN_AUC} is wanted")
    best = figures["best_alone"]
    if auc["joined"] - auc[best] < MIN_GAIN:
        found.append(
            f"{best} alone has {auc[best]:.3f}, joined {auc['joined']:.3f}: less than {MIN_GAIN} between"
        )
    if figures["folds_equal_to_twin"] < figures["folds"]:
        found.append("weights differ from the uncut twin's")
    return found


def main() -> int:
    """Train, print, and return the exit status."""
    arguments = measuring.parser(__doc__).parse_args()
    measuring.one_thread()
    folds = cl.data.nhanes(test=0).folds(5)
    figures = over_folds(list(folds)[: 1 if arguments.quick else 5], fold_figures)
    figures |= {
        "best_alone": max(NHANES_INSTITUTIONS, key=figures["auc"].__getitem__),
        "quick": arguments.quick,
    }
    show(figures)
    return measuring.finish("nhanes_auc", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
