"""Which baselines there are, as settings: FedAvg, FedProx, large-batch synchronous SGD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import StudyError, nearest
from ..seeds import generator

__all__ = ["METHODS", "FedAvg", "FedProx", "LargeBatch", "Method", "method_of"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """What all baselines have in common.

    Attributes:
        rounds: How many rounds; after each, the network is measured.
        sample: How many clients take part in a round: a number (an int), or a share of all (a float up to 1.0).
        rate: Learning rates are those of the study's optimizer times this.
    """

    rounds: int = 1
    sample: float = 1.0
    rate: float = 1.0

    word = ""
    title = ""

    def __post_init__(self) -> None:
        _at_least(self, "rounds", 1)
        whole = isinstance(self.sample, int)
        if isinstance(self.sample, bool) or not (self.sample >= 1 if whole else 0 < self.sample <= 1):
            raise StudyError(
                "sample is a number of clients or a share of them",
                got=repr(self.sample),
                expected="a whole number of 1 or more, or a float above 0.0 and up to 1.0",
            )
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise StudyError("rate is what learning rates are multiplied by, above 0", got=repr(self.rate))

    def describe(self) -> str:
        """Return the settings in one line."""
        words = [self.title, *self._words()]
        if isinstance(self.sample, int):
            words.append(f"{self.sample} clients a round")
        elif self.sample != 1.0:
            words.append(f"{self.sample:g} of the clients a round")
        return ", ".join([*words, *([f"learning rates times {self.rate:g}"] if self.rate != 1.0 else [])])

    def _words(self) -> list[str]:
        return []

    def check(self, clients: int) -> None:
        """Refuse to draw more clients for a round than there are.

        Raises:
            StudyError: There are not as many.
        """
        if isinstance(self.sample, int) and self.sample > clients:
            raise StudyError(
                f"{self.word} would draw {self.sample} clients a round",
                got=f"{clients} clients", todo="name no more, or a share of them, such as 0.1",
            )  # fmt: skip

    def drawn(self, seed: int, clients: Sequence[int], number: int) -> list[int]:
        """Return which of ``clients`` take part in round ``number``, in their order.

        Raises:
            StudyError: There are not as many.
        """
        self.check(len(clients))
        count = self.sample if isinstance(self.sample, int) else math.ceil(self.sample * len(clients))
        order = generator(seed, "baseline", "attendance", number).permutation(len(clients))
        return [clients[index] for index in sorted(order[:count].tolist())]


@dataclass(frozen=True, kw_only=True)
class FedAvg(Method):
    """Federated averaging (McMahan et al. 2017, algorithm 1).

    In each round the clients drawn get the network, train it on their own rows, and send it back; the server averages
    what comes, weighted by the rows that each client has. A client's optimizer begins anew in each round.

    Attributes:
        local_epochs: How often a client goes through its rows in a round.
    """

    local_epochs: int = 1

    word = "fedavg"
    title = "federated averaging"

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, "local_epochs", 1)

    def _words(self) -> list[str]:
        return [f"{self.local_epochs} local epoch{'s' if self.local_epochs > 1 else ''} a round"]


@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvg):
    """Federated averaging whose clients are held near the network that they got (Li et al. 2020, algorithm 2).

    Attributes:
        mu: The weight of the proximal term, mu/2 times the squared distance from the round's network.
    """

    mu: float = 0.01

    word = "fedprox"
    title = "FedProx"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.mu) and self.mu >= 0):
            raise StudyError("mu is a finite number of 0 or more", got=repr(self.mu))

    def _words(self) -> list[str]:
        return [*super()._words(), f"mu {self.mu:g}"]


@dataclass(frozen=True, kw_only=True)
class LargeBatch(Method):
    """Large-batch synchronous SGD (Chen et al. 2016, without backup workers).

    In each step the clients drawn get the network and work out the gradient of a batch of their own; the server
    averages them, weighted by rows, and does the optimizer's step. A client whose epoch is over sits out until the
    others' is.

    Attributes:
        steps: Steps of the server in a round; 0: until every client drawn went once through its rows.
    """

    steps: int = 0

    word = "large-batch"
    title = "large-batch SGD"

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, "steps", 0)

    def _words(self) -> list[str]:
        return [f"{self.steps or 'an epoch of'} steps a round"]


METHODS: dict[str, type[Method]] = {kind.word: kind for kind in (FedAvg, FedProx, LargeBatch)}
"""The baselines by the words of the command line."""


def method_of(word: str) -> type[Method]:
    """Return the baseline of this name.

    Raises:
        StudyError: There is none.
    """
    if word not in METHODS:
        raise StudyError(f"no baseline is named {word!r}", todo=nearest(word, list(METHODS)))
    return METHODS[word]


def _at_least(settings: Method, name: str, least: int) -> None:
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyError(f"{name} is a whole number of {least} or more", got=repr(value))
