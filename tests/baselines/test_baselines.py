"""Baselines against plain loops of PyTorch, against each other, and against split training."""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import cutlayer as cl
from cutlayer.baselines import Budget, FedAvg, FedProx, LargeBatch, Method, method_of, spent, train
from cutlayer.baselines.uncut import Fields, Uncut
from cutlayer.data import Holdings
from cutlayer.errors import StudyError
from cutlayer.metering.events import Computed, Ended, EpochEnded, Traffic
from cutlayer.metering.reading import finished
from cutlayer.metering.run_log import read_log
from cutlayer.schedules.calendar import Batch
from cutlayer.study import Study

SGD = cl.optim.SGD(lr=0.1)


def network(dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(3)
    made = nn.Sequential()
    made.add_module(
        "first", nn.Sequential(nn.Linear(64, 24), *([nn.BatchNorm1d(24)] if norm else []), nn.Tanh())
    )
    made.add_module("second", nn.Sequential(nn.Dropout(dropout), nn.Linear(24, 10)))
    return made


def study_of(clients: Holdings, model: nn.Module | None = None, **settings: object) -> Study:
    graph = cl.vanilla(model if model is not None else network(), cut="first", clients=clients)
    return Study(**({"graph": graph, "optimizer": SGD, "batch_size": 50, "seed": 5} | settings))  # type: ignore[arg-type]


def clients(count: int, **how: object) -> Holdings:
    return cl.data.digits().split_rows(count, **how)  # type: ignore[arg-type]


def flat(weights: dict[str, dict[str, Tensor]]) -> list[Tensor]:
    return [t.detach() for state in weights.values() for t in state.values()]


def apart(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> float:
    pairs = zip(flat(one), flat(other), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


# A plain loop, of which the package knows nothing


class Plain:
    """The uncut network of a study in one module, and the clients' rows in the order that the study draws."""

    def __init__(self, study: Study, people: Holdings, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)
        self.calendar = study.course(
            [{s: len(r) for s, r in p.splits.items()} for p in people.parties]
        ).calendar
        self.rows = [p.splits["train"] for p in people.parties]

    def batches(self, client: int, epoch: int) -> list[tuple[Tensor, Tensor]]:
        found = []
        for number in range(self.calendar.batches(client, "train")):
            batch = self.rows[client].batch(self.calendar.positions(Batch("train", client, epoch, number)))
            found.append((batch["x"], batch["y"]))
        return found

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


def plain_fedavg(
    plain: Plain,
    rounds: int,
    local: int,
    build: Callable[[nn.Module], torch.optim.Optimizer],
    mu: float = 0.0,
) -> nn.Module:
    server = plain.model
    for number in range(rounds):
        mean = [torch.zeros_like(p, dtype=torch.float64) for p in server.parameters()]
        total = sum(len(rows) for rows in plain.rows)
        for client, rows in enumerate(plain.rows):
            mine = copy.deepcopy(server)
            optimizer = build(mine)
            for epoch in range(number * local, (number + 1) * local):
                for batch in plain.batches(client, epoch):
                    optimizer.zero_grad()
                    loss = plain.loss(mine, batch)
                    for a, b in zip(mine.parameters(), server.parameters(), strict=True):
                        loss = loss + mu / 2 * (a - b.detach()).square().sum() if mu else loss
                    loss.backward()
                    optimizer.step()
            for add, p in zip(mean, mine.parameters(), strict=True):
                add += p.detach().double() * len(rows) / total
        with torch.no_grad():
            for p, value in zip(server.parameters(), mean, strict=True):
                p.copy_(value)
    return server


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_three_clients_as_a_plain_loop(mu: float) -> None:
    people = clients(3, by="dirichlet", alpha=0.5)
    model = network()
    study = study_of(people, model, optimizer=cl.optim.SGD(lr=0.1, momentum=0.9), evaluate=())
    method = FedProx(rounds=2, local_epochs=2, mu=mu) if mu else FedAvg(rounds=2, local_epochs=2)
    run = train(study, people, method)
    plain = Plain(study, people, model)
    assert len({len(rows) for rows in plain.rows}) > 1
    expected = plain_fedavg(plain, 2, 2, lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), mu)
    for mine, theirs in zip(flat(run.weights()), expected.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_large_batch_as_a_plain_loop_over_the_joined_batches() -> None:
    people = clients(3, by="dirichlet", alpha=0.5)
    model = network()
    study = study_of(people, model, optimizer=cl.optim.Adam(lr=0.01), evaluate=())
    run = train(study, people, LargeBatch(rounds=2))
    plain = Plain(study, people, model)
    optimizer = torch.optim.Adam(plain.model.parameters(), lr=0.01)
    for epoch in range(2):
        each = [plain.batches(client, epoch) for client in range(3)]
        for index in range(max(map(len, each))):
            there = [batches[index] for batches in each if index < len(batches)]
            joined = torch.cat([x for x, _ in there]), torch.cat([y for _, y in there])
            optimizer.zero_grad()
            plain.loss(plain.model, joined).backward()
            optimizer.step()
    for mine, theirs in zip(flat(run.weights()), plain.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "method", [FedAvg(rounds=3), FedAvg(rounds=1, local_epochs=3), LargeBatch(rounds=3)], ids=str
)
@pytest.mark.parametrize("norm", [False, True])
def test_one_client_is_plain_sgd_to_the_last_bit(method: Method, norm: bool) -> None:
    people = clients(1)
    schedule = cl.optim.StepLR(step_size=1, gamma=0.5)
    study = study_of(
        people, network(0.3, norm), epochs=3, optimizer=cl.optim.SGD(lr=0.2, schedule=schedule), evaluate=()
    )
    assert apart(train(study, people, method).weights(), study.central(people).weights()) == 0.0


@pytest.mark.parametrize("norm", [False, True])
def test_full_batch_fedavg_with_one_local_step_is_large_batch_sgd(norm: bool) -> None:
    people = clients(3, by="dirichlet", alpha=0.5)
    study = study_of(people, network(norm=norm), batch_size=10_000, evaluate=())
    averaged = train(study, people, FedAvg(rounds=3)).weights()
    assert apart(averaged, train(study, people, LargeBatch(rounds=3)).weights()) < 1e-6
    assert apart(averaged, train(study, people, LargeBatch(rounds=3, steps=1)).weights()) < 1e-6


def test_fedprox_without_a_term_is_fedavg_and_a_strong_one_stays_near() -> None:
    people = clients(2)
    study = study_of(people, evaluate=())
    start = {name: dict(s.module.named_parameters()) for name, s in study.graph.segments.items()}
    moved = {}
    for mu in (0.0, 5.0):
        weights = train(study, people, FedProx(local_epochs=3, mu=mu)).weights()
        moved[mu] = apart(weights, start)
    assert apart(train(study, people, FedAvg(local_epochs=3)).weights(), start) == moved[0.0]
    assert moved[5.0] < 0.6 * moved[0.0]


def test_rates_are_multiplied_and_refused_where_they_are_not_stated() -> None:
    people = clients(1)
    fast = study_of(people, optimizer=cl.optim.SGD(lr=0.2), evaluate=())
    twice = train(study_of(people, evaluate=()), people, FedAvg(rate=2.0))
    assert apart(twice.weights(), train(fast, people, FedAvg()).weights()) == 0.0
    cycle = cl.optim.SGD(lr=0.1, schedule=cl.optim.OneCycleLR(max_lr=0.1, total_steps=100), every="step")
    with pytest.raises(StudyError, match="rate= multiplies the optimizer's lr"):
        train(study_of(people, optimizer=cycle), people, FedAvg(rate=2.0))


def test_of_steps_a_schedule_counts_those_of_the_client_that_did_most() -> None:
    people = clients(2, by="dirichlet", alpha=0.5)
    cycle = cl.optim.SGD(lr=0.1, schedule=cl.optim.StepLR(step_size=1, gamma=0.9), every="step")
    run = train(study_of(people, optimizer=cycle, evaluate=()), people, FedAvg(rounds=2))
    assert all(torch.isfinite(t).all() for t in flat(run.weights()))


# What is noted


def test_the_log_counts_real_frames_and_every_clients_flops() -> None:
    people = clients(4)
    study = study_of(people, epochs=1)
    run = train(study, people, FedAvg(rounds=2, sample=0.5, local_epochs=2))
    sent = [e for e in run.events if isinstance(e, Traffic) and e.phase == "training"]
    numbers = sum(t.numel() for t in flat(run.weights()))
    assert {e.tensor_bytes for e in sent} == {4 * numbers}
    assert sum(e.frames for e in sent) == 2 * 2 * 2
    assert all(0 < e.frame_bytes - e.tensor_bytes < 1000 for e in sent)
    drawn = {e.epoch: {e.sender for e in sent if e.sender != "server"} for e in sent}
    drawn = {epoch: {e.sender for e in sent if e.epoch == epoch and e.sender != "server"} for epoch in drawn}
    assert [len(who) for who in drawn.values()] == [2, 2]
    rows = {p.name: len(p.splits["train"]) for p in people.parties}
    for event in run.events:
        if isinstance(event, Computed) and event.direction == "forward":
            assert event.flops == 2 * 2 * rows[event.party] * (64 * 24 + 24 * 10)  # twice over its rows
    assert run.metrics("test")["accuracy"] > 0.3
    assert run.metrics("test", "loss") == run.metrics("test")
    assert run.tables()["metrics"].rows
    assert finished(run.events)


def test_tables_summary_and_report_are_those_of_any_run(tmp_path: Path) -> None:
    people = clients(2, test="first")
    run = train(study_of(people), people, LargeBatch(rounds=2), out=tmp_path)
    page = run.report().read_text()
    assert "large-batch SGD" in page and "the gradients of all weights" in page
    screen = Console(width=100, record=True, file=io.StringIO())
    screen.print(run.summary())
    assert "weights" in screen.export_text()
    with pytest.raises(StudyError, match="nothing was measured on a split 'valid'"):
        run.metrics("valid")


def test_what_a_client_spent_is_the_same_account_for_split_and_uncut() -> None:
    people = clients(2, test="first")
    study = study_of(people, evaluate=())
    split = study.simulate(people)
    uncut = train(study, people, FedAvg())
    names = [p.name for p in people.parties]
    share = spent(split.events, names).flops / spent(uncut.events, names).flops
    # forward and the weights' gradient of the first layer; of the second also its input's gradient
    assert share == pytest.approx(2 * 64 * 24 / (2 * 64 * 24 + 3 * 24 * 10))
    frames = [e for e in uncut.events if isinstance(e, Traffic) and "client-0" in (e.sender, e.receiver)]
    assert spent(uncut.events, names).bytes == sum(e.frame_bytes for e in frames)


def test_a_budget_stops_after_the_round_that_reaches_it() -> None:
    people = clients(2)
    study = study_of(people, evaluate=())
    names = [p.name for p in people.parties]
    one = spent(train(study, people, LargeBatch(steps=1)).events, names)
    run = train(study, people, LargeBatch(rounds=100, steps=1), budget=Budget(flops=2.5 * one.flops))
    assert max(e.epoch for e in run.events if isinstance(e, EpochEnded)) == 2
    ended = run.events[-1]
    assert isinstance(ended, Ended) and ended.epochs == 3 and "a client" in ended.reason


@pytest.mark.parametrize("method", [FedAvg(rounds=3, sample=2), LargeBatch(rounds=3, steps=2)], ids=str)
def test_a_run_that_was_broken_off_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    people = clients(3, by="dirichlet", alpha=0.5)
    study = study_of(people, network(0.3, norm=True), optimizer=cl.optim.Adam(lr=0.01))
    learn, steps = Uncut.learn, []

    def counted(self: Uncut, party: str, fields: Fields, step: int) -> tuple[float, dict[str, float]]:
        if len(steps) == breaks_at:
            raise KeyboardInterrupt
        steps.append(step)
        return learn(self, party, fields, step)

    monkeypatch.setattr(Uncut, "learn", counted)
    breaks_at = -1
    whole = train(study, people, method)
    breaks_at = len(steps) - 1  # the last step of the last round
    steps.clear()
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(study, people, method, out=folder)
    assert sum(isinstance(event, EpochEnded) for event in read_log(folder / "log.jsonl")) == 2
    breaks_at = -1
    resumed = train(study, people, method, out=folder, resume=True)
    assert apart(whole.weights(), resumed.weights()) == 0.0
    assert whole.metrics("test") == resumed.metrics("test")
    again = train(study, people, method, out=folder, resume=True)
    assert again.events == resumed.events and apart(again.weights(), resumed.weights()) == 0.0
    with pytest.raises(StudyError, match="of another study, other settings or other data"):
        train(study, people, dataclasses.replace(method, rounds=4), out=folder, resume=True)


# What cannot be


def test_rows_that_are_not_whole_at_clients_are_refused() -> None:
    columns = {"host": slice(0, 20), "guest": slice(20, 30)}
    people = cl.data.breast_cancer().split_columns(columns)
    bottoms = {"host": nn.Linear(20, 4), "guest": nn.Linear(10, 4)}
    study = Study(graph=cl.vertical(bottoms, nn.Linear(8, 2), parties=people), optimizer=SGD)
    with pytest.raises(StudyError, match="clients that hold whole rows"):
        train(study, people, FedAvg())


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: FedAvg(rounds=0), "rounds is a whole number"),
        (lambda: FedAvg(local_epochs=True), "local_epochs is a whole number"),
        (lambda: FedAvg(sample=1.5), "a share of them"),
        (lambda: FedAvg(sample=True), "a share of them"),
        (lambda: FedProx(mu=-1.0), "mu is a finite number"),
        (lambda: LargeBatch(rate=0.0), "above 0"),
        (lambda: Budget(flops=0.0), "above 0"),
        (lambda: method_of("fedavgg"), "fedavg"),
    ],
)
def test_settings_that_cannot_be(make: Callable[[], object], why: str) -> None:
    with pytest.raises(StudyError, match=why):
        make()
