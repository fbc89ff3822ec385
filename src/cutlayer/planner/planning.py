"""The plan of a network: every cut, every way of training it, the best of them, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import StudyError, nearest
from ..graph.coding import Choice
from ..graph.parts import LossFunction
from ..runtime.optim import OptimizerSpec
from ..runtime.optim import optimizer as optimizer_of
from .choosing import GOALS, Limits, choose, promising, why
from .events import Line
from .federated import METHODS, rival
from .offers import Offer, offer
from .pace import World
from .places import TOPOLOGIES, Network, Place
from .probing import leakages, speed
from .scale import at_scale
from .setting import LOCAL, SCHEDULES, Setting, schedule_of

if TYPE_CHECKING:
    from ..metering.table import Table

__all__ = ["Plan", "plan", "plan_network"]

_FASTER = 50.0
"""How many times as quick as this machine's one thread a server is taken to be where nobody says."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What each way of training a network costs.

    Attributes:
        offers: Ways of splitting: every cut by the first schedule, the best cut by all, and every cut as is advised.
        rivals: Federated averaging and large-batch SGD.
        best: The offer that is advised; None if none keeps the limits.
        text: Why, in a paragraph.
        setting: What it was planned for.
        limits: What a client may be asked.
        goal: What is wanted least.
    """

    offers: tuple[Offer, ...]
    rivals: tuple[Offer, ...]
    best: Offer | None
    text: str
    setting: Setting
    limits: Limits
    goal: str

    def table(self) -> Table:
        """Return every cut by the schedule that is advised; by the first one if none is."""
        from .showing import cuts_table

        return cuts_table(self)

    def ways(self) -> Table:
        """Return topologies and schedules at the best cut, beside federated averaging and large-batch SGD."""
        from .showing import ways_table

        return ways_table(self)

    def json(self) -> str:
        """Return everything as JSON; numbers that were not measured are null."""
        return json.dumps(self.record(), indent=2, allow_nan=False)

    def record(self) -> dict[str, Any]:
        """Return everything as plain values."""
        setting = asdict(replace(self.setting, codecs=None, optimizer=optimizer_of("SGD", lr=0.1)))
        setting["codecs"] = str(self.setting.codecs or "exact")
        setting["optimizer"] = repr(self.setting.optimizer)
        return {
            "advised": None if self.best is None else _row(self.best),
            "why": self.text,
            "goal": self.goal,
            "limits": self.limits.given,
            "setting": setting,
            "offers": [_row(one) for one in self.offers],
            "others": [_row(one) for one in self.rivals],
        }

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw the trade-off as SVG and PNG into ``folder`` and return the files."""
        from .drawing import save_trade_off

        return save_trade_off(self, Path(folder))


def _row(one: Offer) -> dict[str, Any]:
    row = asdict(one)
    for name in ("client_bytes", "epoch_bytes", "epoch_up_bytes", "epoch_down_bytes", "sample_up_bytes",
                 "sample_down_bytes"):  # fmt: skip
        row[name] = getattr(one, name)
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in row.items()}


def plan(
    model: nn.Module,
    example: Tensor | Sequence[Tensor],
    *,
    clients: int = 10,
    rows: int = 50_000,
    test_rows: int = 0,
    batch_size: int = 64,
    epochs: int = 1,
    optimizer: OptimizerSpec | None = None,
    codecs: Choice = None,
    labels: Tensor | None = None,
    loss: LossFunction | None = None,
    share_labels: bool = True,
    local_epochs: int = 1,
    client_flops: float | None = None,
    server_flops: float | None = None,
    line: Line | None = None,
    server_line: Line | None = None,
    spread: float = 0.0,
    topologies: Sequence[str] | None = None,
    schedules: Sequence[str] = tuple(SCHEDULES),
    every: bool = False,
    limits: Limits | None = None,
    goal: str = "time",
    leak: bool = True,
) -> Plan:
    """Work out what it costs to train ``model``, cut anywhere, before anything is trained.

    Args:
        model: Any module; it is not changed.
        example: Rows of its input [B, ...], or a tuple of its inputs; from 8 rows on, leakage is measured with them.
        clients: How many.
        rows: Training rows of all clients together, dealt out evenly.
        test_rows: Rows that are measured after each epoch.
        batch_size: Rows in a batch.
        epochs: How many.
        optimizer: Whose slots are kept and handed over; SGD with momentum unless given.
        codecs: How what crosses is written.
        labels: Rows of labels, to know their type; whole numbers unless given.
        loss: Cross-entropy unless given.
        share_labels: Whether clients send labels to the server, where that has the loss.
        local_epochs: Epochs of federated averaging between averages.
        client_flops: FLOP a second of a client; as this machine does unless given.
        server_flops: FLOP a second of the server; 50 times this machine's unless given.
        line: A client's line: 100 Mbit/s and 10 ms unless given.
        server_line: The server's: 1000 Mbit/s unless given.
        spread: How much clients differ, see `World`.
        topologies: Of ``vanilla``, ``u_shaped``, ``multi_hop``: only these are worked out, and one of them is advised.
            Unless given: vanilla at every cut, all at the best.
        schedules: The first is worked out at every cut, all of them at the best, and what is best there at every cut
            again, until that changes nothing.
        every: Work out every topology and schedule at every cut.
        limits: What a client may be asked at most.
        goal: What is wanted least: ``time``, ``bytes``, ``flops``, ``memory`` or ``leakage``.
        leak: Whether the example is of real rows, with which leakage is measured.

    Returns:
        All of it, with the best and why.

    Raises:
        CutlayerError: The model can be cut nowhere, or settings cannot be.
    """
    network = Network(model, example, labels, loss)
    measured = None
    if client_flops is None or server_flops is None:
        measured = speed(model, network.rows)
    world = World(
        client_flops=client_flops or measured or 0.0,
        server_flops=server_flops or _FASTER * (measured or 0.0),
        line=line or Line(),
        server_line=server_line or Line(mbit=1000.0, latency_ms=0.0),
        spread=spread,
    )
    setting = Setting(
        world=world,
        clients=clients,
        rows=rows,
        test_rows=test_rows,
        batch_size=batch_size,
        epochs=epochs,
        optimizer=optimizer or optimizer_of("SGD", lr=0.1, momentum=0.9),
        codecs=codecs,
        local_epochs=local_epochs,
        share_labels=share_labels,
    )
    return plan_network(
        network,
        setting,
        topologies=topologies,
        schedules=schedules,
        every=every,
        limits=limits or Limits(),
        goal=goal,
        leak=leak,
    )


def plan_network(
    network: Network,
    setting: Setting,
    *,
    topologies: Sequence[str] | None,
    schedules: Sequence[str],
    every: bool,
    limits: Limits,
    goal: str,
    leak: bool = True,
) -> Plan:
    """Return the plan of a network for a setting; see `plan`."""
    allowed = TOPOLOGIES if topologies is None else topologies
    _check(allowed, schedules, setting, goal)
    leaks = leakages(network) if leak else {}
    if limits.leakage is not None and not leaks:
        raise StudyError(
            "leakage is limited, and was not measured",
            todo="plan a study.toml whose data are at hand, or give an example of at least 8 rows",
        )
    at_cuts = allowed if every or topologies is not None else ["vanilla"]
    cuts = [one.name for one in network.candidates]
    ways = _Ways(network, setting, leaks)
    ways.work_out(cuts, at_cuts, schedules if every else schedules[:1])
    if not ways.offers:
        raise StudyError(
            f"the network cannot be cut so: {', '.join(allowed)}",
            todo="name another topology, or another network",
        )
    before = len(ways.offers) if every else 0
    while before < len(ways.offers):
        before = len(ways.offers)
        ways.work_out([promising(ways.offers, limits, goal).first_cut], allowed, schedules)
        one = promising(ways.offers, limits, goal)
        ways.work_out(cuts, [one.method], [one.schedule])
    offers = sorted(ways.offers, key=lambda one: cuts.index(one.first_cut))
    best, place = choose(offers, limits, goal), Place("vanilla", (promising(offers, limits, goal).first_cut,))
    rivals = tuple(
        at_scale(partial(_rival, network=network, method=method, place=place), setting) for method in METHODS
    )
    return Plan(
        offers=tuple(offers),
        rivals=rivals,
        best=best,
        text=why(best, offers, rivals, limits, goal),
        setting=setting,
        limits=limits,
        goal=goal,
    )


def _check(topologies: Sequence[str], schedules: Sequence[str], setting: Setting, goal: str) -> None:
    for topology in topologies:
        if topology not in TOPOLOGIES:
            raise StudyError(f"there is no topology {topology!r}", todo=nearest(topology, TOPOLOGIES))
    if not topologies or not schedules:
        raise StudyError(
            "a plan needs a topology and a schedule", expected=", ".join((*TOPOLOGIES, *SCHEDULES))
        )
    for word in schedules:
        schedule_of(word)
    if goal not in GOALS:
        raise StudyError(f"a plan cannot go for {goal!r}", todo=nearest(goal, list(GOALS)))


class _Ways:
    """The ways of splitting that were worked out, each once."""

    def __init__(self, network: Network, setting: Setting, leaks: dict[str, float]) -> None:
        self.offers: list[Offer] = []
        self._network, self._setting, self._leaks = network, setting, leaks
        self._known: set[tuple[Place, str]] = set()

    def work_out(self, cuts: Sequence[str], topologies: Sequence[str], schedules: Sequence[str]) -> None:
        """Add the offers with their first cut at one of ``cuts`` that are not there yet.

        Schedules for several clients only where there are several.
        """
        words = [word for word in schedules if self._setting.clients > 1 or word == "round_robin"]
        for cut in cuts:
            places = [self._network.place(topology, cut) for topology in topologies]
            for place in filter(None, places):
                for word in words:
                    if (place, word) not in self._known and self._can(place, word):
                        self._known.add((place, word))
                        self.offers.append(at_scale(self._offer(cut, place, word), self._setting))

    def _can(self, place: Place, word: str) -> bool:
        return word != LOCAL or self._network.learns_alone(place, self._setting.share_labels)

    def _offer(self, cut: str, place: Place, word: str) -> Callable[[Setting], Offer]:
        leak = self._leaks.get(cut, math.nan)
        return partial(_offer, network=self._network, place=place, word=word, leakage=leak)


def _offer(setting: Setting, *, network: Network, place: Place, word: str, leakage: float) -> Offer:
    return offer(network, place, word, schedule_of(word), setting, leakage)


def _rival(setting: Setting, *, network: Network, method: str, place: Place) -> Offer:
    return rival(network, method, setting, place)
