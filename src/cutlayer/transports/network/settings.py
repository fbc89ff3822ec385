"""Limits and times of the network transport."""

from __future__ import annotations

from dataclasses import dataclass, fields

from cutlayer.errors import StudyError, nearest

__all__ = ["CARRIERS", "NetworkSettings"]

CARRIERS = ("tls", "grpc")
"""How connections are made: see `cutlayer.transports.network.carriers`."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Limits and times; the same at all parties of a study.

    Attributes:
        carrier: How connections are made: ``"tls"``, mutual TLS by itself, or ``"grpc"``, within gRPC.
        max_frame_bytes: The longest frame that is taken; a longer one is refused before memory is.
        window_bytes: How much may be under way to a party, unread, before `send` waits.
        window_frames: How many frames may be under way in any case, whatever their length.
        beat_s: A side that sent nothing for so long says that it is there.
        silence_s: A stream on which nothing came for so long is taken for dead. Where 1 MiB takes longer
            to get through, that is learnt: after a stream that brought nothing, twice as long, up to eight
            times.
        connect_s: How long one attempt to connect may take, handshake included.
        pause_s: How long to wait between two attempts.
        hello_s: How soon a stream must say whose it is.
        recheck_s: How often the certificates of open streams are looked at again.
        pardon_s: How long a party that broke the rules is refused; twice as long each further time.
        pardons: How often it is let in again before the host is started anew.
    """

    carrier: str = "tls"
    max_frame_bytes: int = 1 << 30
    window_bytes: int = 256 << 20
    window_frames: int = 16
    beat_s: float = 1.0
    silence_s: float = 8.0
    connect_s: float = 2.0
    pause_s: float = 0.3
    hello_s: float = 10.0
    recheck_s: float = 60.0
    pardon_s: float = 30.0
    pardons: int = 5

    def __post_init__(self) -> None:
        if self.carrier not in CARRIERS:
            raise StudyError(
                f"the network has no carrier {self.carrier!r}", todo=nearest(self.carrier, CARRIERS)
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "carrier" and not value > 0:
                raise StudyError(
                    f"the network's {field.name} cannot be used", got=repr(value), expected="more than 0"
                )
        if self.silence_s < 2 * self.beat_s:
            raise StudyError(
                "the network's silence_s is too short",
                got=f"{self.silence_s:g} s, with a sign of life every {self.beat_s:g} s",
                expected="at least twice beat_s",
            )
