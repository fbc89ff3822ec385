"""Area under the ROC curve over the folds of a cross-validation, of several trainings beside each other."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from measuring import Figures

from cutlayer.data import Source

__all__ = ["over_folds", "show"]


def over_folds(folds: Sequence[Source], train: Callable[[Source], dict[str, float]]) -> Figures:
    """Return mean and spread of each AUC over the folds, and in how many the weights were those of the uncut twin.

    Args:
        folds: The rows, with some held out.
        train: Returns each AUC by name, and under ``equal`` 1 where all weights were equal.
    """
    found: list[dict[str, float]] = []
    for number, fold in enumerate(folds, 1):
        found.append(train(fold))
        told = "  ".join(f"{name} {auc:.4f}" for name, auc in found[-1].items() if name != "equal")
        print(f"fold {number} of {len(folds)}: {told}", flush=True)
    values = {name: [one[name] for one in found] for name in found[0] if name != "equal"}
    return {
        "auc": {name: statistics.mean(v) for name, v in values.items()},
        "standard_deviation": {
            name: statistics.stdev(v) if len(v) > 1 else 0.0 for name, v in values.items()
        },
        "folds_equal_to_twin": sum(one["equal"] == 1.0 for one in found),
        "folds": len(found),
    }


def show(figures: Figures) -> None:
    """Print the mean of each AUC, the greatest last."""
    for name, auc in sorted(figures["auc"].items(), key=lambda pair: pair[1]):
        print(f"{name:28} {auc:.4f}  (standard deviation {figures['standard_deviation'][name]:.4f})")
    print(f"equal to the uncut twin in {figures['folds_equal_to_twin']} of {figures['folds']} folds")
