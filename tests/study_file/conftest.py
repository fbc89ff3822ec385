"""Study files, models and a table for the tests."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from digits_study import digits_study, mlp

CHAIN = digits_study("seed = 3\nepochs = 2", mlp(16))

VERTICAL = """
[study]
seed = 5

[graph]
topology = "vertical"
top = "model.py:top"
merge = "concat"

[graph.bottoms]
imaging = "model.py:bottom"
pathology = { function = "model.py:bottom", arguments = { hidden = 4 } }

[data]
source = "breast_cancer"

[data.columns]
imaging = ["mean *"]
pathology = ["worst *", "radius error"]

[optimizer]
name = "SGD"
lr = 0.1

[optimizers.top]
name = "Adam"
lr = 0.01
betas = [0.8, 0.99]
"""

MODELS = """
from torch import nn

def network(input_shape, hidden=8, classes=10):
    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.ReLU(), nn.Linear(hidden, classes))

def bottom(input_shape, hidden=8):
    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.ReLU())

def top(inputs=12, outputs=2):
    return nn.Linear(inputs, outputs)

def middle(size=16):
    return nn.Linear(size, size)

def absolute(prediction, label):
    return (prediction.flatten() - label).abs().mean()

def broken():
    raise ValueError("no such thing")

def number():
    return 3

made = nn.Linear(2, 2)
"""


MULTI_TASK = """
[graph]
topology = "multi_task"
losses = { stay = "mse" }
weights = { stay = 0.1 }

[graph.bottoms]
clinic = "model.py:bottom"
registry = "model.py:bottom"

[graph.tops]
risk = { function = "model.py:top", arguments = { inputs = 16 } }
stay = { function = "model.py:top", arguments = { inputs = 16, outputs = 1 } }

[data]
source = "csv"
path = "patients.csv"
id = "patient"
label = "sick"

[data.hold_out]
test = 0.25

[data.columns]
clinic = ["bmi"]
registry = ["age", "site"]

[data.labels]
risk = "sick"
stay = "days"

[optimizer]
name = "SGD"
lr = 0.01
"""


STUDIES = {"chain": CHAIN, "vertical": VERTICAL, "multi_task": MULTI_TASK}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a study file and its models, with some words replaced."""

    def write(name: str, *changes: tuple[str, str], more: str = "") -> Path:
        text = STUDIES[name]
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "model.py").write_text(MODELS)
        path = tmp_path / "study.toml"
        path.write_text(text + textwrap.dedent(more))
        return path

    return write


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Write a small table beside the study file."""
    path, rows = tmp_path / "patients.csv", 60
    rng = np.random.default_rng(0)
    lines = ["patient,age,bmi,site,sick,days"]
    for i in range(rows):
        age, bmi = rng.integers(20, 90), rng.normal(25, 4)
        site, sick = "north" if i % 3 else "south", "yes" if age > 55 else "no"
        lines.append(f"p{i},{age},{bmi:.2f},{site},{sick},{bmi / 5:.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path
