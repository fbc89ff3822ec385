"""What the tests of the network transport share: a study's keys, a host and parties, a proxy that can be cut."""

import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace

from cutlayer.keys.authority import Authority
from cutlayer.keys.credentials import Credentials
from cutlayer.transports.network import Dial, Hub, NetworkSettings

QUICK = NetworkSettings(
    beat_s=0.1,
    silence_s=0.6,
    connect_s=1.0,
    pause_s=0.05,
    hello_s=1.0,
    recheck_s=0.2,
    max_frame_bytes=64 << 20,
)


class Carrier:
    """Through what the parties of a test reach each other; `conftest.py` sets it."""

    name = "tls"

    @classmethod
    def within(cls, settings):
        """Return the settings with the carrier that is tried."""
        return replace(settings, carrier=cls.name)


def eventually(holds, within_s=10.0):
    """Wait until something holds."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.005)


def make_keys(folder, names):
    """Make an authority and a certificate for each name."""
    authority = Authority.create(folder / "authority", "trial")
    for name in names:
        authority.issue(name, folder / name)
    return {name: Credentials.load(folder / name) for name in names}


class Host:
    """A hub and what it told."""

    def __init__(self, keys, names, address="127.0.0.1:0", settings=QUICK, **more):
        self.control, self.presence, self.incidents = [], [], []
        self.refuse = {}
        self.hub = Hub(
            keys["server"],
            address,
            names,
            admit=self._admit,
            on_control=lambda party, message: self.control.append((party, message)),
            on_presence=lambda *what: self.presence.append(what),
            on_incident=lambda *what: self.incidents.append(what),
            settings=Carrier.within(settings),
            **more,
        )
        self.port = self.hub.start()
        self.address = f"127.0.0.1:{self.port}"
        self.end = self.hub.transport
        self.close = self.hub.close

    def _admit(self, party, hello):
        if party in self.refuse:
            raise self.refuse[party]
        return b"answer to " + hello


class Guest:
    """A dial and what it told."""

    def __init__(self, keys, name, names, address, settings=QUICK, hello=b"hello"):
        self.control, self.welcomes, self.states = [], [], []
        self.dial = Dial(
            keys[name],
            address,
            "server",
            names,
            hello=lambda: hello,
            on_control=self.control.append,
            on_welcome=lambda *what: self.welcomes.append(what),
            on_state=lambda *what: self.states.append(what),
            settings=Carrier.within(settings),
        )
        self.dial.start()
        self.end = self.dial.transport
        self.close = self.dial.close

    @property
    def connected(self):
        return bool(self.states) and self.states[-1][0]

    @property
    def why(self):
        return self.states[-1][1] if self.states else ""


class Proxy:
    """Passes bytes on; can stop passing (`hold`), cut all connections, or cut after some bytes.

    With ``connect`` it is an HTTP proxy: it waits for a CONNECT and answers it.
    """

    def __init__(self, target_port, connect=False):
        self._target, self._connect = target_port, connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.asked, self.passed, self.cut_after = [], 0, None
        self._sockets, self._threads = [], []
        self._open = threading.Event()
        self._open.set()
        self._spawn(self._accept)

    def _spawn(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._spawn(self._serve, near)

    def _serve(self, near):
        port = self._target
        if self._connect:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += near.recv(4096)
            self.asked.append(asked.split(b"\r\n")[0].decode())
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            far = socket.create_connection(("127.0.0.1", port))
        except OSError:
            near.close()
            return
        self._sockets += [near, far]
        self._spawn(self._pump, near, far)
        self._spawn(self._pump, far, near)

    def _pump(self, one, other):
        with suppress(OSError):
            while data := one.recv(65536):
                self._open.wait()
                other.sendall(data)
                self.passed += len(data)
                if self.cut_after is not None and self.passed >= self.cut_after:
                    self.cut_after = None
                    self.cut()
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def hold(self):
        self._open.clear()

    def release(self):
        self._open.set()

    def cut(self):
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self):
        self._open.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
