"""A made-up run that looks real: five hospitals with labels of their own, and a server between."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from cutlayer.graph import Loss, Role, Segment, SplitGraph, TensorSpec
from cutlayer.metering.events import (
    Began,
    Computed,
    Defended,
    Ended,
    EpochEnded,
    Event,
    Measured,
    Noted,
    Placed,
    Traffic,
    Worked,
    encode_event,
)  # fmt: skip

SHARES = {"head": "client", "body": "server", "tail": "client"}


def graph(clients: int) -> SplitGraph:
    x = torch.zeros(2, 20)
    held = {"x": TensorSpec.of(x), "y": TensorSpec((), torch.int64)}
    names = tuple(f"hospital-{i + 1}" for i in range(clients))
    return SplitGraph(
        name="u_shaped",
        roles=[Role("client", names, held), Role("server", ("server",))],
        segments=[
            Segment("head", "client", nn.Linear(20, 16), ("x",)),
            Segment("body", "server", nn.Linear(16, 16), ("head",)),
            Segment("tail", "client", nn.Linear(16, 2), ("body",)),
        ],
        losses=[Loss(role="client", prediction="tail")],
        example={"client": {"x": x}},
    )


def events(clients: int = 5, epochs: int = 4, name: str = "Sepsis in five hospitals") -> list[Event]:
    """Return the log of a run that came to its end."""
    split = graph(clients)
    found: list[Event] = [beginning(split, epochs, name)]
    for segment in split.segments.values():
        size = sum(p.numel() for p in segment.module.parameters())
        found.append(
            Placed(
                segment=segment.name, role=segment.role, parameters=size, trainable=size, state_bytes=4 * size
            )
        )
    for epoch in range(epochs):
        for index, party in enumerate(split.roles["client"].parties):
            found += turn(epoch, party, 40 + index)
        found += [
            EpochEnded(
                epoch=epoch, steps=20, rows=600, losses={"loss": 0.7 / (epoch + 1)}, seconds=1.5 + epoch
            ),
            Worked(epoch=epoch, party="server", op="forward", calls=20, seconds=0.2),
            Worked(epoch=epoch, party="server", op="receive", calls=40, seconds=0.05),
        ]
    found.append(
        Noted(
            subject="central twin",
            text="The 578 weights of the split network and of its central twin are equal to the last bit.",
            figures={"weights": 578.0, "equal": 1.0},
        )
    )
    found.append(
        Noted(subject="alone: hospital-1", text="Alone it would have reached less.", figures={"auc": 0.71})
    )
    ended = Ended(
        reason="all epochs done",
        epochs=epochs,
        best_epoch=epochs - 1,
        seconds=14.2,
        peak_memory_bytes=4 * 10**8,
    )
    return [*found, ended]


def beginning(split: SplitGraph, epochs: int, name: str) -> Began:
    return Began(
        name=name, study=split.name, digest=split.digest, seed=7, epochs=epochs, batch_size=32,
        schedule="round robin, hand-over peer to peer", optimizer="Adam(lr=0.001)",
        parties={p.name: p.role for p in split.parties}, graph=split.describe(), mermaid=split.mermaid(),
        svg=split.svg(), disclosures={
            role.parties[0]: split.disclosure(role.parties[0], 32) for role in split.roles.values()
        },
        holdings="party       role    train\nhospital-1  client  120",
        versions={"cutlayer": "0.1.0", "torch": "2.13.0"}, started="2026-01-30T09:00:00+00:00",
    )  # fmt: skip


def turn(epoch: int, party: str, rows: int) -> list[Event]:
    """Return what one client's turn left in the log."""
    found: list[Event] = []
    for cut, content, sender, receiver in (
        ("head->server", "activation", party, "server"), ("body->client", "activation", "server", party),
        ("body->client", "gradient", party, "server"), ("head->server", "gradient", "server", party),
    ):  # fmt: skip
        found.append(frames(epoch, "training", cut, content, sender, receiver, 3 * rows * 64))
        if content == "activation":
            found.append(frames(epoch, "evaluation", cut, content, sender, receiver, rows * 64))
    following = "hospital-1" if party.endswith("-2") else "hospital-2"
    found.append(frames(epoch, "hand-over", "hand-over of client", "handover", party, following, 1480))
    for segment, place, cost in (("head", party, 640), ("body", "server", 512), ("tail", party, 64)):
        for direction, times in (("forward", 3), ("backward", 6), ("infer", 1)):
            phase = "evaluation" if direction == "infer" else "training"
            found.append(
                Computed(
                    epoch=epoch, phase=phase, party=place, segment=segment, direction=direction, calls=4,
                    flops=cost * rows * times,
                )
            )  # fmt: skip
    for op, seconds in (
        ("load", 0.03),
        ("forward", 0.08),
        ("backward", 0.11),
        ("send", 0.02),
        ("step", 0.04),
    ):
        found.append(Worked(epoch=epoch, party=party, op=op, calls=4, seconds=seconds * rows / 40))
    for split in ("valid", "test"):
        metrics = {"loss": 0.6 / (epoch + 1), "accuracy": 0.7 + 0.04 * epoch, "auc": 0.75 + 0.04 * epoch}
        found.append(Measured(epoch=epoch, split=split, loss="loss", party=party, rows=rows, metrics=metrics))
    return found


def frames(epoch: int, phase: str, cut: str, content: str, sender: str, receiver: str, size: int) -> Traffic:
    return Traffic(
        epoch=epoch, phase=phase, cut=cut, content=content, sender=sender, receiver=receiver,
        frames=4, frame_bytes=size + 4 * 120, tensor_bytes=size,
    )  # fmt: skip


def leaking_events(facts: dict[str, list[float]]) -> list[Event]:
    """Return the run in which a client measured these leaks of labels, a value for each epoch."""
    told = [
        Defended(
            epoch=epoch, party="hospital-1", cut="body<-client", defence="label leak", facts={name: value}
        )
        for name, values in facts.items()
        for epoch, value in enumerate(values)
    ]
    return [*events(epochs=max(map(len, facts.values()))), *told]


def write(folder: Path, log: list[Event], *, tail: str = "") -> Path:
    """Write ``log`` into ``folder`` as a run does, with ``tail`` after it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(encode_event(event) + "\n" for event in log)
    (folder / "log.jsonl").write_text(text + tail, encoding="utf-8")
    return folder


def own_events(party: str, clients: int = 5) -> list[Event]:
    """Return the log that ``party`` kept of its own part in the same run."""
    whole = events(clients)
    found: list[Event] = []
    for event in whole:
        if isinstance(event, Began):
            statement = graph(clients).disclosure(party, 32)
            event = dataclasses.replace(
                event, party=party, disclosures={party: statement}, holdings=f"{party} holds train 120 rows"
            )
        if isinstance(event, EpochEnded) and party == "server":
            event = dataclasses.replace(event, rows=0, losses={})
        whose = getattr(event, "sender", getattr(event, "party", party))
        if whose == party and not isinstance(event, Noted):
            found.append(event)
    return found
