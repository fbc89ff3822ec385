"""Why there is no connection, in words that say what to do."""

from __future__ import annotations

from enum import Enum

__all__ = ["Cause", "Unreachable"]


class Cause(Enum):
    """What keeps a party from its host; each value says what it means."""

    FULL = "{address} serves as many parties as it can; try again later"
    SILENT = (
        "{address} does not answer; is the host {host!r} running, and does a firewall let this port through?"
    )
    FOREIGN = (
        "what listens at {address} shows a certificate that this study's authority has not signed, or that"
        " has expired; check the address, and compare authority.pem with the host's: `cutlayer keys show`"
    )
    OTHER_PARTY = (
        "what listens at {address} is a party of this study but not its host {host!r}; check the address"
    )
    OTHER_CERTIFICATE = (
        "what listens at {address} shows another certificate than the one that is known of {host!r}"
        " (known/{host}.pem); ask the study lead whether the host's was renewed"
    )
    PROXY = "the proxy (https_proxy) does not connect to {address}; may it, and is the host {host!r} running?"
    NOBODY = "nobody listens at {address}; is the host {host!r} running, and does the address name its port?"
    UNKNOWN_NAME = "the name in {address} is not known; check the spelling and this machine's name service"
    NO_ADDRESS = "{address} is no address; write it as name:port"
    NO_TLS = (
        "what listens at {address} does not speak TLS, so it is no host of cutlayer; check address and port"
    )
    OTHER_CARRIER = (
        "what listens at {address} does not speak as this party does; the study's network carrier must be the"
        " same at all parties"
    )
    REFUSED = (
        "the host at {address} refused this certificate, or it is no host of cutlayer; check that the"
        " certificate is of this study and has not expired: `cutlayer keys show`"
    )
    GIVEN_UP = "the stream to the host {host!r} at {address} was silent and was given up"
    BROKE = "the stream to the host {host!r} at {address} broke"

    def words(self, address: str, host: str) -> str:
        """Return what it means for a party that dials ``address`` to reach ``host``."""
        return str(self.value).format(address=address, host=host)


class Unreachable(Exception):
    """There is no connection, for a reason that is known."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.name)
        self.cause = cause
