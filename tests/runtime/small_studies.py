"""Small data and the plain loop that split training is compared with."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from cutlayer import Study, optim
from cutlayer.data import arrays
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.schedules import Calendar, Op
from cutlayer.schedules.calendar import Batch

MOMENTUM = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}


def study_of(graph, **more):
    settings = {"optimizer": optim.SGD(**MOMENTUM), "batch_size": 5, "epochs": 2, "seed": 7}
    return Study(graph=graph, **(settings | more))


def pooled(rows=24, shape=(6,), classes=3, test=6, seed=0):
    """Return a source of random rows, and its training rows as tensors: row ``i`` has the id ``i``."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows + test, *shape)).astype(np.float32)
    y = draw.integers(0, classes, rows + test)
    y[: 2 * classes] = np.arange(2 * classes) % classes  # every class occurs
    held = (x[rows:], y[rows:]) if test else (None, None)
    return arrays(x[:rows], y[:rows], *held), torch.from_numpy(x[:rows]), torch.from_numpy(y[:rows])


def batches(study: Study, holdings) -> list[np.ndarray]:
    """Return the ids of the rows of each training step, as the study's program loads them."""
    cohorts = Cohorts(study.graph, holdings)
    calendar = Calendar(cohorts.rows, study.batch_size, study.seed, study.drop_last, study.shuffle)
    steps = {}
    for action in replace(study, evaluate=()).program(holdings, study.epochs):
        batch = Batch.parse(action.what) if action.op is Op.LOAD else None
        if batch is not None and batch.split == "train":
            ids = cohorts.ids[batch.turn]["train"]
            steps.setdefault(action.step, (batch, ids[calendar.positions(batch).numpy()]))
    train = {}
    for step, (batch, ids) in sorted(steps.items()):
        train[step] = (batch.epoch, ids)
    assert list(train) == list(range(len(train)))
    return list(train.values())


def plain_loop(model, steps, x, y, make_optimizer, loss=None, make_schedule=None, every="epoch", before=None):
    """Train ``model`` with nothing but PyTorch; return it.

    Args:
        model: The uncut network, trained in place.
        steps: (epoch, row numbers) of each step.
        x: All rows.
        y: All labels.
        make_optimizer: ``make_optimizer(parameters)``.
        loss: ``loss(output, label)``; cross-entropy unless given.
        make_schedule: ``make_schedule(optimizer)``.
        every: Whether the schedule moves on each ``"epoch"`` or ``"step"``.
        before: Called with the number of each step before it.
    """
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad])
    schedule = make_schedule(optimizer) if make_schedule else None
    loss = loss or nn.CrossEntropyLoss()
    model.train()
    for number, (epoch, rows) in enumerate(steps):
        if before is not None:
            before(number)
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
        last_of_epoch = number + 1 == len(steps) or steps[number + 1][0] != epoch
        if schedule is not None and (every == "step" or last_of_epoch):
            schedule.step()
    return model


def by_uncut_name(run) -> dict[str, torch.Tensor]:
    """Return the run's weights by the names that the uncut model uses."""
    found = {}
    for segment, weights in run.weights().items():
        origin = run.graph.segments[segment].origin
        found |= {origin.get(name, f"{segment}.{name}"): tensor for name, tensor in weights.items()}
    return found


def assert_same_weights(run, model: nn.Module) -> None:
    """Every parameter and buffer of the split network equals the uncut one's, to the last bit."""
    split, uncut = by_uncut_name(run), model.state_dict()
    assert split.keys() == uncut.keys()
    different = [name for name in uncut if not torch.equal(split[name], uncut[name])]
    assert not different


def moved(model: nn.Module, start: dict[str, torch.Tensor]) -> bool:
    """Whether training changed every trainable parameter."""
    return all(not torch.equal(p, start[name]) for name, p in model.named_parameters() if p.requires_grad)
