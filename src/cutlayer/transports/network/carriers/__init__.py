"""How connections between machines are made: mutual TLS, by itself or within gRPC."""

from __future__ import annotations

from collections.abc import Callable

from cutlayer.transports.network.lines import Carrier
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["carrier_of"]


def _tls() -> Carrier:
    from cutlayer.transports.network.carriers.tls import TlsCarrier

    return TlsCarrier()


def _grpc() -> Carrier:
    from cutlayer.transports.network.carriers.over_grpc import GrpcCarrier

    return GrpcCarrier()


_CARRIERS: dict[str, Callable[[], Carrier]] = {"tls": _tls, "grpc": _grpc}


def carrier_of(settings: NetworkSettings) -> Carrier:
    """Return the carrier that the settings name."""
    return _CARRIERS[settings.carrier]()
