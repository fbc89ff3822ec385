"""Small studies for trials with real processes: a second of training each, with dropout, batch norm and momentum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

MODELS = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 3),
    )

def bottom(width):
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Dropout(0.2))

def top():
    return nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
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

_VERTICAL = """
[study]
name = "{name}"
seed = 7
epochs = {epochs}
batch_size = 8

[graph]
topology = "vertical"
top = "model.py:top"
merge = "concat"

[graph.bottoms]
clinic = {{ function = "model.py:bottom", arguments = {{ width = 5 }} }}
lab = {{ function = "model.py:bottom", arguments = {{ width = 7 }} }}

[data]
source = "npz"
path = "rows.npz"
x = "x"
y = "y"

[data.columns]
clinic = [0, 1, 2, 3, 4]
lab = [5, 6, 7, 8, 9, 10, 11]

[data.hold_out]
test = 0.15

[optimizer]
{optimizer}

[network]
snapshot_every = {every}
{network}
"""

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
    "vertical": {"optimizer": ADAM},
}
"""What each study is, by name."""


def write_study(folder: Path, name: str, *, rows: int = 120, **changes: object) -> Path:
    """Write study file, model code and pooled data to ``folder``; return the study file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODELS)
    draw = np.random.default_rng(11)
    x = draw.normal(size=(rows, 12)).astype(np.float32)
    y = (x[:, :3] + 0.3 * draw.normal(size=(rows, 3))).argmax(1).astype(np.int64)
    np.savez(folder / "rows.npz", x=x, y=y)
    known = {"epochs": 3, "every": 4, "network": "", "clients": 3} | STUDIES[name] | changes
    template = _VERTICAL if name == "vertical" else _CHAIN
    path = folder / "study.toml"
    path.write_text(template.format(name=name, **known))
    return path


def shuffle_records(path: Path, seed: int) -> None:
    """Put a party's records in another order, ids and fields alike."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    orders = {
        name.removesuffix(":ids"): torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
        for name, ids in tensors.items()
        if name.endswith(":ids")
    }
    shuffled = {
        name: tensor[orders[name.split(":")[0].split("/")[0]]].contiguous()
        for name, tensor in tensors.items()
    }
    save_file(shuffled, path, metadata=metadata)
