"""What came out of a study: weights, tables, metrics, predictions, files."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .data import Holdings, PartyData, Records
from .errors import ConsentError, DataError, StudyError, nearest
from .graph.parts import Role, TensorSpec
from .graph.split_graph import SplitGraph
from .metering.events import Ended, Event, Measured, Noted
from .metering.run_log import RunLog
from .runtime.central import CentralTwin
from .runtime.halves import load_half, save_half, save_joined
from .runtime.simulate import Simulation
from .schedules.steps import data_roles

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .metering.tables import Table

__all__ = ["Logged", "Run", "Twin"]

Weights = Mapping[str, Mapping[str, Tensor]]


class Twin:
    """The uncut network after training.

    Attributes:
        best_epoch: The epoch, counted from 0, that the weights are of: the last that it trained.
    """

    def __init__(self, twin: CentralTwin, metrics: tuple[str, ...], epochs: int) -> None:
        self._twin = twin
        self._metrics = metrics
        self.best_epoch = epochs - 1

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return each segment's parameters and buffers."""
        return self._twin.weights()

    def metrics(self, split: str = "test") -> dict[str, dict[str, float]]:
        """Return the metrics of each loss on ``split``."""
        return self._twin.measure(split, self._metrics)


class Logged:
    """What any training's log answers.

    Attributes:
        graph: What was trained.
    """

    def __init__(self, graph: SplitGraph, log: RunLog) -> None:
        self.graph = graph
        self._log = log

    @property
    def events(self) -> list[Event]:
        """The run's log."""
        return self._log.events

    @property
    def folder(self) -> Path | None:
        """The run's folder."""
        return self._log.folder

    def tables(self) -> dict[str, Table]:
        """Return the run's tables by name: metrics, traffic, compute, parameters, time."""
        from .metering.tables import tables

        return tables(self.events)

    def summary(self) -> RenderableType:
        """Return what a study lead wants to know, to print with Rich."""
        from .report.console import summary

        return summary(self.events)

    def metrics(self, split: str = "test", loss: str | None = None) -> dict[str, float]:
        """Return the last metrics of ``split``, over the rows of all label holders (AUC: the mean weighted by rows).

        Args:
            split: A split that was measured.
            loss: Which loss's, by name; the graph's first if none is given.

        Raises:
            StudyError: Nothing was measured on that split, or there is no such loss.
        """
        from .metering.tables import merged_metrics

        name = loss or next(iter(self.graph.losses))
        if name not in self.graph.losses:
            raise StudyError(f"there is no loss {name!r}", todo=nearest(name, list(self.graph.losses)))
        splits = {e.split for e in self.events if isinstance(e, Measured) and e.loss == name}
        if split not in splits:
            todo = nearest(split, splits) if splits else "give the parties rows of a split to evaluate on"
            raise StudyError(f"nothing was measured on a split {split!r}", todo=todo)
        return merged_metrics(self.events, split, name)

    def plot(self, folder: str | Path | None = None) -> list[Path]:
        """Draw the run's plots as PNG files and return their paths."""
        from .report.plots import save_plots

        where = Path(folder) if folder is not None else self.folder
        if where is None:
            raise StudyError("no folder to draw into", todo="give plot(folder), or out= a folder for the run")
        return list(save_plots(self.events, where / "plots" if folder is None else where).values())

    def report(self) -> Path:
        """Write the self-contained ``report.html`` and its plots into the run's folder and return its path."""
        from .report.html import write_report

        if self.folder is None:
            raise StudyError("the run has no folder", todo="give out= a folder for the run")
        return write_report(self.folder)


class Run(Logged):
    """What came out of a simulated study.

    Attributes:
        graph: What was split.
    """

    def __init__(self, simulation: Simulation, log: RunLog) -> None:
        super().__init__(simulation.graph, log)
        self._simulation = simulation

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 0, that the weights are of: the best with early stopping, else the last."""
        ended = [e for e in self.events if isinstance(e, Ended)]
        return ended[-1].best_epoch if ended else -1

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of each segment's parameters and buffers (in a simulation everything is at hand)."""
        return self._simulation.weights()

    def module(self, segment: str, party: str | None = None) -> nn.Module:
        """Return a copy of a segment's module as it was trained.

        Args:
            segment: The segment's name.
            party: Whose, where each party of a role has its own; the one that has it now unless given.

        Raises:
            StudyError: There is no such segment, or that party has none.
        """
        if segment not in self.graph.segments:
            raise StudyError(f"there is no segment {segment!r}", todo=nearest(segment, self.graph.order))
        if party is not None and party not in self._simulation.parties:
            raise StudyError(
                f"no party is named {party!r}", todo=nearest(party, list(self._simulation.parties))
            )
        holder = self._simulation.holder(segment) if party is None else self._simulation.parties[party]
        if segment not in holder.live:
            raise StudyError(f"party {party!r} has no segment {segment!r} of its own", todo="leave party out")
        return copy.deepcopy(holder.live[segment].module)

    def equals(self, twin: Twin) -> bool:
        """Return whether every parameter and buffer equals the twin's, bit for bit; the answer is noted in the log.

        Raises:
            StudyError: The twin trained for another number of epochs, or is of another network.
        """
        mine, other = self.weights(), twin.weights()
        self._comparable(mine, other, twin.best_epoch)
        pairs = [(mine[s][n], t) for s, state in other.items() for n, t in state.items()]
        differing = sum(int((a.cpu() != b.detach().cpu()).sum()) for a, b in pairs)
        equal = all(torch.equal(a.cpu(), b.detach().cpu()) for a, b in pairs)
        numbers = sum(t.numel() for _, t in pairs)
        words = "equal to the last bit" if equal else "NOT equal"
        self.note(
            Noted(
                subject="central twin",
                text=f"The {numbers:,} weights of the split network and of its central twin are {words}.",
                figures={"weights": float(numbers), "differing": float(differing)},
            )
        )
        return equal

    def _comparable(self, mine: Weights, other: Weights, epoch: int) -> None:
        """Refuse a comparison that could only say no."""
        shapes, theirs = ({(s, n, t.shape) for s in w for n, t in w[s].items()} for w in (mine, other))
        if shapes != theirs:
            raise StudyError(
                "the twin is of another network: its segments have other weights",
                got=", ".join(other),
                expected=", ".join(mine),
                todo="compare with the central twin of the same study",
            )
        if min(epoch, self.best_epoch) >= 0 and epoch != self.best_epoch:
            raise StudyError(
                f"the run's weights are of epoch {self.best_epoch} and the twin's of epoch {epoch}, counted from 0",
                todo="compare with study.central(holdings, epochs=run.best_epoch + 1)",
            )

    def note(self, event: Event) -> None:
        """Add an event to the run's log."""
        self._log.write(event)

    def predict(self, x: Any, *, batch_size: int = 256) -> Tensor | dict[str, Tensor]:
        """Return what the joined network predicts, each party running its own part over the same cuts.

        Args:
            x: Rows of the field ``x`` [N, ...]; for several roles with data ``{role: rows}``, for several
                fields ``{role: {field: rows}}``.
            batch_size: Rows at a time.

        Returns:
            Predictions [N, ...], as the loss sees them (logits for cross-entropy); with several losses, by loss.
        """
        holdings = _rows_to_predict(self.graph, x)
        found: dict[str, Tensor] = {}
        for by_loss in self._simulation.predict(holdings, "test", batch_size).values():
            found.update(by_loss)
        return next(iter(found.values())) if len(found) == 1 else found

    def save(self, folder: str | Path) -> Path:
        """Write each party's own half to ``folder/<party>/<segment>.safetensors``; halves are never joined here."""
        for name in self.graph.order:
            party = self._simulation.holder(name)
            save_half(Path(folder) / party.name, self.graph, party.name, {name: party.live[name].weights()})
        return Path(folder)

    def load(self, folder: str | Path) -> None:
        """Take up the halves that :meth:`save` wrote.

        Raises:
            StudyError: A half is missing, damaged, or of another graph.
        """
        for name in self.graph.order:
            parties = self.graph.roles[self.graph.segments[name].role].parties
            saved = [p for p in parties if (Path(folder) / p / f"{name}.safetensors").is_file()]
            party = saved[0] if saved else parties[0]
            self._simulation.adopt(party, name, load_half(Path(folder) / party, self.graph, party, name))

    def export(self, path: str | Path, *, consent: Sequence[str]) -> Path:
        """Write the joined network as one safetensors file, only if every party agrees.

        Args:
            path: The file to write.
            consent: The parties that agreed; all of the graph's must be there.

        Raises:
            ConsentError: A party is missing.
        """
        missing = [p.name for p in self.graph.parties if p.name not in consent]
        if missing:
            raise ConsentError(
                "the joined network is written only when every party agrees",
                got=f"no consent of {', '.join(missing)}",
                todo="ask them, or save each party's own half with save()",
            )
        return save_joined(Path(path), self.graph, self.weights())


def _rows_to_predict(graph: SplitGraph, x: Any) -> Holdings:
    roles = data_roles(graph, labels=False)
    by_role = x if isinstance(x, Mapping) and set(x) <= set(graph.roles) else {roles[0]: x}
    if set(by_role) != set(roles):
        raise DataError(
            "predict needs rows of every role with data", got=", ".join(by_role), expected=", ".join(roles)
        )
    parties = []
    count = None
    for role, value in by_role.items():
        fields = value if isinstance(value, Mapping) else {"x": value}
        needed = {r for s in graph.segments_of(role) for r in graph.wiring[s.name] if isinstance(r, str)}
        if missing := sorted(needed - set(fields)):
            raise DataError(
                f"predict lacks rows of field {missing[0]!r} of role {role!r}",
                got=", ".join(map(str, fields)),
            )
        tensors = {name: _as_field(fields[name], name, graph.roles[role]) for name in sorted(needed)}
        count = len(next(iter(tensors.values()))) if count is None else count
        if any(len(t) != count for t in tensors.values()):
            raise DataError(
                "the roles' rows differ in number",
                got=f"{role}: {[len(t) for t in tensors.values()]}",
                expected=str(count),
            )
        for party in graph.roles[role].parties:
            parties.append(
                PartyData(name=party, role=role, splits={"test": Records(np.arange(count), tensors)})
            )
    return Holdings(tuple(parties))


def _as_field(values: Any, name: str, role: Role) -> Tensor:
    """Return rows to predict as the graph says the field is; floats are brought to its precision."""
    rows = values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    spec = role.fields.get(name)
    if spec is None:
        return rows
    if rows.is_floating_point() and spec.dtype.is_floating_point:
        rows = rows.to(spec.dtype)
    if not rows.ndim or TensorSpec.of(rows) != spec:
        raise DataError(
            f"the rows of field {name!r} of role {role.name!r} are not like those trained on",
            got=str(TensorSpec.of(rows)) if rows.ndim else "a number",
            expected=str(spec),
        )
    return rows
