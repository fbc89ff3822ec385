"""A study at its host: the port that parties dial, the conductor, and the host's own part."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

from ..errors import CutlayerError, LogError, TransportError
from ..graph.split_graph import SplitGraph
from ..keys.credentials import Credentials
from ..keys.sealing import Sealer
from ..schedules.steps import data_roles
from ..transports import Transport
from ..transports.network import Hub, NetworkSettings
from ..transports.network.carriers.reaching import is_this_machine
from .conductor import Absence, Conductor
from .notes import Notes
from .participant import Part, Participant, Watcher
from .remembered import Roster, read_roster, write_roster

__all__ = ["routes", "serve"]

_LINGER_S = 3.0
_FAREWELL_S = 30.0


def serve(
    part: Part,
    credentials: Credentials,
    address: str,
    watcher: Watcher,
    *,
    absence: Absence,
    settings: NetworkSettings,
) -> Path:
    """Host a study and perform the host's own part; return its folder when all are done.

    Args:
        part: The host's part.
        credentials: Its key and certificate.
        address: Where to listen, ``host:port``; port 0 takes any that is free.
        watcher: Who is shown what happens.
        absence: What to do about parties that do not come back.
        settings: Limits of the network.

    Raises:
        CutlayerError: Whatever ended it; started again in the same folder, it goes on.
    """
    part.check()
    part = replace(part, apart=not is_this_machine(address.rpartition(":")[0]))
    sealer = Sealer(credentials, part.study.digest)
    participant = Participant(part, sealer, watcher, lambda epoch: conductor.epoch_begins(epoch))
    notes = Notes(watcher.note)

    def keep(roster: Roster) -> None:
        """Keep the roster; a disk that is full is the host's trouble, not that of whoever just said something."""
        try:
            write_roster(part.folder, roster)
        except LogError as error:
            participant.fail(error)

    conductor = Conductor(
        part.study.graph,
        part.party,
        part.study.parts,
        absence,
        course=part.study.course,
        note=notes,
        check_card=sealer.check,
        roster=read_roster(part.folder),
        keep_roster=keep,
        where=participant.where,
        answer=json.dumps(sealer.card.to_json()).encode(),
    )
    ways = routes(part.study.graph)
    hub = Hub(
        credentials,
        address,
        [party.name for party in part.study.graph.parties],
        admit=conductor.admit,
        on_control=conductor.on_control,
        on_presence=conductor.on_presence,
        on_incident=lambda who, what: notes(who, what, mark="!! "),
        allowed=lambda source, target: (source, target) in ways,
        settings=settings,
    )
    conductor.connect(_Lines(hub, participant))
    participant.connection = _Home(hub, conductor)
    ended = threading.Event()
    try:
        port = hub.start()
        watcher.note(f"{part.party} listens on {address.rpartition(':')[0]}:{port}")
        conductor.admit(part.party, participant.hello)
        conductor.on_presence(part.party, sealer.card.incarnation, True)
        threading.Thread(target=_tick, args=(conductor, participant, ended), daemon=True).start()
        folder = participant.run()
        _see_off(conductor, watcher)
        return folder
    finally:
        ended.set()
        hub.close(_LINGER_S)


class _Lines:
    """How the conductor reaches everyone."""

    def __init__(self, hub: Hub, participant: Participant) -> None:
        self._hub, self._participant = hub, participant

    def control(self, party: str, message: bytes) -> None:
        if party == self._participant.part.party:
            self._participant.on_control(message)
        else:
            self._hub.control(party, message)

    def call_off(self, generation: int) -> None:
        self._hub.call_off(generation)

    def drop(self, party: str, reason: str) -> None:
        self._hub.drop(party, reason)


class _Home:
    """How the host's own part reaches the conductor and the others."""

    def __init__(self, hub: Hub, conductor: Conductor) -> None:
        self._hub, self._conductor = hub, conductor

    @property
    def transport(self) -> Transport:
        return self._hub.transport

    def control(self, message: bytes) -> None:
        self._conductor.on_control(self._hub.party, message)

    def begin(self, generation: int) -> None:
        self._hub.begin(generation)

    def interrupt(self, error: CutlayerError) -> None:
        self._hub.interrupt(error)


def routes(graph: SplitGraph) -> frozenset[tuple[str, str]]:
    """Return who may send frames to whom: over a cut of a turn, to match its rows, or within a role."""
    pairs: set[tuple[str, str]] = set()
    for turn in graph.turns:
        members = {turn[role] for role in data_roles(graph)}
        pairs |= {(a, b) for a in members for b in members if a != b}
        for cut in graph.cuts:
            pairs |= {(turn[cut.source], turn[cut.target]), (turn[cut.target], turn[cut.source])}
    for role in graph.roles.values():
        if graph.segments_of(role.name):
            pairs |= {(a, b) for a in role.parties for b in role.parties if a != b}
    return frozenset(pairs)


def _see_off(conductor: Conductor, watcher: Watcher) -> None:
    """Stay until all know that they are done: who was killed just then comes back and would find nobody."""
    began = time.monotonic()
    noted = False
    while (unaware := conductor.unaware) and time.monotonic() - began < _FAREWELL_S:
        if not noted and time.monotonic() - began > 1.0:
            watcher.note(f"all is done; staying up to {_FAREWELL_S:.0f} s to tell {', '.join(unaware)}")
            noted = True
        time.sleep(0.02)


def _tick(conductor: Conductor, participant: Participant, ended: threading.Event) -> None:
    while not ended.wait(1.0):
        try:
            conductor.tick()
        except CutlayerError as error:
            participant.fail(error)
            return
        except Exception as error:  # nobody else would notice it in a thread, and all would wait without end
            participant.fail(
                TransportError(
                    f"the host no longer looks after its parties: {str(error) or type(error).__name__}",
                    todo="start it again in the same folder; it goes on from the last snapshot",
                )
            )
            return
