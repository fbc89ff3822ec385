"""What split learning is compared with: federated averaging, FedProx and large-batch SGD over the uncut network.

They train the network of a study on the same rows, in the same order, with the same optimizer, and are metered and
logged alike.
"""

from .account import Budget, Spent, spent, spent_by_epoch
from .comparing import Comparison, compare
from .curves import Curve, Point, curve_of, training_share
from .methods import METHODS, FedAvg, FedProx, LargeBatch, Method, method_of
from .outcome import Outcome
from .training import train

__all__ = [
    "METHODS",
    "Budget",
    "Comparison",
    "Curve",
    "FedAvg",
    "FedProx",
    "LargeBatch",
    "Method",
    "Outcome",
    "Point",
    "Spent",
    "compare",
    "curve_of",
    "method_of",
    "spent",
    "spent_by_epoch",
    "train",
    "training_share",
]
