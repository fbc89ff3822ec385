"""One study: graph, schedule, optimizer, seed; simulate it, compare it with its uncut twin, keep what came out."""

from __future__ import annotations

import datetime
import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .data import Holdings, PartyData, Records
from .errors import ConsentError, DataError, StudyError, nearest
from .graph.split_graph import Joined, SplitGraph
from .metering.events import Began, Event, Noted
from .metering.run_log import RunLog
from .runtime.central import CentralTwin
from .runtime.cohorts import Cohorts
from .runtime.optim import OptimizerSpec
from .runtime.simulate import Progress, Settings, Simulation, batches_of
from .runtime.stopping import EarlyStopping
from .schedules import Calendar, Program, RoundRobin, Schedule, check, program_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .metering.tables import Table

__all__ = ["Run", "Study", "Twin"]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that the parties must agree on, except their data.

    Attributes:
        graph: What is split, and who does what.
        optimizer: One for all segments, or one for each: ``{"head": …, "top": …}``.
        schedule: When; round robin unless given.
        batch_size: Rows in a training batch.
        epochs: How often the training rows are gone through.
        seed: From which every random draw is derived.
        metrics: Names of metrics (``accuracy``, ``auc``, ``f1``, ``loss``, ``mae``, ``rmse``, ``r2``), or none for
            all that fit.
        early_stopping: Keep the best epoch and stop when none is better for a while.
        drop_last: Leave out an epoch's last batch where it is not full.
        shuffle: Draw a new order of the rows in each epoch.
        evaluate: Splits to measure after each epoch, where somebody has them.
        check_finite: Refuse to send NaN or infinity.
        device: Where segments run: ``"cpu"``, ``"cuda"``.
        name: The study's name.

    Raises:
        StudyError: A setting that cannot be.
    """

    graph: SplitGraph
    optimizer: OptimizerSpec | Mapping[str, OptimizerSpec]
    schedule: Schedule = field(default_factory=RoundRobin)
    batch_size: int = 64
    epochs: int = 1
    seed: int = 0
    metrics: Sequence[str] = ()
    early_stopping: EarlyStopping | None = None
    drop_last: bool = False
    shuffle: bool = True
    evaluate: Sequence[str] = ("valid", "test")
    check_finite: bool = True
    device: str = "cpu"
    name: str = "study"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise StudyError("epochs must be at least 1", got=str(self.epochs))
        if self.batch_size < 1:
            raise StudyError("batch_size must be at least 1", got=str(self.batch_size))
        for split in self.evaluate:
            if split not in ("train", "valid", "test"):
                raise StudyError(
                    f"no split is named {split!r}", todo=nearest(split, ["train", "valid", "test"])
                )
        _ = self.optimizers

    @property
    def optimizers(self) -> dict[str, OptimizerSpec]:
        """The optimizer of each segment."""
        if isinstance(self.optimizer, OptimizerSpec):
            return dict.fromkeys(self.graph.order, self.optimizer)
        for name in self.optimizer:
            if name not in self.graph.segments:
                raise StudyError(
                    f"an optimizer is given for the unknown segment {name!r}",
                    todo=nearest(name, self.graph.order),
                )
        trained = [
            n
            for n in self.graph.order
            if any(p.requires_grad for p in self.graph.segments[n].module.parameters())
        ]
        missing = [n for n in trained if n not in self.optimizer]
        if missing:
            raise StudyError(
                f"segment {missing[0]!r} has no optimizer",
                todo="give one optimizer for all, or one for each segment",
            )
        spare = next(iter(self.optimizer.values()))
        return {name: self.optimizer.get(name, spare) for name in self.graph.order}

    @property
    def digest(self) -> str:
        """Hash of all that the parties must agree on: graph, initial weights, schedule, optimizers, seed, settings."""
        words = [
            self.graph.digest,
            self.schedule.describe(),
            repr(self.optimizers),
            repr(self.early_stopping),
        ]
        words += [
            f"{n}={getattr(self, n)}"
            for n in ("batch_size", "epochs", "seed", "drop_last", "shuffle", "evaluate")
        ]
        digest = hashlib.sha256("\n".join(words).encode())
        for name in self.graph.order:
            for key, tensor in self.graph.segments[name].module.state_dict().items():
                digest.update(f"{name}.{key}".encode())
                digest.update(
                    tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                )
        return digest.hexdigest()

    def program(self, holdings: Holdings, epochs: int = 1) -> Program:
        """Return the program of all parties for the first ``epochs`` epochs, checked."""
        calendar = self._calendar(Cohorts(self.graph, holdings))
        splits = tuple(s for s in self.evaluate if any(r.get(s) for r in calendar.rows))
        program = program_of(self.schedule, self.graph, calendar, epochs, splits)
        check(program, self.graph)
        return program

    def describe(self) -> str:
        """Return what the study is, as text."""
        lines = [
            f"Study {self.name}  (digest {self.digest[:16]})",
            "",
            f"schedule    {self.schedule.describe()}",
            f"optimizer   {_optimizer_text(self.optimizer)}",
            f"training    {self.epochs} epochs, batches of {self.batch_size}, seed {self.seed}",
            "",
            self.graph.describe(),
        ]
        return "\n".join(lines)

    def simulate(
        self,
        holdings: Holdings,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Run:
        """Train with all parties in this process; frames are really made and counted.

        Args:
            holdings: Who holds what.
            out: The run's folder, for the log and snapshots; without it nothing is written.
            resume: Go on from the folder's last snapshot.
            on_progress: Called at most ten times a second with where the run stands.

        Returns:
            What came out.

        Raises:
            CutlayerError: Bad data, NaN, a full disk…; what was written before stays whole.
        """
        if resume and out is None:
            raise StudyError("resume needs the folder of the run to go on with", todo="give out=")
        if resume and self.early_stopping is not None:
            raise StudyError(
                "a run with early stopping cannot be resumed", todo="start it anew in another folder"
            )
        cohorts = Cohorts(self.graph, holdings)
        self._check_data(holdings, cohorts)
        calendar = self._calendar(cohorts)
        log = RunLog(Path(out) if out is not None else None, append=resume)
        try:
            self._begin(log, holdings, resume)
            simulation = Simulation(
                self.graph, holdings, self.schedule, calendar, cohorts, self._settings(), log, on_progress
            )
            simulation.train(simulation.resume() if resume else 0)
        finally:
            log.close()
        return Run(self, simulation, log)

    def central(self, holdings: Holdings, *, epochs: int | None = None) -> Twin:
        """Train the uncut network by a plain loop on the pooled data, in the same order, and return it."""
        cohorts = Cohorts(self.graph, holdings)
        calendar = self._calendar(cohorts)
        twin = CentralTwin(self.graph, holdings, cohorts, calendar, self.optimizers, self.seed)
        with torch.random.fork_rng(devices=[]):
            for epoch in range(self.epochs if epochs is None else epochs):
                twin.train_epoch(batches_of(self.schedule, self.graph, calendar, epoch))
        return Twin(twin, tuple(self.metrics))

    def _calendar(self, cohorts: Cohorts) -> Calendar:
        return Calendar(cohorts.rows, self.batch_size, self.seed, self.drop_last, self.shuffle)

    def _settings(self) -> Settings:
        return Settings(
            optimizers=self.optimizers,
            epochs=self.epochs,
            seed=self.seed,
            device=self.device,
            metrics=tuple(self.metrics),
            early_stopping=self.early_stopping,
            check_finite=self.check_finite,
            evaluate=tuple(self.evaluate),
        )

    def _check_data(self, holdings: Holdings, cohorts: Cohorts) -> None:
        """Find out before training what would fail in the middle of it."""
        for role in self.graph.roles.values():
            known = holdings.fields(role.name) if role.name in holdings.roles else {}
            for name, spec in role.fields.items():
                if role.name in holdings.roles and name not in known:
                    raise DataError(
                        f"role {role.name!r} does not hold the field {name!r}",
                        todo=nearest(name, list(known)),
                    )
                if (
                    spec is not None
                    and known
                    and (tuple(known[name].shape), known[name].dtype) != (spec.shape, spec.dtype)
                ):
                    raise DataError(
                        f"field {name!r} of role {role.name!r} has another shape or type than the graph",
                        got=f"{known[name].dtype} {tuple(known[name].shape)}",
                        expected=str(spec),
                        todo="build the graph from these holdings",
                    )
        if not any(rows.get("train") for rows in cohorts.rows):
            raise DataError("nobody has rows to train on", todo="give the split 'train' to the parties")
        left = {rows["train"] % self.batch_size for rows in cohorts.rows if rows.get("train")}
        if 1 in left and not self.drop_last and self.batch_size > 1:
            self._try_one_row(holdings)

    def _try_one_row(self, holdings: Holdings) -> None:
        """An epoch ends with a batch of one row: see whether the network can train on it."""
        import copy

        network = copy.deepcopy(Joined(self.graph)).train()
        try:
            with torch.random.fork_rng(devices=[]):
                network({role: holdings.example(role, 1) for role in holdings.roles})
        except ValueError as error:
            raise StudyError(
                f"an epoch ends with a batch of one row, on which the network cannot train: {error}",
                todo=f"choose another batch_size than {self.batch_size}, or drop_last=True",
            ) from error

    def _begin(self, log: RunLog, holdings: Holdings, resume: bool) -> None:
        if resume:
            began = next((e for e in log.events if isinstance(e, Began)), None)
            if began is not None and began.digest != self.digest:
                raise StudyError(
                    "the run in that folder is of another study",
                    got=f"digest {self.digest[:16]}",
                    expected=f"{began.digest[:16]}",
                    todo="resume with the same study, or start anew in another folder",
                )
            if began is not None:
                return
        graph = self.graph
        log.write(
            Began(
                name=self.name,
                study=graph.name,
                digest=self.digest,
                seed=self.seed,
                epochs=self.epochs,
                batch_size=self.batch_size,
                schedule=self.schedule.describe(),
                optimizer=_optimizer_text(self.optimizer),
                parties={p.name: p.role for p in graph.parties},
                graph=graph.describe(),
                mermaid=graph.mermaid(),
                svg=graph.svg(),
                disclosures={
                    r.parties[0]: graph.disclosure(r.parties[0], self.batch_size)
                    for r in graph.roles.values()
                },
                holdings=holdings.table(),
                versions=_versions(),
                started=datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
            )
        )


class Twin:
    """The uncut network after training."""

    def __init__(self, twin: CentralTwin, metrics: tuple[str, ...]) -> None:
        self._twin = twin
        self._metrics = metrics

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return each segment's parameters and buffers."""
        return self._twin.weights()

    def metrics(self, split: str = "test") -> dict[str, dict[str, float]]:
        """Return the metrics of each loss on ``split``."""
        return self._twin.measure(split, self._metrics)


class Run:
    """What came out of a simulated study."""

    def __init__(self, study: Study, simulation: Simulation, log: RunLog) -> None:
        self.study = study
        self._simulation = simulation
        self._log = log

    @property
    def events(self) -> list[Event]:
        """The run's log."""
        return self._log.events

    @property
    def folder(self) -> Path | None:
        """The run's folder."""
        return self._log.folder

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of each segment's parameters and buffers (in a simulation everything is at hand)."""
        return self._simulation.weights()

    def tables(self) -> dict[str, Table]:
        """Return the run's tables by name: metrics, traffic, compute, parameters, time."""
        from .metering.tables import tables

        return tables(self.events)

    def summary(self) -> RenderableType:
        """Return what a study lead wants to know, to print with Rich."""
        from .report.console import summary

        return summary(self.events)

    def metrics(self, split: str = "test", loss: str | None = None) -> dict[str, float]:
        """Return the last metrics of ``split``, over all label holders (averages are weighted by rows)."""
        from .metering.tables import merged_metrics

        name = loss or next(iter(self.study.graph.losses))
        return merged_metrics(self.events, split, name)

    def equals(self, twin: Twin) -> bool:
        """Return whether every parameter and buffer equals the twin's, bit for bit; the answer is noted in the log."""
        mine, other = self.weights(), twin.weights()
        pairs = [(mine[s][n], t) for s, state in other.items() for n, t in state.items()]
        equal = all(torch.equal(a.cpu(), b.detach().cpu()) for a, b in pairs)
        numbers = sum(t.numel() for _, t in pairs)
        words = "equal to the last bit" if equal else "NOT equal"
        self.note(
            Noted(
                subject="central twin",
                text=f"The {numbers:,} weights of the split network and of its central twin are {words}.",
                figures={"weights": float(numbers), "equal": float(equal)},
            )
        )
        return equal

    def note(self, event: Event) -> None:
        """Add an event to the run's log."""
        if self._log.folder is None:
            self._log.events.append(event)
            return
        log = RunLog(self._log.folder, append=True)
        log.write(event)
        log.close()
        self._log.events = log.events

    def predict(self, x: Any, *, batch_size: int = 256) -> Tensor | dict[str, Tensor]:
        """Return what the joined network predicts, each party running its own part over the same cuts.

        Args:
            x: Rows of the field ``x`` [N, ...]; for several roles with data ``{role: rows}``, for several
                fields ``{role: {field: rows}}``.
            batch_size: Rows at a time.

        Returns:
            Predictions [N, ...], as the loss sees them (logits for cross-entropy); with several losses, by loss.
        """
        holdings = _rows_to_predict(self.study.graph, x, self._simulation)
        found: dict[str, Tensor] = {}
        for by_loss in self._simulation.predict(holdings, "test", batch_size).values():
            found.update(by_loss)
        return next(iter(found.values())) if len(found) == 1 else found

    def save(self, folder: str | Path) -> Path:
        """Write each party's own half to ``folder/<party>/<segment>.safetensors``; halves are never joined here."""
        from .runtime.halves import save_half

        for name in self.study.graph.order:
            party = self._simulation.holder(name)
            save_half(
                Path(folder) / party.name, self.study.graph, party.name, {name: party.live[name].weights()}
            )
        return Path(folder)

    def load(self, folder: str | Path) -> None:
        """Take up the halves that :meth:`save` wrote."""
        from .runtime.halves import load_half

        for name in self.study.graph.order:
            party = self._simulation.holder(name)
            weights = load_half(Path(folder) / party.name, self.study.graph, party.name, name)
            live = party.live[name]
            state = live.state()
            state.update({f"weight/{key}": tensor for key, tensor in weights.items()})
            live.restore(state)

    def export(self, path: str | Path, *, consent: Sequence[str]) -> Path:
        """Write the joined network as one safetensors file, only if every party agrees.

        Args:
            path: The file to write.
            consent: The parties that agreed; all of the graph's must be there.

        Raises:
            ConsentError: A party is missing.
        """
        missing = [p.name for p in self.study.graph.parties if p.name not in consent]
        if missing:
            raise ConsentError(
                "the joined network is written only when every party agrees",
                got=f"no consent of {', '.join(missing)}",
                todo="ask them, or save each party's own half with save()",
            )
        from .runtime.halves import save_joined

        return save_joined(Path(path), self.study.graph, self.weights())

    def plot(self, folder: str | Path | None = None) -> list[Path]:
        """Draw the run's plots as PNG files and return their paths."""
        from .report.plots import save_plots

        where = Path(folder) if folder is not None else self.folder
        if where is None:
            raise StudyError("no folder to draw into", todo="give plot(folder), or simulate(out=…)")
        return list(save_plots(self.events, where / "plots" if folder is None else where).values())

    def report(self) -> Path:
        """Write the self-contained ``report.html`` and its plots into the run's folder and return its path."""
        from .report.html import write_report

        if self.folder is None:
            raise StudyError("the run has no folder", todo="simulate(out=…)")
        return write_report(self.folder)


def _rows_to_predict(graph: SplitGraph, x: Any, simulation: Simulation) -> Holdings:
    from .schedules.steps import data_roles

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
        tensors = {
            name: torch.as_tensor(np.asarray(v) if not isinstance(v, Tensor) else v)
            for name, v in fields.items()
        }
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


def _optimizer_text(optimizer: OptimizerSpec | Mapping[str, OptimizerSpec]) -> str:
    if isinstance(optimizer, OptimizerSpec):
        return repr(optimizer)
    return ", ".join(f"{name}: {spec!r}" for name, spec in optimizer.items())


def _versions() -> dict[str, str]:
    from . import __version__

    return {
        "cutlayer": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }
