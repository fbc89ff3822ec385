"""WHO one is: the study's certificate authority, a party's credentials, seals between parties."""

from __future__ import annotations

from ..errors import IdentityError

try:
    import cryptography  # noqa: F401
except ImportError as error:
    raise IdentityError(
        "keys need the package 'cryptography'",
        todo="install cutlayer for networks: pip install 'cutlayer[network]'",
    ) from error

from .authority import Authority
from .cards import KeyCard
from .credentials import Credentials
from .issued import Issued
from .requests import install, install_revoked, make_request, renew_request
from .sealing import Sealer

__all__ = [
    "Authority",
    "Credentials",
    "Issued",
    "KeyCard",
    "Sealer",
    "install",
    "install_revoked",
    "make_request",
    "renew_request",
]
