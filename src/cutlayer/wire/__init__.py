"""As what bytes: messages, the frames that carry them, and seals for what a relay must not read."""

from cutlayer.wire.frame_layout import DTYPES, Limits
from cutlayer.wire.frames import MAGIC, VERSION, decode, encode
from cutlayer.wire.messages import Kind, Message
from cutlayer.wire.peek import Contents, peek
from cutlayer.wire.seal import PlainSeal, Seal, disclose, enclose

__all__ = [
    "DTYPES",
    "MAGIC",
    "VERSION",
    "Contents",
    "Kind",
    "Limits",
    "Message",
    "PlainSeal",
    "Seal",
    "decode",
    "disclose",
    "enclose",
    "encode",
    "peek",
]
