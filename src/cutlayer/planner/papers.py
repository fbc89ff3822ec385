"""The cost tables of two papers, worked out line by line from networks of this package.

Vepakomma, Gupta, Swedish and Raskar 2018, "Split learning for health" (arXiv 1812.00564): client computing on CIFAR-10
with a VGG and client traffic on CIFAR-100 with a ResNet-50, at 100 and 500 clients. The paper gives no batch size, no
cut and no number of epochs; what is said here of them is what its four printed digits fit.

Singh, Vepakomma, Gupta and Raskar 2019, "Detailed comparison of communication efficiency of split learning and
federated learning" (arXiv 1909.09145): see `singh`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..graph import networks
from ..metering.table import Table
from ..schedules import RoundRobin
from .counting import Counted
from .events import Line
from .forecast import Forecast
from .pace import World
from .places import Network, Place
from .setting import Setting
from .singh import singh_lines, singh_table

__all__ = ["PAPERS", "Paper", "health_tables", "singh"]

ROWS = 50_000
"""Training rows of CIFAR-10 and of CIFAR-100, dealt out evenly."""
CLIENTS = (100, 500)
COMPUTE_EPOCHS = 175
TRAFFIC_EPOCHS = 100
LARGE_BATCH_ROUNDS = {100: 71.0, 500: 71.0}
FEDERATED_ROUNDS = {100: 16.0, 500: 12.65}
_TERA, _GIB, _GB = 1e12, 2**30, 1e9


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Tables of a paper, worked out again.

    Attributes:
        title: Which paper.
        lines: The derivation, line by line.
        tables: What came out beside what is printed there.
        figures: The numbers by name.
    """

    title: str
    lines: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: Mapping[str, float]


def health_tables() -> Paper:
    """Return the two tables of "Split learning for health"."""
    compute, computed, first = _compute()
    traffic, sent, second = _traffic()
    return Paper(
        title="Vepakomma, Gupta, Swedish, Raskar 2018, Split learning for health (arXiv 1812.00564)",
        lines=(*computed, "", *sent),
        tables=(compute, traffic),
        figures=first | second,
    )


def _compute() -> tuple[Table, list[str], dict[str, float]]:
    """Return client computing, CIFAR-10 with VGG-16."""
    with torch.device("meta"):  # shapes alone
        model = networks.vgg16(1000, head="imagenet", pixels=32)
        network = Network(model, torch.zeros(2, 3, 32, 32))
    counted = network.chain.counted(2)
    macs = sum(piece.forward for piece in counted) // 4  # two rows, and a multiply-add is two FLOPs
    biases = _bias_additions(model)
    first = network.counter(Place("vanilla", ("features.0",))).of("head", 2)
    conv = first.forward // 4
    honest = {
        "whole": sum(p.forward + p.backward for p in counted) // 2,
        "client": (first.forward + first.backward) // 2,
    }
    figures: dict[str, float] = {
        "vgg16 multiply-adds": macs,
        "vgg16 bias additions": biases,
        "conv1_1 multiply-adds": conv,
    }
    lines = [
        "Client computing, CIFAR-10, VGG-16",
        f"  VGG-16 with the head 4096-4096-1000 on 32x32 pixels: {macs:,} multiply-adds and {biases:,} additions of",
        f"  biases in the forward of a row = {macs + biases:,} operations (the paper's convention: forward only,",
        "  a multiply-add counts one)",
        f"  its first convolution alone (conv1_1, 3 to 64 channels, 3x3): {conv:,} multiply-adds",
        f"  calibrated: {COMPUTE_EPOCHS} epochs, and the cut behind conv1_1; the paper says neither",
    ]
    rows: list[tuple[str | int | float | None, ...]] = []
    for clients in CLIENTS:
        share = ROWS // clients
        passes = share * COMPUTE_EPOCHS
        whole, split = (macs + biases) * passes / _TERA, conv * passes / _TERA
        figures |= {f"whole network, {clients} clients": whole, f"split, {clients} clients": split}
        lines += [
            f"  {clients} clients: {ROWS:,} / {clients} = {share} rows each, x {COMPUTE_EPOCHS} = {passes:,} forwards",
            f"    large-batch SGD and federated averaging: {macs + biases:,} x {passes:,} = {whole:.4g} TFLOP",
            f"    split learning: {conv:,} x {passes:,} = {split:.5f} TFLOP, {whole / split:.1f} times less",
        ]
        forth = {name: flops * passes / _TERA for name, flops in honest.items()}
        printed = {100: ("29.4", "0.1548"), 500: ("5.89", "0.03")}[clients]
        rows += [
            ("large-batch SGD", clients, printed[0], f"{whole:.4g}", f"{forth['whole']:.4g}"),
            ("federated averaging", clients, printed[0], f"{whole:.4g}", f"{forth['whole']:.4g}"),
            ("split learning", clients, printed[1], f"{split:.5f}", f"{forth['client']:.4f}"),
        ]
    lines += [
        f"  Counted in full (forward and backward, a multiply-add is two FLOPs): {honest['whole']:,} FLOP a row for",
        f"  the whole network, {honest['client']:,} for conv1_1, which works out no gradient of the pixels:",
        f"  {honest['whole'] / honest['client']:.1f} times less",
    ]
    columns = ("method", "clients", "printed (TFLOP)", "worked out (TFLOP)", "forward and backward (TFLOP)")
    return (
        Table(title="Client computing, CIFAR-10, VGG-16", columns=columns, rows=tuple(rows)),
        lines,
        figures,
    )


def _bias_additions(model: nn.Module) -> int:
    """Return how many numbers a forward of one row adds a bias to, by a model without numbers."""
    found = [0]

    def note(module: nn.Module, _: object, output: torch.Tensor) -> None:
        found[0] += output[0].numel()

    hooks = [
        m.register_forward_hook(note)
        for m in model.modules()
        if isinstance(m, nn.Conv2d | nn.Linear) and m.bias is not None
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32, device="meta"))
    for hook in hooks:
        hook.remove()
    return found[0]


def _traffic() -> tuple[Table, list[str], dict[str, float]]:
    """Return client traffic, CIFAR-100 with ResNet-50."""
    network = Network(networks.resnet50(100, stem="imagenet"), torch.zeros(2, 3, 32, 32))
    width = network.find("conv1").bytes_per_sample // 4
    exchange = 2 * 4 * network.parameters
    figures: dict[str, float] = {"conv1 outputs": width, "resnet50 parameters": network.parameters}
    lines = [
        "Client traffic, CIFAR-100, ResNet-50",
        f"  cut behind the first convolution (7x7, stride 2) on 32x32 pixels: {width:,} numbers of 4 bytes cross for",
        "  a row, and as many come back",
        f"  ResNet-50 with 100 classes: {network.parameters:,} weights; down and up again: {exchange:,} bytes",
        f"  calibrated: {TRAFFIC_EPOCHS} epochs of split learning, {LARGE_BATCH_ROUNDS[100]:g} exchanges of "
        "large-batch SGD,",
        f"  {FEDERATED_ROUNDS[100]:g} and {FEDERATED_ROUNDS[500]:g} rounds of federated averaging; the paper says none "
        "of these",
    ]
    rows: list[tuple[str | int | float | None, ...]] = []
    for clients in CLIENTS:
        share = ROWS // clients
        split = share * TRAFFIC_EPOCHS * 2 * width * 4
        large, federated = (exchange * r[clients] / _GB for r in (LARGE_BATCH_ROUNDS, FEDERATED_ROUNDS))
        figures |= {f"split bytes, {clients} clients": split, f"split GiB, {clients} clients": split / _GIB}
        lines += [
            f"  {clients} clients: {share} rows x {TRAFFIC_EPOCHS} epochs x 2 x {width:,} x 4 bytes = {split:,} bytes"
            f" = {split / _GIB:.2f} GiB",
        ]
        printed = {100: ("13", "3", "6"), 500: ("14", "2.4", "1.2")}[clients]
        framed = _framed(network, clients)
        figures[f"framed GiB, {clients} clients"] = framed / _GIB
        rows += [
            ("large-batch SGD", clients, printed[0], f"{large:.3g} GB (calibrated)", None),
            ("federated averaging", clients, printed[1], f"{federated:.3g} GB (calibrated)", None),
            ("split learning", clients, printed[2], f"{split / _GIB:.2f} GiB", f"{framed / _GIB:.2f} GiB"),
        ]
    lines += [
        "  Counted in full: whole frames, with labels and the hand-over of the first layer and its momentum, round",
        "  robin, batches of 64",
    ]
    columns = ("method", "clients", "printed (GB)", "worked out", "frames, labels, hand-overs")
    return (
        Table(title="Client traffic, CIFAR-100, ResNet-50", columns=columns, rows=tuple(rows)),
        lines,
        figures,
    )


def _framed(network: Network, clients: int) -> int:
    """Return the bytes that the busiest client sends and gets in frames, as our meters would count them."""
    world = World(client_flops=1.0, server_flops=1.0, line=Line())
    setting = Setting(world=world, clients=clients, rows=ROWS, epochs=TRAFFIC_EPOCHS)
    place = Place("vanilla", ("conv1",))
    study = setting.study(network.graph(place, clients), RoundRobin())
    totals = Forecast(study, setting.dealt, counter=_Uncounted()).totals
    return max(
        totals.sent_bytes[f"client-{i}"] + totals.received_bytes[f"client-{i}"] for i in range(clients)
    )


class _Uncounted:
    """Counts no FLOPs, where only bytes are asked for."""

    def of(self, segment: str, rows: int) -> Counted:
        """See `counting.Counts`."""
        return Counted(forward=0, backward=0, infer=0, kept_bytes=0)


def singh() -> Paper:
    """Return split learning beside federated averaging by traffic, and where one overtakes the other."""
    table, figures = singh_table()
    return Paper(
        title="Singh, Vepakomma, Gupta, Raskar 2019, Detailed comparison of communication efficiency of split "
        "learning and federated learning (arXiv 1909.09145)",
        lines=tuple(singh_lines()),
        tables=(table,),
        figures=figures,
    )


PAPERS: Mapping[str, Callable[[], Paper]] = {"health-tables": health_tables, "singh": singh}
"""Papers by the words of ``cutlayer plan --paper``."""
