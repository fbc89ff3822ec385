"""What the parties must agree on, part by part."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import cutlayer as cl


def study_of(seed: int = 0, width: int = 8, **more: Any) -> cl.Study:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
    graph = cl.vanilla(model, "1", clients=2, example=torch.rand(2, 4))
    return cl.Study(graph=graph, **{"optimizer": cl.optim.SGD(lr=0.1), **more})


def test_the_same_study_has_the_same_parts_and_digest() -> None:
    one, other = study_of(), study_of()
    assert one.parts == other.parts
    assert one.digest == other.digest
    assert all(len(bytes.fromhex(part)) == 32 for part in (*one.parts.values(), one.digest))
    wordings = study_of(metrics=["auc"], evaluate=["test"]), study_of(metrics=("auc",), evaluate=("test",))
    assert wordings[0].parts == wordings[1].parts


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("optimizers", {"optimizer": cl.optim.SGD(lr=0.2)}),
        ("program", {"schedule": cl.RoundRobin(turn=3)}),
        ("program", {"epochs": 2}),
        ("program", {"batch_size": 3}),
        ("program", {"drop_last": True}),
        ("program", {"shuffle": False}),
        ("program", {"evaluate": ("test",)}),
        ("program", {"metrics": ("auc",)}),
        ("program", {"early_stopping": cl.EarlyStopping()}),
        ("program", {"check_finite": False}),
        ("precision", {"precision": "bfloat16"}),
        ("precision", {"precision": {"top": "bfloat16"}}),
        ("precision", {"compiled": ("top",)}),
        ("seed", {"seed": 1}),
        ("model code", {"code": {"model.py": "0" * 64}}),
    ],
)
def test_a_difference_shows_in_its_own_part(part: str, change: dict[str, Any]) -> None:
    study = study_of()
    other = dataclasses.replace(study, **change)
    assert [name for name in study.parts if study.parts[name] != other.parts[name]] == [part]
    assert study.digest != other.digest


def test_weights_and_structure_are_parts_of_their_own() -> None:
    study, parts = study_of(), study_of(seed=1).parts
    assert {name for name in parts if parts[name] != study.parts[name]} == {"weights"}
    wider = study_of(width=9).parts
    assert {name for name in wider if wider[name] != study.parts[name]} == {"graph", "weights"}


def test_what_may_differ_is_no_part() -> None:
    study = study_of()
    assert dataclasses.replace(study, name="other").digest == study.digest


def test_precision_counts_as_computed_and_a_device_not_at_all() -> None:
    one = study_of(precision="bfloat16", compiled=["top", "head"])
    other = study_of(precision={"top": "bfloat16", "head": "bfloat16"}, compiled=("head", "top"))
    assert one.digest == other.digest
    assert study_of(precision={"top": "float32"}).digest == study_of().digest
    assert study_of(device={"server": "cpu", "client-1": "cuda:7"}).digest == study_of().digest
