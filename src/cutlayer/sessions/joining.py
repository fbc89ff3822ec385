"""A study at a party that joins: it dials out to the host and performs its own part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import CutlayerError, IdentityError
from ..keys.credentials import Credentials
from ..keys.sealing import Sealer
from ..transports.network import Dial, NetworkSettings
from ..transports.network.carriers.reaching import is_this_machine
from .messages import Stop, written
from .participant import Part, Participant, Watcher

__all__ = ["join"]


def join(
    part: Part, credentials: Credentials, address: str, watcher: Watcher, *, settings: NetworkSettings
) -> Path:
    """Take part in a study that somebody hosts; return this party's folder when all are done.

    Args:
        part: Which part.
        credentials: This party's key and certificate.
        address: Where the host listens, ``host:port``.
        watcher: Who is shown what happens.
        settings: Limits of the network.

    Raises:
        IdentityError: The host refuses this party, or is not the study's host.
        StudyError: This machine cannot compute the party's part.
        CutlayerError: Whatever else ended it; started again in the same folder, it goes on.
    """
    part = replace(part, apart=not is_this_machine(address.rpartition(":")[0]))
    participant = Participant(part, Sealer(credentials, part.study.digest), watcher)
    if participant.finished:
        watcher.note(f"all was done already: the study's end is noted in {part.folder}")
        return participant.leave()
    part.check()

    def on_state(connected: bool, why: str) -> None:
        watcher.note("connected" if connected else f"not connected: {why}")
        if why.startswith("the host refuses") or ": the host refuses" in why:
            participant.fail(IdentityError(why))

    def on_welcome(answer: bytes, new: bool) -> None:
        """See that the host is who it must be, which TLS alone does not say of a revoked certificate."""
        try:
            participant.meet_host(answer)
        except CutlayerError as error:
            participant.fail(error)

    dial = Dial(
        credentials,
        address,
        part.host,
        [party.name for party in part.study.graph.parties],
        hello=lambda: participant.hello,
        on_control=participant.on_control,
        on_welcome=on_welcome,
        on_state=on_state,
        settings=settings,
    )
    participant.connection = dial
    dial.start()
    try:
        return participant.run()
    except CutlayerError as error:
        # Its words may quote a record or a path; they are for this party's own screen.
        dial.control(written(Stop(reason=f"it ended with a {type(error).__name__}; its own output says why")))
        raise
    finally:
        dial.close()
