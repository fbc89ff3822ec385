"""The host is who it must be, known by its certificate, and is found at every address of its machine."""

import socket
import threading

import pytest
from network_parties import Guest, Host, eventually, make_keys

from cutlayer.keys import Authority, Credentials
from cutlayer.transports.network import Dial, Hub, NetworkSettings
from cutlayer.transports.network.carriers.reaching import is_this_machine

QUICK = NetworkSettings(beat_s=0.5, silence_s=2.0, connect_s=1.0, pause_s=0.1)


def dialled(credentials, port, seconds):
    """Return whether a stream to the host opened, and what was said of it."""
    opened, said = threading.Event(), []
    dial = Dial(
        credentials,
        f"127.0.0.1:{port}",
        "server",
        ["server", "client"],
        hello=lambda: b"hello",
        on_control=lambda message: None,
        on_welcome=lambda answer, new: opened.set(),
        on_state=lambda connected, why: said.append(why),
        settings=QUICK,
    )
    dial.start()
    try:
        return opened.wait(seconds), " ".join(said)
    finally:
        dial.close(0.1)


def test_a_known_certificate_of_the_host_is_the_only_one(tmp_path):
    authority = Authority.create(tmp_path / "authority", "pins")
    authority.issue("client", tmp_path / "client")
    authority.issue("server", tmp_path / "first")
    authority.renew("server", tmp_path / "second")
    known = tmp_path / "client" / "known"
    known.mkdir()
    (known / "server.pem").write_bytes((tmp_path / "first" / "certificate.pem").read_bytes())
    client = Credentials.load(tmp_path / "client")
    heard = []
    for folder, expected in (("first", True), ("second", False)):
        hub = Hub(
            Credentials.load(tmp_path / folder),
            "127.0.0.1:0",
            ["server", "client"],
            admit=lambda party, words: heard.append(party) or b"",
            on_control=lambda party, message: None,
            on_presence=lambda party, incarnation, connected: None,
            on_incident=lambda who, what: None,
            settings=QUICK,
        )
        heard.clear()
        port = hub.start()
        try:
            opened, said = dialled(client, port, 10.0 if expected else 2.5)
        finally:
            hub.close(0.1)
        assert opened is expected and bool(heard) is expected, said


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6 beside IPv4")
@pytest.mark.parametrize("name", ["127.0.0.1", "[::1]", "localhost"])
def test_whoever_listens_everywhere_is_reached_over_ipv4_and_ipv6(tmp_path, carrier, name):
    names = ["server", "client"]
    keys = make_keys(tmp_path, names)
    host = Host(keys, names, "[::]:0")
    guest = Guest(keys, "client", names, f"{name}:{host.port}")
    try:
        eventually(lambda: guest.connected, 5.0)
    finally:
        guest.close(0.1)
        host.close(0.1)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("[::]", False),
        ("0.0.0.0", False),
        ("192.0.2.1", False),
        ("[2001:db8::1]", False),
        ("localhost.example.org", False),
    ],
)
def test_what_never_leads_off_this_machine(name, here):
    assert is_this_machine(name) is here
