"""The study at one party, built without anybody else's data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import Holdings, PartyData
from ..errors import DataError, StudyError, nearest
from ..graph import SplitGraph
from .building import study_of
from .dealing import is_at_hand, pooled
from .graph_tables import ChainTable
from .party_tables import NetworkTable
from .people import cast_of, declared, is_declared
from .reading import PartyStudy

if TYPE_CHECKING:
    from ..study import Study
    from .reading import StudyFile

__all__ = ["at_party", "study_and_holdings"]


def study_and_holdings(file: StudyFile) -> tuple[Study, Holdings]:
    """Return the study and who holds what."""
    holdings = file.holdings()
    return _study(file, holdings), holdings


def at_party(file: StudyFile, party: str, data: Path | None) -> PartyStudy:
    """Return the study as ``party`` has it; see :meth:`StudyFile.at`."""
    dealt = None if is_declared(file) else _pooled(file)
    study = _study(file, dealt)
    graph = study.graph
    role = {member.name: member.role for member in graph.parties}.get(party)
    if role is None:
        raise StudyError(
            f"{file.path.name} has no party {party!r}", todo=nearest(party, [p.name for p in graph.parties])
        )
    own = _own(file, party, role, data, dealt)
    if own is not None:
        own = replace(own, group=graph.roles[role].parties.index(party))
        _check_own(graph, own)
    return PartyStudy(party, study, own, _network(file, graph))


def _study(file: StudyFile, holdings: Holdings | None) -> Study:
    if is_declared(file) or holdings is None:
        return study_of(file, declared(file))
    return study_of(file, cast_of(file, holdings) if file.tables.parties else holdings)


def _pooled(file: StudyFile) -> Holdings:
    if is_at_hand(file):
        return pooled(file)
    raise StudyError(
        f"{file.path.name} does not say who takes part and what they hold, and the pooled data are not here",
        todo="add [parties] and [fields]; `cutlayer fields` prints the lines of a party's own data",
    )


def _own(
    file: StudyFile, party: str, role: str, data: Path | None, dealt: Holdings | None
) -> PartyData | None:
    if role not in file.tables.roles.data:
        if data is not None:
            raise StudyError(
                f"the role {role!r} holds no data", party=party, got=str(data), todo="name no folder of data"
            )
        return None
    if data is not None:
        from .own_data import own_records

        return own_records(file, party, role, data)
    if dealt is None and not is_at_hand(file):
        raise StudyError(
            "the pooled data are not here", party=party, todo="name the folder of the party's own data"
        )
    return (dealt or pooled(file)).party(party)


def _check_own(graph: SplitGraph, own: PartyData) -> None:
    """Refuse records that are not what the graph says that the role holds."""
    told = {n: s and (s.shape, s.dtype) for n, s in graph.roles[own.role].fields.items()}
    held = {name: (spec.shape, spec.dtype) for name, spec in own.specs().items()}
    odd = next((n for n in (*told, *held) if n not in told or n not in held or told[n] != held[n]), None)
    if odd is not None:
        specs = own.specs()
        raise DataError(
            f"the field {odd!r} is not what the study says that {own.role!r} holds",
            party=own.name,
            got=str(specs[odd]) if odd in specs else "nothing",
            expected=str(graph.roles[own.role].fields.get(odd, "nothing")),
            todo="bring the data to it, or ask the study lead to correct [fields]; "
            "`cutlayer fields` shows what data give",
        )


def _network(file: StudyFile, graph: SplitGraph) -> NetworkTable:
    """Return ``[network]``, its parties found in the graph."""
    table = file.tables.network
    places = {party.name: party.role for party in graph.parties}
    serving = graph.roles[file.tables.roles.host].parties
    host = table.host or serving[0]
    for name in (host, *table.late):
        if name not in places:
            raise StudyError(
                f"there is no party {name!r} ({file.path.name}, [network])", todo=nearest(name, list(places))
            )
    several = {role.name for role in graph.roles.values() if len(role.parties) > 1}
    if not table.host and len(serving) > 1:
        raise StudyError(
            f"several parties fill the role {file.tables.roles.host!r} ({file.path.name}, [network])",
            got=", ".join(serving),
            todo=f'say who is dialled: host = "{serving[0]}"',
        )
    if isinstance(file.tables.graph, ChainTable) and table.absent == "skip" and not several:
        raise StudyError(
            f'absent = "skip" would skip the only client ({file.path.name}, [network])',
            todo='say absent = "wait" or "stop"',
        )
    for name in table.late:
        if name == host or places[name] not in several:
            raise StudyError(
                f"{name!r} takes part in every turn and cannot come late ({file.path.name}, [network])",
                todo="name parties of a role that has several",
            )
    for role in several:
        if set(graph.roles[role].parties) <= set(table.late):
            raise StudyError(
                f"all parties of the role {role!r} may come late ({file.path.name}, [network])",
                todo="leave one of them out of late, so that there is somebody to begin with",
            )
    return table.model_copy(update={"host": host})
