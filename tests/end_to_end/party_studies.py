"""Small studies for trials with real processes: a second of training each, with dropout, batch norm and momentum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cutlayer.study_file.records_file import RECORDS, read_records, write_records

MODELS = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 3),
    )

def bottom(width):
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Dropout(0.2))

def middle():
    return nn.Sequential(nn.Linear(16, 10), nn.ReLU(), nn.Dropout(0.1))

def top(inputs=16, outputs=3):
    return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))
"""

_CHAIN = """
[study]
name = "{name}"
seed = 7
epochs = {epochs}
batch_size = 8

[graph]
topology = "{topology}"
model = "model.py:network"
{cuts}

[data]
source = "npz"
path = "rows.npz"
x = "x"
y = "y"

[data.hold_out]
test = 0.15

[data.rows]
parties = {clients}

[schedule]
name = "round_robin"
handover = "{handover}"
turn = {turn}

[optimizer]
{optimizer}

[network]
snapshot_every = {every}
{network}
"""

_COLUMNS = """
[study]
name = "{name}"
seed = 7
epochs = {epochs}
batch_size = 8

[graph]
topology = "{topology}"
merge = "concat"
{tops}

[graph.bottoms]
clinic = {{ function = "model.py:bottom", arguments = {{ width = 5 }} }}
lab = {{ function = "model.py:bottom", arguments = {{ width = 7 }} }}

[data]
{source}

[data.columns]
clinic = {clinic}
lab = {lab}

[data.hold_out]
test = 0.15

[optimizer]
{optimizer}

[network]
snapshot_every = {every}
{network}
"""

_ARRAYS = {
    "source": 'source = "npz"\npath = "rows.npz"\nx = "x"\ny = "y"',
    "clinic": "[0, 1, 2, 3, 4]",
    "lab": "[5, 6, 7, 8, 9, 10, 11]",
}
_TABLE = {
    "source": 'source = "csv"\npath = "rows.csv"\nid = "person"\nlabel = "kind"\n'
    'labels = { server = "kind", ward = "days" }',
    "clinic": '["a*"]',
    "lab": '["b*"]',
}

ADAM = 'name = "Adam"\nlr = 0.01\nschedule = { name = "StepLR", step_size = 2, gamma = 0.5 }'
MOMENTUM = 'name = "SGD"\nlr = 0.05\nmomentum = 0.9'

STUDIES = {
    "vanilla": {
        "topology": "vanilla",
        "cuts": 'cut = "2"',
        "turn": 0,
        "handover": "peer",
        "optimizer": MOMENTUM,
    },
    "vanilla-relayed": {
        "topology": "vanilla",
        "cuts": 'cut = "2"',
        "turn": 3,
        "handover": "server",
        "optimizer": ADAM,
    },
    "u-shape": {
        "topology": "u_shaped",
        "cuts": 'cuts = ["2", "5"]',
        "turn": 2,
        "handover": "peer",
        "optimizer": ADAM,
    },
    "multi-hop": {
        "topology": "multi_hop",
        "cuts": 'cuts = ["2", "5"]\nhops = ["relay"]',
        "turn": 0,
        "handover": "peer",
        "optimizer": MOMENTUM,
        "clients": 2,
    },
    "vertical": _ARRAYS | {"topology": "vertical", "tops": 'top = "model.py:top"', "optimizer": ADAM},
    "extended-vanilla": _ARRAYS
    | {
        "topology": "extended_vanilla",
        "tops": 'middle = "model.py:middle"\nworker = "institute"\n'
        'top = { function = "model.py:top", arguments = { inputs = 10 } }',
        "optimizer": MOMENTUM,
    },
    "multi-task": _TABLE
    | {
        "topology": "multi_task",
        "tops": 'tops.server = "model.py:top"\n'
        'tops.ward = { function = "model.py:top", arguments = { outputs = 1 } }\n'
        'losses = { ward = "mse" }\nweights = { ward = 0.3 }',
        "optimizer": ADAM,
    },
}
"""What each study is, by name."""

BY_COLUMNS = ("vertical", "extended-vanilla", "multi-task")
"""Those whose parties have other columns of the same rows, each in an order of its own."""


def write_study(folder: Path, name: str, *, rows: int = 120, **changes: object) -> Path:
    """Write study file, model code and pooled data to ``folder``; return the study file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODELS)
    draw = np.random.default_rng(11)
    x = draw.normal(size=(rows, 12)).astype(np.float32)
    y = (x[:, :3] + 0.3 * draw.normal(size=(rows, 3))).argmax(1).astype(np.int64)
    np.savez(folder / "rows.npz", x=x, y=y)
    _write_table(folder / "rows.csv", x, y)
    known = {"epochs": 3, "every": 4, "network": "", "clients": 3} | STUDIES[name] | changes
    template = _COLUMNS if name in BY_COLUMNS else _CHAIN
    path = folder / "study.toml"
    path.write_text(template.format(name=name, **known))
    return path


def _write_table(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """Write the rows as a table: five columns of the clinic, seven of the laboratory, and two labels."""
    names = [*(f"a{i}" for i in range(5)), *(f"b{i}" for i in range(7))]
    lines = [",".join(["person", *names, "kind", "days"])]
    for number, (row, kind) in enumerate(zip(x, y, strict=True)):
        days = float(row[1] - row[6])
        lines.append(",".join([f"p{number}", *(f"{value:.6f}" for value in row), "xyz"[kind], f"{days:.6f}"]))
    path.write_text("\n".join(lines) + "\n")


def shuffle_records(folder: Path, role: str, seed: int) -> None:
    """Put the records in a party's folder, if there are any, in another order, ids and fields alike."""
    path = folder / RECORDS
    if not path.exists():
        return
    own, draw = read_records(path, role, role), np.random.default_rng(seed)
    splits = {split: records.select(draw.permutation(len(records))) for split, records in own.splits.items()}
    write_records(path, replace(own, splits=splits))
