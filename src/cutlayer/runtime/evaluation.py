"""Evaluation at the label holder: predictions and labels, metrics, the verdict, snapshots of the best epoch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import FrameError, NumericsError, StudyError
from ..metering.events import Measured
from ..metering.metrics import measure
from ..schedules.actions import Action
from ..wire import Kind, Message, decode, encode
from .compute import NUMERICS, finite
from .crossing import placed
from .party import LocalParty, Runner
from .stopping import Verdict

__all__ = ["evaluate", "hear", "score", "snapshot", "take_scores", "tell"]


MOST_ROWS = 2**53
"""Fewer rows than this are counted exactly in float64."""


def score(party: LocalParty, action: Action) -> Runner:
    """Note prediction and label of a batch."""
    placed = party.shared.blueprint.graph.losses[action.what]
    _, ref = party.shared.blueprint.predictions[placed.name]

    def run(step: int, what: str) -> None:
        flight = party.flight(step)
        party.scored.setdefault(placed.name, []).append(
            (flight.values[ref].detach(), flight.fields.get(placed.target))
        )

    return run


def take_scores(party: LocalParty, loss: str) -> tuple[Tensor, Tensor | None]:
    """Return all predictions [N, ...] noted for ``loss``, with their labels if there were any, and forget them."""
    pairs = party.scored.pop(loss)
    labels = [label for _, label in pairs if label is not None]
    return torch.cat([p for p, _ in pairs]), torch.cat(labels) if len(labels) == len(pairs) else None


def evaluate(party: LocalParty, action: Action) -> Runner:
    """Work out the metrics over all rows scored."""
    split, _, epoch = action.what.partition("/")

    def run(step: int, what: str) -> None:
        for name in list(party.scored):
            prediction, label = take_scores(party, name)
            if label is None:
                raise StudyError(f"no labels to evaluate loss {name!r} with", party=party.name)
            if not finite(prediction):
                raise NumericsError(
                    f"predictions for {split} hold NaN or infinity",
                    party=party.name,
                    step=step,
                    todo=NUMERICS,
                )
            loss = party.shared.blueprint.graph.losses[name]
            try:
                metrics = measure(loss, prediction, label, party.shared.metrics)
            except StudyError as error:
                raise StudyError(
                    error.what, party=party.name, step=step, got=error.got, todo=error.todo
                ) from error
            party.measured[f"{split}/{name}"] = (len(prediction), metrics)
            party.shared.note(
                Measured(
                    epoch=int(epoch),
                    split=split,
                    loss=name,
                    party=party.name,
                    rows=len(prediction),
                    metrics=metrics,
                )
            )

    return run


def tell(party: LocalParty, action: Action) -> Runner:
    """Send one's metric to the judge, or the verdict to another party."""
    what = action.what.partition("/")[0]
    kind = Kind.STATISTICS if what == "metrics" else Kind.VERDICT

    def run(step: int, name: str) -> None:
        if kind is Kind.STATISTICS:
            numbers = torch.tensor(_own_number(party), dtype=torch.float64)
        else:
            if not party.verdict.of(name):
                _judge(party, name)
            numbers = torch.tensor([party.verdict.stop, party.verdict.best], dtype=torch.float64)
        frame = encode(Message(kind, name, step, (("numbers", numbers),), False))
        party.transport.send(action.peer, frame)
        count = party.shared.meter.traffic("evaluation", what, kind, party.name, action.peer)
        count[0] += 1
        count[1] += len(frame)
        count[2] += numbers.nbytes

    return run


def hear(party: LocalParty, action: Action) -> Runner:
    """Receive a metric, or the verdict."""
    kind = Kind.STATISTICS if action.what.partition("/")[0] == "metrics" else Kind.VERDICT

    def run(step: int, name: str) -> None:
        frame = party.transport.receive(action.peer, party.shared.timeout_s)
        try:
            message = decode(frame)
        except FrameError as error:
            raise placed(error, party, None, step) from error
        tensor = message.tensors[0][1] if message.tensors else None
        known = (message.kind, message.name, message.step) == (kind, name, step)
        if not known or tensor is None or tensor.shape != (2,):
            raise FrameError(
                "not the numbers that the program expects",
                party=party.name,
                step=step,
                got=f"{message.kind.name.lower()} {message.name!r} of step {message.step}",
                expected=repr(name),
            )
        first, second = tensor.tolist()
        if kind is Kind.STATISTICS and 1 <= first < MOST_ROWS and math.isfinite(second):
            party.heard.append((int(first), second))
        elif kind is Kind.VERDICT and {first, second} <= {0.0, 1.0}:
            party.verdict = Verdict(name, stop=bool(first), best=bool(second))
        else:
            raise FrameError(
                "numbers that cannot be",
                party=party.name,
                step=step,
                got=f"{first}, {second} from {action.peer}",
                expected="rows and a finite metric" if kind is Kind.STATISTICS else "two times 0 or 1",
            )

    return run


def snapshot(party: LocalParty, action: Action) -> Runner:
    """Keep a copy of one's own segments if the verdict says that this epoch is the best so far."""

    def run(step: int, what: str) -> None:
        if not party.verdict.of(f"verdict/{what}"):
            _judge(party, f"verdict/{what}")
        if party.verdict.best:
            party.best = {
                name: {key: tensor.detach().clone() for key, tensor in live.state().items()}
                for name, live in party.live.items()
            }

    return run


def _judge(party: LocalParty, name: str) -> None:
    """Decide, from one's own numbers and those heard, whether this epoch is the best and whether to stop."""
    judge = party.shared.judge
    if judge is None:
        raise StudyError("a verdict is due, and nobody judges", party=party.name)
    party.verdict = judge.decide(name, [_own_number(party), *party.heard])
    party.heard.clear()


def _own_number(party: LocalParty) -> tuple[int, float]:
    """Return (rows, value) of the metric that is judged by, over one's own rows."""
    judge = party.shared.judge
    if judge is None or judge.key not in party.measured:
        raise StudyError("there is no metric to judge by", party=party.name)
    rows, metrics = party.measured[judge.key]
    if judge.metric not in metrics:
        raise StudyError(
            f"the metric {judge.metric!r} to judge by was not measured",
            party=party.name,
            got=", ".join(metrics) or "none",
            todo="judge by a metric that fits the task and is listed in metrics",
        )
    return rows, metrics[judge.metric]
