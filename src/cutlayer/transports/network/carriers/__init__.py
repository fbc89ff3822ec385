"""How connections between machines are made: mutual TLS, by itself or within gRPC."""

from __future__ import annotations

import os
from collections.abc import Callable

from cutlayer.errors import StudyError
from cutlayer.transports.network.lines import Carrier
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["carrier_of"]


def _tls() -> Carrier:
    from cutlayer.transports.network.carriers.tls import TlsListener, dial_tls

    return Carrier(listen=TlsListener, dial=dial_tls)


def _grpc() -> Carrier:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from cutlayer.transports.network.carriers.over_grpc import GrpcListener, dial_grpc
    except ImportError as error:
        raise StudyError(
            "the network's carrier 'grpc' needs the package 'grpcio', which is not installed",
            todo='pip install "cutlayer[network,grpc]", or choose carrier = "tls"',
        ) from error

    return Carrier(listen=GrpcListener, dial=dial_grpc)


_CARRIERS: dict[str, Callable[[], Carrier]] = {"tls": _tls, "grpc": _grpc}


def carrier_of(settings: NetworkSettings) -> Carrier:
    """Return the carrier that the settings name."""
    return _CARRIERS[settings.carrier]()
