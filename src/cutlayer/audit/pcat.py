"""PCAT: a pseudo-client, trained on a few public rows against the receiver's own segment as it was in every step.

Gao and Zhang 2023, "PCAT: functionality and data stealing from split learning by pseudo-client attack" (USENIX
Security). The server stays honest. What it learns from the client's rows pulls the pseudo-client, which is trained on
public rows of the same labels against the same weights, to where the client is; then a decoder of it opens what the
client sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Guess, Knowledge, OnProgress
from .decoding import Decoding, decoded, halves
from .learning import applied, encoder, frozen, seeded
from .transcript import OwnState, Transcript

__all__ = ["Pcat"]

_BATCH = 64


@dataclass(frozen=True)
class Pcat(Decoding):
    """A pseudo-client against the receiver's evolving segment, then a decoder of it.

    Attributes:
        steps: Batches that the decoder learns from.
        lr: Adam's step size, of both.
        rows: How many rows are decoded, the last that were seen.
        begin: The share of the run that passes before it begins, the paper's late start.
        each: Batches that the pseudo-client learns from against each of the receiver's states.
    """

    word: ClassVar[str] = "pcat"
    adversary: ClassVar[str] = "the party that receives activations, with a few public rows; it stays honest"
    needs: ClassVar[str] = (
        "activations, its own segment's weights all through the training, a few public rows with labels"
    )
    source: ClassVar[str] = "Gao and Zhang 2023 (USENIX Security)"
    begin: float = 0.1
    each: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("begin", 0 <= self.begin < 1, "0 to 1, less than 1")
        self._check_whole("each")

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: what is needed and missing."""
        if not seen.sights("activation"):
            return "no activations were seen"
        if not known.has("own", "public_x", "public_y"):
            return "it has no segment of its own, or no public rows with labels"
        if not _own_states(seen, known):
            return (
                "its own segment's weights were not kept all through the training: watch(…, states_every=1)"
            )
        return None

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return what the pseudo-client's decoder makes of the activations seen."""
        self._refuse(seen, known)
        x, y = known.tensor("public_x"), known.tensor("public_y").reshape(-1).long()
        first, second = halves(on_progress)
        with seeded(seed, self.word):
            if known.has("architecture"):
                pseudo = known.module("architecture").requires_grad_()
            else:
                z = seen.rows("activation")
                pseudo = encoder(known.shape, z.shape[1:], positive=bool((z >= 0).all()))
            own = frozen(known.module("own"))
            self._imitate(pseudo, own, x, y, seen, known, first)
            pseudo.eval()
            right = float((applied(nn.Sequential(pseudo, own), x).argmax(1) == y).double().mean())
            note = f"its pseudo-client is right on {100 * right:.0f} % of the public rows"
            return decoded(
                seen, known, x, applied(pseudo, x), self, on_progress=second, note=note, aligned=True
            )

    def _imitate(
        self,
        pseudo: nn.Module,
        own: nn.Module,
        x: Tensor,
        y: Tensor,
        seen: Transcript,
        known: Knowledge,
        on_progress: OnProgress,
    ) -> None:
        """Train the pseudo-client against each of the receiver's own states, on rows of the labels of that step."""
        states = _own_states(seen, known)
        states = states[int(self.begin * len(states)) :]
        labels = {s.step: s.rows for kind in ("own", "label") for s in seen.sights(kind, training=True)}
        optimizer = torch.optim.Adam(pseudo.parameters(), lr=self.lr)
        pseudo.train()
        for number, state in enumerate(states):
            own.load_state_dict(state.weights)
            for _ in range(self.each):
                rows = _rows_like(y, labels.get(state.step))
                optimizer.zero_grad()
                F.cross_entropy(own(pseudo(x[rows])), y[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if on_progress is not None:
                on_progress((number + 1) / len(states))


def _own_states(seen: Transcript, known: Knowledge) -> list[OwnState]:
    """Return the kept weights of the segment that is its own, by the names of its parameters."""
    names = set(known.own.state_dict()) if known.own is not None else set()
    return [state for state in seen.states if set(state.weights) == names]


def _rows_like(y: Tensor, labels: Tensor | None) -> Tensor:
    """Return numbers of public rows with these labels as far as there are any, else of any rows [B]."""
    if labels is None or labels.is_floating_point():
        return torch.randint(len(y), (min(_BATCH, len(y)),))
    same = (labels.reshape(-1, 1) == y[None, :]).float()
    same = same[same.sum(1) > 0]
    if not len(same):
        return torch.randint(len(y), (min(_BATCH, len(y)),))
    return torch.multinomial(same, 1)[:, 0]
