"""What the graph says must come over a cut: names, types, shapes, rows, and whether it is training."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..graph.parts import TensorSpec
from ..wire import Kind, Message
from .blueprint import Crossing
from .misfits import unlike
from .party import Flight, LocalParty

__all__ = ["Expected"]

_PHASES = ("evaluation", "training")


class Expected:
    """Looks at each message of a crossing; one just like the last that was right is right as well.

    Args:
        party: Who receives.
        cut: The name of its frames.
        parcel: The crossing, and those whose labels ride along.
    """

    def __init__(self, party: LocalParty, cut: str, parcel: Sequence[Crossing]) -> None:
        self._party, self._cut = party, cut
        self._back = parcel[0].kind is Kind.GRADIENT
        calendar = party.shared.calendar
        self._most = max(calendar.batch_size, calendar.evaluation_batch_size)
        riders = [crossing.cut.name for crossing in parcel[1:] for _ in crossing.names]
        specs = [spec for crossing in parcel for spec in crossing.specs]
        self._wanted = list(zip([*parcel[0].names, *riders], specs, strict=True))
        self._refs = parcel[0].refs
        self._coded = parcel[0].coded  # what its tensors are cannot be told by the frame's layout alone
        self._right: tuple[object, ...] = ()

    def check(self, message: Message, flight: Flight, step: int) -> None:
        """Compare what came with what the graph says.

        Raises:
            FrameError: They differ, with what came and what was expected.
        """
        # The rows of a gradient's values are known, since these were made here.
        rows = flight.values[self._refs[0]].shape[0] if self._back else flight.rows
        came = message.layout, rows, message.training, flight.training
        if came != self._right or self._coded:
            self._look(message, flight, step, rows)
            self._right = came

    def _look(self, message: Message, flight: Flight, step: int, rows: int) -> None:
        tensors, wanted = message.tensors, self._wanted
        if len(tensors) != len(wanted):
            self._refuse(step, f"{len(tensors)} tensors", f"{len(wanted)}")
        if (rows or self._back) and message.training is not flight.training:
            self._refuse(step, _PHASES[message.training], _PHASES[flight.training])
        for (name, tensor), (title, spec) in zip(tensors, wanted, strict=True):
            if name != title or (tensor is not None and not _fits(tensor, spec)):
                self._refuse(step, f"{name} {_text(tensor)}", f"{title} {spec}")
            if tensor is None:
                if not self._back:  # only an input may have got no gradient
                    self._refuse(step, f"nothing for {title!r}", "a tensor")
                continue
            came = len(tensor) if tensor.ndim else 0
            rows = rows or came
            if not 0 < came <= self._most or came != rows:
                self._refuse(step, f"{title} of {came} rows", f"{rows or self._most} rows")

    def _refuse(self, step: int, got: str, expected: str) -> None:
        raise unlike(self._party, self._cut, step, got, expected)


def _fits(tensor: Tensor, spec: TensorSpec | None) -> bool:
    return spec is None or (tensor.dtype is spec.dtype and tensor.shape[1:] == spec.shape)


def _text(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else str(TensorSpec.of(tensor)) if tensor.ndim else "a number"
