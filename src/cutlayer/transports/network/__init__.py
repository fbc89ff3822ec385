"""Parties on different machines: one listens, the others dial out; gRPC with mutual TLS.

The host has a `Hub`, every other party a `Dial`; both give a `cutlayer.transports.Transport` for
frames and pass small control messages. Needs the extra ``network``.
"""

from cutlayer.transports.network.dial import Dial
from cutlayer.transports.network.end import NetworkTransport
from cutlayer.transports.network.hub import Hub
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["Dial", "Hub", "NetworkSettings", "NetworkTransport"]
