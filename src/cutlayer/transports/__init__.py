"""By what route: transports carry opaque frames between parties and know no tensors."""

from cutlayer.transports.base import DEFAULT_TIMEOUT_S, Transport, aligned_buffer
from cutlayer.transports.memory import MemoryHub, MemoryTransport

__all__ = ["DEFAULT_TIMEOUT_S", "MemoryHub", "MemoryTransport", "Transport", "aligned_buffer"]
