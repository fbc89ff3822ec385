"""One study: graph, schedule, optimizer, seed; simulate it, compare it with its uncut twin, keep what came out."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .data import Holdings
from .data.records import SPLITS
from .errors import StudyError, nearest
from .graph.coding import codecs_text
from .graph.defending import Defences, defences_text
from .graph.digests import weights_digest
from .graph.disclosure import statement
from .graph.reconstruction import roles_at_home
from .graph.split_graph import SplitGraph
from .metering.events import Began, Noted
from .metering.metrics import KNOWN
from .metering.run_log import RunLog
from .metering.versions import versions
from .privacy.accounting import Guarantee, guarantees
from .run import Run, Twin
from .runtime.central import CentralTwin
from .runtime.cohorts import Cohorts
from .runtime.course import Course
from .runtime.devices import check_device, check_devices, devices_of
from .runtime.optim import OptimizerSpec, check_optimizer, optimizer_text
from .runtime.party import Instead
from .runtime.positions import START
from .runtime.precision import check_compiler, compiled_of, forms_of, precision_of
from .runtime.readiness import check_data
from .runtime.simulate import Progress, Settings, Simulation, batches_of
from .runtime.stopping import EarlyStopping
from .schedules import Calendar, Leave, Program, RoundRobin, Schedule, check, program_of
from .schedules.calendar import TRAINED, UNLABELLED
from .schedules.steps import cuts_without_gradient
from .wire import VERSION

__all__ = ["Study"]


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
        check_finite: Stop at NaN or infinity in a loss or a gradient, before it is sent.
        device: Where parties compute: ``"cpu"``, ``"cuda"``; or by party or role, ``{"server": "cuda"}``, and on the
            CPU whoever is not named. Each party's own business, and not part of the digest.
        precision: ``"float32"``, or ``"bfloat16"``: forwards and backwards run in mixed precision (autocast), while
            weights, optimizers, losses and what crosses cuts stay float32; or by segment, ``{"top": "bfloat16"}``.
        compiled: Segments that ``torch.compile`` compiles for training.
        defences: What protects the cuts, in order: for every cut where it fits, ``["nopeek:0.1", cl.MaxNorm()]``, or by
            cut, ``{"head->server": ["nopeek:0.1"]}``; as the graph has them unless given.
        name: The study's name.
        code: SHA-256 (hex) by file name of the model code that was executed, where the study is of a file.

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
    device: str | Mapping[str, str] = "cpu"
    precision: str | Mapping[str, str] = "float32"
    compiled: Sequence[str] = ()
    defences: Defences = None
    name: str = "study"
    code: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_types()
        if self.defences is not None:
            object.__setattr__(self, "graph", self.graph.with_defences(self.defences))
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", None)):
            object.__setattr__(self, name, _whole(name, getattr(self, name), least))
        for name in self.metrics:
            if name not in KNOWN:
                raise StudyError(f"no metric is named {name!r}", todo=nearest(str(name), KNOWN))
        for split in self.evaluate:
            if split not in SPLITS:
                raise StudyError(f"no split is named {split!r}", todo=nearest(str(split), SPLITS))
        if self.unlabelled and not roles_at_home(self.graph):
            raise StudyError(
                "the schedule trains on unlabelled rows, and no party has a decoder to learn from them with",
                todo="add one: cutlayer.with_decoder(graph, decoder, alpha=1.0)",
            )
        devices = devices_of(self.device, self.graph)
        if isinstance(self.device, str):
            check_device(self.device)  # where each has its own, not all of them need be here
        object.__setattr__(self, "compiled", compiled_of(self.compiled, self.graph.order))
        _ = self.optimizers, devices, self.mixed

    def _check_types(self) -> None:
        """Refuse a thing of the wrong kind where it is given, not where it is used."""
        words = ("name", "describe", "epoch", "evaluation")
        right = not isinstance(self.schedule, type) and all(hasattr(self.schedule, word) for word in words)
        stopping = self.early_stopping
        for name, fits, expected in (
            ("graph", isinstance(self.graph, SplitGraph), "a SplitGraph, e.g. of cutlayer.vanilla(…)"),
            ("schedule", right, "a schedule, e.g. cutlayer.RoundRobin(handover='server')"),
            ("early_stopping", stopping is None or isinstance(stopping, EarlyStopping),
             "cutlayer.EarlyStopping(patience=5), or None"),
            ("metrics", not isinstance(self.metrics, str), "names in a list, e.g. ['auc']"),
            ("evaluate", not isinstance(self.evaluate, str), "names in a list, e.g. ['test']"),
            ("compiled", not isinstance(self.compiled, str), "names of segments in a list, e.g. ['top']"),
        ):  # fmt: skip
            if not fits:
                given = getattr(self, name)
                got = f"the class {given.__name__}" if isinstance(given, type) else _short(given)
                raise StudyError(f"{name} is of the wrong kind", got=got, expected=expected)

    @property
    def unlabelled(self) -> bool:
        """Whether rows without labels are trained on."""
        return bool(getattr(self.schedule, "unlabelled", False))

    @property
    def optimizers(self) -> dict[str, OptimizerSpec]:
        """The optimizer of each segment."""
        given: object = self.optimizer
        if not isinstance(given, Mapping):
            check_optimizer(given)
        if isinstance(self.optimizer, OptimizerSpec):
            return dict.fromkeys(self.graph.order, self.optimizer)
        for name, spec in self.optimizer.items():
            if name not in self.graph.segments:
                raise StudyError(
                    f"an optimizer is given for the unknown segment {name!r}",
                    todo=nearest(name, self.graph.order),
                )
            check_optimizer(spec, name)
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
    def mixed(self) -> dict[str, str]:
        """The precision of each segment that is not computed in float32."""
        return precision_of(self.precision, self.graph.order)

    @property
    def parts(self) -> dict[str, str]:
        """SHA-256 (hex) of each thing that the parties must agree on, by its name.

        Two parties whose :attr:`digest` differs compare these to be told what differs. Not among them is what
        may differ: data, device, versions of software, the study's name.
        """
        settings = ("batch_size", "epochs", "drop_last", "shuffle", "early_stopping", "check_finite")
        program = [f"{name}={getattr(self, name)!r}" for name in settings]
        program += [self.schedule.describe(), *self.evaluate, "metrics", *self.metrics]
        words = {
            "program": "\n".join(program),
            "codecs": f"{codecs_text(self.graph.cuts) or 'exact'}; frames of version {VERSION}",
            "defences": defences_text(self.graph.cuts) or "none",
            "optimizers": repr(self.optimizers),
            "precision": f"{self.mixed}; compiled: {self.compiled}",
            "seed": str(self.seed),
            "model code": "\n".join(f"{name} {found}" for name, found in sorted(self.code.items())),
        }
        known = {"graph": self.graph.digest, "weights": weights_digest(self.graph)}
        return known | {name: hashlib.sha256(text.encode()).hexdigest() for name, text in words.items()}

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all that the parties must agree on, the :attr:`parts`."""
        lines = [f"{name} {part}" for name, part in sorted(self.parts.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def program(self, holdings: Holdings, epochs: int = 1) -> Program:
        """Return the program of all parties for the first ``epochs`` epochs, checked."""
        calendar = self._calendar(Cohorts(self.graph, holdings))
        splits = tuple(s for s in self.evaluate if any(r.get(s) for r in calendar.rows))
        program = program_of(self.schedule, self.graph, calendar, epochs, splits, ended=epochs >= self.epochs)
        check(program, self.graph, calendar)
        return program

    def check(self, program: Program, holdings: Holdings) -> int:
        """Check a program against the graph and the batches that the parties have; return how many ticks it takes.

        Raises:
            ProgramError: It cannot be performed, trains on rows that are held out, or loads a batch that is none.
        """
        return check(program, self.graph, self._calendar(Cohorts(self.graph, holdings)))

    def describe(self) -> str:
        """Return what the study is, as text."""
        lines = [
            f"Study {self.name}  (digest {self.digest[:32]})",
            "",
            f"schedule    {self.schedule.describe()}",
            f"optimizer   {optimizer_text(self.optimizer)}",
            f"training    {self.epochs} epochs, batches of {self.batch_size}, seed {self.seed}",
            *self._how(),
            *(f"privacy     {line}" for line in self.promises()),
            "",
            self.graph.describe(),
        ]
        return "\n".join(lines)

    def _how(self) -> list[str]:
        """Return lines on what is not computed as plain float32."""
        words = ", ".join(f"{word} in {name}" for name, word in self.mixed.items())
        lines = [f"precision   {words}, float32 elsewhere"] if words else []
        return lines + ([f"compiled    {', '.join(self.compiled)}"] if self.compiled else [])

    def guarantees(self, delta: float = 1e-5) -> tuple[Guarantee, ...]:
        """Return what its defences promise by differential privacy, if all its epochs are trained.

        Args:
            delta: With which probability a promise need not hold, less than one over the number of rows.

        Raises:
            StudyError: Delta cannot be that, or the library that works epsilon out is not installed.
        """
        return guarantees(self.graph, self.epochs, self.evaluate, delta)

    def promises(self) -> list[str]:
        """Return the guarantees in words, or how to come to know them where the library is missing."""
        try:
            return [str(one) for one in self.guarantees()]
        except StudyError as error:
            return [f"differential privacy: {error}"]

    def disclosure(self, party: str, host: str | None = None) -> str:
        """Return the disclosure statement of ``party``, with who passes states on, or averages them, by the schedule.

        Args:
            party: Whose.
            host: The party that hosts the study between organisations; None for a simulation.
        """
        relay, averages = (getattr(self.schedule, word, None) for word in ("relay", "averages"))
        local = getattr(self.schedule, "local", False)
        return statement(
            self.graph,
            party,
            self.batch_size,
            relay(self.graph) if callable(relay) else None,
            host,
            averager=averages(self.graph) if callable(averages) else None,
            silent={cut.name for cut in cuts_without_gradient(self.graph)} if local else (),
            clips=getattr(self.schedule, "clip", None) is not None,
            unlabelled=self.unlabelled,
            updates=getattr(self.schedule, "updates", False),
            promises=self.promises(),
        )

    def simulate(
        self,
        holdings: Holdings,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        instead: Instead | None = None,
    ) -> Run:
        """Train with all parties in this process; frames are really made and counted.

        Args:
            holdings: Who holds what.
            out: The run's folder, for the log and snapshots; without it nothing is written.
            resume: Go on from the folder's last snapshot.
            on_progress: Called at most ten times a second with where the run stands.
            instead: Called once with each party's action and what performs it; returns what performs it instead. With
                it an audit watches what a party sees, or lets a party be dishonest.

        Returns:
            What came out.

        Raises:
            CutlayerError: Bad data, NaN, a full disk…; what was written before stays whole.
        """
        if resume and out is None:
            raise StudyError("resume needs the folder of the run to go on with", todo="give out=")
        cohorts = Cohorts(self.graph, holdings)
        check_data(
            self.graph,
            holdings,
            cohorts,
            batch_size=self.batch_size,
            drop_last=self.drop_last,
            pooled=bool(getattr(self.schedule, "pooled", False)),
            unlabelled=self.unlabelled,
            metrics=self.metrics,
            stopping=self.early_stopping,
        )
        calendar = self._calendar(cohorts)
        self.prove(cohorts.rows)
        check_devices(self.settings.devices)
        first = [role.parties[0] for role in self.graph.roles.values()]
        began = self.beginning(first, holdings.table(), cohorts.digest(holdings))
        log = RunLog(Path(out) if out is not None else None, append=resume)
        try:
            self.begin(log, began)
            simulation = Simulation(
                self.graph,
                holdings,
                self.schedule,
                calendar,
                cohorts,
                self.settings,
                log,
                on_progress,
                instead,
            )
            simulation.train(simulation.resume() if resume else START)
        finally:
            log.close()
        return Run(simulation, log)

    def load(self, folder: str | Path) -> Run:
        """Return the trained network, from the halves that :meth:`cutlayer.Run.save` wrote, ready to predict.

        Raises:
            StudyError: A half is missing, damaged, or of another graph.
        """
        check_devices(self.settings.devices)
        calendar = Calendar([{} for _ in self.graph.turns], self.batch_size, self.seed)
        settings = dataclasses.replace(self.settings, early_stopping=None)
        log = RunLog()
        run = Run(Simulation(self.graph, None, self.schedule, calendar, None, settings, log), log)
        run.load(folder)
        return run

    def central(self, holdings: Holdings, *, epochs: int | None = None) -> Twin:
        """Train the uncut network by a plain loop on the pooled data, in the same order, and return it.

        Args:
            holdings: Everybody's data. It computes on ``device``, and on the CPU where parties have their own.
            epochs: How many epochs, unless as many as the study says. After early stopping, the run's weights
                are those of ``run.best_epoch + 1`` epochs.
        """
        epochs = self.epochs if epochs is None else _whole("epochs", epochs, 0)
        if found := defences_text(self.graph.cuts):
            raise StudyError(
                "the uncut network has no cut to defend, so a study with defences has no twin to be equal to",
                got=found.replace("\n", "; "),
                todo="compare without: dataclasses.replace(study, defences=())",
            )
        cohorts = Cohorts(self.graph, holdings)
        calendar = self._calendar(cohorts)
        clip = getattr(self.schedule, "clip", None)
        if self.compiled:
            check_compiler(torch.device(self.settings.device))
        twin = CentralTwin(
            self.graph, holdings, cohorts, calendar, self.optimizers, self.seed, self.settings.device, clip,
            forms_of(self.graph, self.mixed, self.compiled),
        )  # fmt: skip
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            for epoch in range(epochs):
                twin.train_epoch(batches_of(self.schedule, self.graph, calendar, epoch))
        return Twin(twin, tuple(self.metrics), epochs)

    def course(self, rows: Sequence[Mapping[str, int]], leaves: Sequence[Leave] = ()) -> Course:
        """Return what all parties do, if the turns have so many rows by split."""
        pooled = bool(getattr(self.schedule, "pooled", False))
        if not self.unlabelled:
            rows = [{split: n for split, n in turn.items() if split != UNLABELLED} for turn in rows]
        most = getattr(self.schedule, "most_rows", None)
        largest = (
            most(self.graph, self.batch_size) if most is not None else 0
        )  # frames of so many rows are due
        calendar = Calendar(
            rows, self.batch_size, self.seed, self.drop_last, self.shuffle, max(256, largest), leaves, pooled
        )
        return Course(self.graph, self.schedule, calendar, self.epochs, self.evaluate, self.early_stopping)

    def _calendar(self, cohorts: Cohorts) -> Calendar:
        return self.course(cohorts.rows).calendar

    def prove(self, rows: Sequence[Mapping[str, int]]) -> None:
        """Check the schedule's program, in miniature: two epochs of at most two batches a turn."""
        few = dict.fromkeys(TRAINED, 2 * self.batch_size)
        fewer = [{split: min(count, few.get(split, 1)) for split, count in turn.items()} for turn in rows]
        small = self.course(fewer).calendar
        splits = tuple(s for s in self.evaluate if any(turn.get(s) for turn in fewer))
        program = program_of(self.schedule, self.graph, small, 2, splits, ended=True)
        check(program, self.graph, small)

    @property
    def settings(self) -> Settings:
        """How it trains, apart from graph, data and schedule."""
        return Settings(
            optimizers=self.optimizers,
            epochs=self.epochs,
            seed=self.seed,
            device=self.device if isinstance(self.device, str) else "cpu",
            devices=devices_of(self.device, self.graph),
            precision=self.mixed,
            compiled=tuple(self.compiled),
            metrics=tuple(self.metrics),
            early_stopping=self.early_stopping,
            check_finite=self.check_finite,
            evaluate=tuple(self.evaluate),
        )

    def begin(self, log: RunLog, began: Began) -> None:
        """Note the beginning, or find it in the log that is resumed."""
        before = next((e for e in log.events if isinstance(e, Began)), None)
        if before is None:
            log.write(began)
            for promise in self.promises():
                log.write(Noted(subject="differential privacy", text=promise))
        elif before.digest != began.digest:
            raise StudyError(
                "the run in that folder is of another study",
                got=f"digest {began.digest[:16]}",
                expected=before.digest[:16],
                todo="resume with the same study, or start anew in another folder",
            )
        elif before.data and before.data != began.data:
            raise StudyError(
                "the run in that folder was trained on other data",
                got=f"rows with the digest {began.data[:16]}",
                expected=before.data[:16],
                todo="resume with the same rows, ids and splits, or start anew in another folder",
            )

    def beginning(self, parties: Sequence[str], holdings: str, data: str, host: str | None = None) -> Began:
        """Return the first event of a run.

        Args:
            parties: Whose disclosure statements are part of it.
            holdings: Who holds what, as text.
            data: Hash of the rows.
            host: The party that hosts the study, where there is one.
        """
        graph = self.graph
        return Began(
            name=self.name,
            study=graph.name,
            digest=self.digest,
            seed=self.seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            schedule=self.schedule.describe(),
            optimizer=optimizer_text(self.optimizer),
            parties={p.name: p.role for p in graph.parties},
            graph=graph.describe(),
            mermaid=graph.mermaid(),
            svg=graph.svg(),
            disclosures={party: self.disclosure(party, host) for party in parties},
            holdings=holdings,
            versions=versions(),
            started=datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
            data=data,
        )


def _whole(name: str, value: object, least: int | None) -> int:
    """Return ``value`` if it is a whole number, of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise StudyError(f"{name} must be a whole number", got=_short(value))
    if least is not None and value < least:
        raise StudyError(f"{name} must be at least {least}", got=str(value))
    return int(value)


def _short(value: object) -> str:
    """Return a word or number as it is written, of anything else the type."""
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
