"""What parties and host say to each other beside the frames: small JSON messages, typed and bounded.

They say where everyone stands and where to go on; never a tensor, a record or an id.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from ..errors import FrameError
from ..runtime.positions import Position
from .notes import on_one_line

__all__ = [
    "MOST_POSITIONS", "Accuse", "Bye", "Done", "Go", "Held", "Hello", "Keep", "Message", "Offer", "Place",
    "Ready", "RollCall", "Status", "Stop", "place", "read_hello", "read_message", "written",
]  # fmt: skip

Rows = Annotated[int, Field(ge=0, lt=2**48)]
Name = Annotated[str, Field(max_length=255), AfterValidator(on_one_line)]
Text = Annotated[str, Field(max_length=2000), AfterValidator(on_one_line)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Generation = Annotated[int, Field(ge=0, lt=2**32)]
Place = tuple[Annotated[int, Field(ge=0, lt=2**31)], Annotated[int, Field(ge=0, le=2**40)]]
MOST_POSITIONS = 1000
"""So many of its last snapshots a party tells of."""
Places = Annotated[list[Place], Field(max_length=MOST_POSITIONS)]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Offer(_Said):
    """How many rows a party brings by split, and a hash of their ids in order of size.

    Attributes:
        rows: Number of rows by split.
        ids: SHA-256 by split over the study's digest and the sorted ids; parties that hold other columns of the
            same rows compare it.
    """

    rows: dict[Name, Rows] = Field(default_factory=dict, max_length=16)
    ids: dict[Name, Hash] = Field(default_factory=dict, max_length=16)

    @model_validator(mode="after")
    def _same_splits(self) -> Self:
        if self.rows.keys() != self.ids.keys():
            raise ValueError("rows and ids are of different splits")
        return self


class Hello(_Said):
    """What a party says first, before it is let in.

    Attributes:
        parts: SHA-256 of each thing that must be agreed on, by name.
        offer: What data it brings.
        card: Its key card (see :mod:`cutlayer.keys.sealing`).
    """

    parts: Annotated[dict[Name, Hash], Field(max_length=64)]
    offer: Offer
    card: Annotated[dict[Name, Annotated[str, Field(max_length=16384)]], Field(max_length=16)]


class RollCall(_Said):
    """Host to party: stop where you are, let go of what is after ``back_to``, and say which snapshots you have."""

    kind: Literal["roll call"] = "roll call"
    generation: Generation
    reason: Text = ""
    back_to: Place | None = None


class Ready(_Said):
    """Party to host: it has stopped, and holds snapshots of these positions."""

    kind: Literal["ready"] = "ready"
    generation: Generation
    positions: Places


class Go(_Said):
    """Host to party: go on from here.

    Attributes:
        generation: Frames of earlier generations count no more.
        position: The last position that all have in common.
        rows: Rows of each turn by split.
        leaves: Turns that do not take place for a while; see :class:`~cutlayer.schedules.calendar.Leave`.
        offers: What the parties brought that have data.
        cards: Key cards of all parties that take part.
    """

    kind: Literal["go"] = "go"
    generation: Generation
    position: Place
    rows: list[dict[Name, Rows]]
    leaves: list[tuple[Rows, Rows, Rows, Rows]] = Field(default_factory=list)
    offers: dict[Name, Offer] = Field(default_factory=dict)
    cards: dict[Name, dict[Name, Annotated[str, Field(max_length=16384)]]]


class Held(_Said):
    """Party to host: the snapshots that are now on its disk."""

    kind: Literal["held"] = "held"
    positions: Places


class Keep(_Said):
    """Host to party: nobody will go back behind this position; older snapshots may go."""

    kind: Literal["keep"] = "keep"
    position: Place


class Status(_Said):
    """Host to party: who is connected, and where the study stands at the host.

    Attributes:
        connected: The parties that are there.
        missing: Those that the study waits for.
        text: That, in words.
        turn: The parties whose turn it is.
        epoch: The epoch, counted from 0.
        step: The step, counted over the whole training.
        steps: Steps of the whole training.
    """

    kind: Literal["status"] = "status"
    connected: list[Name]
    missing: list[Name]
    text: Text = ""
    turn: list[Name] = Field(default_factory=list)
    epoch: Rows = 0
    step: Rows = 0
    steps: Rows = 0


class Accuse(_Said):
    """Party to host: what ``sender`` sent is not what it must be."""

    kind: Literal["accuse"] = "accuse"
    generation: Generation
    sender: Name
    what: Text


class Done(_Said):
    """Party to host: my part of the program is done."""

    kind: Literal["done"] = "done"
    generation: Generation


class Bye(_Said):
    """Host to party: everybody is done. And back: so I have heard."""

    kind: Literal["bye"] = "bye"


class Stop(_Said):
    """Host to party: the study stops here; snapshots are kept."""

    kind: Literal["stop"] = "stop"
    reason: Text


Message = RollCall | Ready | Go | Held | Keep | Status | Accuse | Done | Bye | Stop
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def written(message: Message | Hello) -> bytes:
    """Return ``message`` as it travels."""
    return message.model_dump_json().encode()


def read_message(text: bytes, sender: str) -> Message:
    """Return the message in ``text``.

    Raises:
        FrameError: It is none.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise _refused(error, sender) from error


def read_hello(text: bytes, sender: str) -> Hello:
    """Return what a party says first.

    Raises:
        FrameError: It is no such message.
    """
    try:
        return Hello.model_validate_json(text)
    except ValidationError as error:
        raise _refused(error, sender) from error


def place(position: Position) -> Place:
    """Return ``position`` as it travels."""
    return position.epoch, position.item


def _refused(error: ValidationError, sender: str) -> FrameError:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "it"
    wrong = ascii(f"{where}: {first['msg']}")[1:-1][:400]  # it quotes what came
    refusal = FrameError(
        f"a message of {sender!r} is not what it must be: {wrong}",
        todo="both sides must run the same version of cutlayer",
    )
    refusal.sender = sender
    return refusal
