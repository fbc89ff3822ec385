"""Who trains what: each side of the comparison, as a command and the files that its user writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from environments import FATE, NVFLARE, TORCHSLICER, Environment

_CUTLAYER = ("{scripts}/cutlayer", "local", "{work}/study.toml", "--out", "{work}/out")
_FATE = (
    "--parties", "guest:9999", "host:10000", "--data_dir", "{work}/data", "--log_level", "WARNING", "--rows", "{rows}"
)  # fmt: skip
_WORKERS = ("torchslicer/worker.py", "torchslicer/workers.sh")
_SLICED_W = ("torchslicer/workload_w.py", *_WORKERS)
_CIFAR10 = "nvflare/cifar10_network.py"
_SLICED_CIFAR10 = ("torchslicer/cifar10.py", _CIFAR10, *_WORKERS)
_RESNET = "torchslicer/resnet18_network.py"
_SLICED_RESNET = ("torchslicer/resnet18.py", _RESNET, *_WORKERS)

# its 5 s and 3 s are too few on a machine that is busy
_PATIENT = {"WORKER_INIT_RPC_TIMEOUT": "60", "HEARTBEAT_TIMEOUT": "60"}


def _sliced(driver: str, folder: str = "{here}/torchslicer") -> tuple[str, ...]:
    """Return the command that starts two workers of TorchSlicer and ``driver``, which lie in ``folder``."""
    return ("sh", f"{folder}/workers.sh", "{python}", f"{folder}/{driver}", "{rows}", "{work}/runs")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side.

    Attributes:
        name: As the tables call it.
        work: The workload: ``w``, ``breast``, ``cifar10`` or ``resnet18``.
        command: The command; ``{python}`` is its environment's, in the folder ``{scripts}``, ``{rows}`` the archive,
            ``{here}`` this folder, and ``{work}`` one of its own, in which it is started.
        files: What its user writes.
        environment: Where it is installed; None for that of cutlayer.
        copied: Whether the files are copied to its folder, beside the rows.
        log: A log of events in ``{work}`` that tells what marks tell for others.
        variables: What is added to the environment.
        told: What stands beside the figures.
    """

    name: str
    work: str
    command: tuple[str, ...]
    files: tuple[str, ...]
    environment: Environment | None = None
    copied: bool = False
    log: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    told: str = ""


SIDES = (
    Side(
        name="one process, uncut", work="w", command=("{python}", "{here}/plain_w.py", "{rows}"),
        files=("plain_w.py",), told="nothing crosses anything",
    ),
    Side(
        name="cutlayer", work="w", command=_CUTLAYER, files=("cutlayer/w/study.toml", "cutlayer/w/model.py"),
        copied=True, log="out/server/log.jsonl", told="two parties over mutual TLS, with snapshots and disclosure logs",
    ),
    Side(
        name="TorchSlicer, TCP", work="w", command=_sliced("workload_w.py"), files=_SLICED_W, environment=TORCHSLICER,
        variables={"TENSOR_TRANSPORT": "tcp", **_PATIENT},
        told="driver and two workers; the driver has rows and labels; no TLS",
    ),
    Side(
        name="TorchSlicer, gRPC", work="w", command=_sliced("workload_w.py"), files=_SLICED_W, environment=TORCHSLICER,
        variables={"TENSOR_TRANSPORT": "grpc", **_PATIENT},
        told="driver and two workers; the driver has rows and labels; no TLS",
    ),
    Side(
        name="FATE", work="w",
        command=("{python}", "{here}/fate/workload_w.py", *_FATE),
        files=("fate/workload_w.py",), environment=FATE,
        told="guest and host of a standalone deployment, which meet in a database on disk",
    ),
    Side(
        name="NVFLARE Collab", work="w", command=("{python}", "{here}/nvflare/workload_w.py", "{rows}", "{work}/ws"),
        files=("nvflare/workload_w.py",), environment=NVFLARE, told="server and site of its simulator, TCP, no TLS",
    ),
    Side(
        name="cutlayer", work="breast", command=_CUTLAYER,
        files=("cutlayer/breast/study.toml", "cutlayer/breast/model.py"),
        copied=True, log="out/guest/log.jsonl", told="two parties over mutual TLS, with snapshots and disclosure logs",
    ),
    Side(
        name="FATE", work="breast", command=("{python}", "{here}/fate/breast.py", *_FATE),
        files=("fate/breast.py",), environment=FATE,
        told="guest and host of a standalone deployment, which meet in a database on disk",
    ),
    Side(
        name="cutlayer", work="cifar10", command=_CUTLAYER,
        files=("cutlayer/cifar10/study.toml", "cutlayer/cifar10/model.py"),
        copied=True, log="out/server/log.jsonl", told="two parties over mutual TLS, with snapshots and disclosure logs",
    ),
    Side(
        name="NVFLARE Collab", work="cifar10",
        command=("{python}", "{here}/nvflare/cifar10.py", "{rows}", "{work}/ws"),
        files=("nvflare/cifar10.py", _CIFAR10), environment=NVFLARE,
        told="server and two sites of its simulator, TCP, no TLS",
    ),
    Side(
        name="TorchSlicer, TCP", work="cifar10", command=_sliced("cifar10.py", "{work}"), files=_SLICED_CIFAR10,
        copied=True, environment=TORCHSLICER, variables={"TENSOR_TRANSPORT": "tcp", **_PATIENT},
        told="driver and two workers; the driver has rows and labels; no TLS; float32 over the cut",
    ),
    Side(
        name="FATE", work="cifar10", command=("{python}", "{work}/cifar10.py", *_FATE),
        files=("fate/cifar10.py", _CIFAR10), copied=True, environment=FATE,
        told="guest and host of a standalone deployment, which meet in a database on disk; float32 over the cut",
    ),
    Side(
        name="cutlayer", work="resnet18", command=_CUTLAYER, files=("cutlayer/resnet18/study.toml", _RESNET),
        copied=True, log="out/server/log.jsonl", told="two parties over mutual TLS, with snapshots and disclosure logs",
    ),
    Side(
        name="TorchSlicer, TCP", work="resnet18", command=_sliced("resnet18.py"), files=_SLICED_RESNET,
        environment=TORCHSLICER, variables={"TENSOR_TRANSPORT": "tcp", **_PATIENT},
        told="driver and two workers; the driver has rows and labels; no TLS",
    ),
    Side(
        name="TorchSlicer, gRPC", work="resnet18", command=_sliced("resnet18.py"), files=_SLICED_RESNET,
        environment=TORCHSLICER, variables={"TENSOR_TRANSPORT": "grpc", **_PATIENT},
        told="driver and two workers; the driver has rows and labels; no TLS",
    ),
)  # fmt: skip
"""Everybody, by workload, in the order in which they run."""
