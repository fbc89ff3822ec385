"""The way to an address: directly, or through the HTTP proxy that the environment names."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
import urllib.parse
import urllib.request

from cutlayer.transports.network.carriers.meanings import Cause, Unreachable

__all__ = ["is_this_machine", "parts_of", "reach"]


def parts_of(address: str) -> tuple[str, int]:
    """Return name and port of ``name:port``; an IPv6 address stands in brackets."""
    name, _, port = address.rpartition(":")
    if not name or not port.isdecimal() or int(port) > 65535:
        raise Unreachable(Cause.NO_ADDRESS)
    return name.removeprefix("[").removesuffix("]"), int(port)


def reach(address: str, within_s: float) -> socket.socket:
    """Return a TCP connection to ``address``; ``https_proxy``, ``all_proxy`` and ``no_proxy`` are heeded.

    Args:
        address: ``name:port``.
        within_s: How long to try; also the socket's timeout.

    Raises:
        Unreachable: If there is no way.
    """
    name, port = parts_of(address)
    proxy = _proxy_for(name, port)
    try:
        if proxy is None:
            connection = socket.create_connection((name, port), timeout=within_s)
        else:
            connection = _through(proxy, name, port, within_s)
    except socket.gaierror as error:
        raise Unreachable(Cause.UNKNOWN_NAME if proxy is None else Cause.PROXY) from error
    except ConnectionRefusedError as error:
        raise Unreachable(Cause.NOBODY if proxy is None else Cause.PROXY) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(Cause.SILENT if proxy is None else Cause.PROXY) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _proxy_for(name: str, port: int) -> str | None:
    """Return the proxy's URL; this machine itself is never reached through one."""
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get("https") or proxies.get("all")
    if not proxy or is_this_machine(name) or urllib.request.proxy_bypass(f"{name}:{port}"):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_this_machine(name: str) -> bool:
    """Return whether ``name`` is an address, in brackets or not, or a name that never leads off this machine."""
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return name == "localhost"


def _through(proxy: str, name: str, port: int, within_s: float) -> socket.socket:
    """Return a connection that an HTTP proxy has opened (CONNECT)."""
    parts = urllib.parse.urlsplit(proxy)
    headers = {}
    if parts.username is not None:
        word = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(word.encode()).decode()
    asking = http.client.HTTPConnection(parts.hostname or "", parts.port or 3128, timeout=within_s)
    asking.set_tunnel(name, port, headers)
    try:
        asking.connect()
    except BaseException:
        asking.close()
        raise
    return asking.sock
