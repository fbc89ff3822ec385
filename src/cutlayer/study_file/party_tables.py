"""The tables ``[network]``, ``[parties]`` and ``[fields]``: how parties on different machines take part."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from ..errors import nearest
from .data_tables import Labels
from .graph_tables import ChainTable, ExtendedVanillaTable, GraphTable, MergedTable, MultiHopTable
from .words import Name, Positive, Table, contradiction

__all__ = ["FieldsTable", "NetworkTable", "PartiesTable", "Roles", "check_parties", "roles_of"]

FIELD = re.compile(
    r"(float64|float32|float16|bfloat16|int8|int16|int32|int64|uint8|bool)\[((?:\d+(?:, ?\d+)*)?)\]"
)
"""Type and shape of one sample, ``float32[1, 28, 28]``."""


def _address(word: str) -> str:
    host, _, port = word.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise PydanticCustomError(
            "expected", "{words}", {"words": 'host and port: "server.example.org:7443"'}
        )
    return word


def _field(word: str) -> str:
    if not FIELD.fullmatch(word):
        words = 'type and shape of one sample: "float32[1, 28, 28]", "int64[]" for one number'
        raise PydanticCustomError("expected", "{words}", {"words": words})
    return word


class NetworkTable(Table):
    """``[network]``: where the parties meet, and what happens when one is missing.

    Attributes:
        host: The party to which all others dial; empty: the server.
        address: Where they dial, ``host:port``.
        snapshot_every: Training steps between two snapshots.
        absent: What happens when a party is gone: all wait, a client's turns are left out, or the study stops.
        absent_after_s: Seconds without a party before it is skipped or the study stops.
        late: Clients that need not be there when the study begins.
        max_frame_mb: Largest frame that is made or accepted, in 2**20 bytes; None: what the program needs.
        carrier: How parties connect: mutual TLS by itself, or within gRPC.
    """

    host: Name | Literal[""] = ""
    address: Annotated[str, AfterValidator(_address)] = "localhost:7443"
    snapshot_every: Positive = 200
    absent: Literal["wait", "skip", "stop"] = "wait"
    absent_after_s: Annotated[float, Field(gt=0)] = 60.0
    late: list[Name] = Field(default_factory=list)
    max_frame_mb: Positive | None = None
    carrier: Literal["tls", "grpc"] = "tls"


PartiesTable = dict[Name, str]
"""``[parties]``: the role of each party, in the order of turns."""
FieldsTable = dict[str, Annotated[dict[str, Annotated[str, AfterValidator(_field)]], Field(min_length=1)]]
"""``[fields.ROLE]``: type and shape of one sample of what each party of the role holds, by name."""


class Roles(NamedTuple):
    """The roles of a study by what they hold.

    Attributes:
        inputs: Those with inputs.
        labels: Those with labels and nothing else.
        others: Those without data.
        host: The one that serves every turn, to which parties dial unless ``[network]`` says otherwise.
    """

    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    others: tuple[str, ...]
    host: str

    @property
    def data(self) -> tuple[str, ...]:
        """Those whose parties hold data."""
        return (*self.inputs, *self.labels)

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.inputs, *self.labels, *self.others)


def roles_of(graph: GraphTable, labels: Labels | None) -> Roles:
    """Return the roles that the graph's table gives; ``labels`` is that of ``[data]``."""
    if isinstance(graph, ChainTable):
        hops: tuple[str, ...] = ()
        if isinstance(graph, MultiHopTable):
            hops = tuple(graph.hops or (f"hop-{i}" for i in range(1, len(graph.cuts))))
        if labels is None:
            return Roles(("client",), (), (*hops, graph.server), graph.server)
        return Roles(("client",), (graph.server,), hops, graph.server)
    inputs = tuple(graph.bottoms)
    holders = tuple(role for role in graph.label_holders if role not in inputs)
    worker = (graph.worker,) if isinstance(graph, ExtendedVanillaTable) else ()
    return Roles(inputs, holders, worker, graph.label_holders[0])


def check_parties(
    graph: GraphTable,
    labels: Labels | None,
    parties: PartiesTable,
    fields: FieldsTable,
    network: NetworkTable,
) -> None:
    """Refuse tables that do not fit the graph or each other.

    Raises:
        PydanticCustomError: Says what, and what to do.
    """
    roles = roles_of(graph, labels)
    _check_names(roles, parties, fields)
    if isinstance(graph, MergedTable):
        _check_nobody_is_left_out(network)
    if network.late and network.absent != "skip":
        raise contradiction(
            f'[network] late names {network.late[0]!r}, but absent = "{network.absent}"',
            'who may come late may also be missed: say absent = "skip"',
        )
    for name in (*network.late, *([network.host] if network.host else [])):
        if parties and name not in (*parties, *(role for role in roles.all if role not in parties.values())):
            raise contradiction(
                f"[network] names {name!r}, who is not in [parties]", nearest(name, list(parties))
            )


def _check_names(roles: Roles, parties: PartiesTable, fields: FieldsTable) -> None:
    for table, named in (("parties", parties.values()), ("fields", fields)):
        for role in named:
            if role not in roles.all:
                raise contradiction(
                    f"[{table}] names the role {role!r}, which [graph] has not",
                    nearest(role, list(roles.all)),
                )
    for role in roles.inputs if parties else ():
        if role not in parties.values():
            raise contradiction(f"[parties] has nobody for the role {role!r}", f'add NAME = "{role}"')
    for role in fields:
        if role in roles.others:
            raise contradiction(f"[fields] has {role!r}, which holds no data", f"drop [fields.{role}]")
    for role in roles.data if fields else ():
        if role not in fields:
            raise contradiction(
                f"[fields] does not say what {role!r} holds",
                f'add [fields.{role}], for example with {"x" if role in roles.inputs else "y"} = "float32[30]"',
            )
    if fields and not any("y" in of for of in fields.values()):
        raise contradiction("[fields] has no labels", f'add y = "int64[]" to [fields.{roles.data[-1]}]')


def _check_nobody_is_left_out(network: NetworkTable) -> None:
    if network.absent == "skip" or network.late:
        raise contradiction(
            "[network] would go on without a party, but here each party holds a part of every record",
            'a vertical study never goes on with zeros in a missing party\'s place; say absent = "wait" or "stop"',
        )
