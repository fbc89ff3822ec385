"""The trial of every transport, passed by the one between machines, over real TLS on this one."""

import threading

import pytest

from cutlayer.keys.authority import Authority
from cutlayer.keys.credentials import Credentials
from cutlayer.transports.conformance import CHECKS, COPYING_CHECKS
from cutlayer.transports.network import Dial, Hub, NetworkSettings
from cutlayer.transports.network.settings import CARRIERS

NAMES = ("hospital-a", "hospital-b", "server")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    authority = Authority.create(folder / "authority", "trial")
    for name in NAMES:
        authority.issue(name, folder / name)
    return {name: Credentials.load(folder / name) for name in NAMES}


@pytest.fixture
def connect_through(keys):
    """Makes a function that connects parties, with a host of one's choice; hangs up in the end."""
    opened = []

    def through(host, settings):
        def connect(parties):
            arrived = threading.Semaphore(0)
            hub = Hub(
                keys[host],
                "127.0.0.1:0",
                NAMES,
                admit=lambda party, hello: b"",
                on_control=lambda party, message: None,
                on_presence=lambda party, incarnation, connected: arrived.release(),
                on_incident=lambda who, what: None,
                settings=settings,
            )
            address = f"127.0.0.1:{hub.start()}"
            opened.append(hub)
            ends = {host: hub.transport}
            for party in parties:
                if party != host:
                    dial = Dial(
                        keys[party],
                        address,
                        host,
                        NAMES,
                        hello=lambda: b"",
                        on_control=lambda message: None,
                        on_welcome=lambda answer, new: None,
                        on_state=lambda connected, why: None,
                        settings=settings,
                    )
                    dial.start()
                    opened.append(dial)
                    ends[party] = dial.transport
                    assert arrived.acquire(timeout=10)
            return ends

        return connect

    yield through
    for one in reversed(opened):
        one.close()


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("host", ["server", "hospital-b", "hospital-a"])
@pytest.mark.parametrize("check", CHECKS + COPYING_CHECKS, ids=lambda check: check.__name__)
def test_network_transport(check, host, carrier, connect_through):
    check(connect_through(host, NetworkSettings(carrier=carrier)))
