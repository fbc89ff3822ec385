"""What stands between parties and their host, and misbehaves: a connection goes half-open, or is reset."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from trial import Bench, Trial

_RESET = struct.pack("ii", 1, 0)  # lingers for no time at all: the other side gets a reset


class Middlebox:
    """Passes bytes on to a port of this machine, while the ``with`` block lasts."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._lock = threading.Lock()
        self._alive: set[socket.socket] = set()
        self._frozen: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def freeze(self) -> None:
        """Carry nothing more on any connection that there is, without closing it; new ones work."""
        with self._lock:
            self._frozen |= self._alive

    def reset(self) -> None:
        """Reset all connections that there are; new ones work."""
        with self._lock:
            broken, self._alive, self._frozen = self._alive, set(), set()
        for end in broken:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RD)  # wakes who reads from it
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:  # nobody listens there yet
                    near.close()
                    continue
                with self._lock:
                    self.connections += 1
                    self._alive |= {near, far}
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._frozen:
                    sink.sendall(data)
        if source not in self._frozen:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


class Detoured(Trial):
    """A trial whose parties reach their host through a middlebox."""

    def __init__(
        self,
        bench: Bench,
        study: Path,
        folder: Path,
        plan: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> None:
        super().__init__(bench, study, folder, plan)
        name, _, port = self.address.rpartition(":")
        self._direct, self.middlebox = self.address, Middlebox((name, int(port)))

    def __enter__(self) -> Self:
        self.middlebox.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.middlebox.__exit__()

    def start(self, party: str) -> None:
        self.address = self._direct if party == "server" else self.middlebox.address
        super().start(party)
