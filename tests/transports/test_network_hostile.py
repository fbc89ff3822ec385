"""Who has no certificate gets nothing; who misbehaves with one is dropped and noted, and others are not disturbed."""

import datetime
import gc
import os
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

import pytest
from network_parties import QUICK, Carrier, Guest, Host, eventually, make_keys

from cutlayer.errors import IdentityError, TransportError
from cutlayer.keys.authority import Authority
from cutlayer.keys.credentials import Credentials
from cutlayer.transports.network.carriers import carrier_of
from cutlayer.transports.network.envelopes import CHUNK, FIRST, HEADER, VERSION, Lane, greeting
from cutlayer.transports.network.lines import LineBroken, next_of

pytestmark = pytest.mark.usefixtures("carrier")
NAMES = ("hospital-a", "hospital-b", "server")
A, B, SERVER = range(3)
SMALL = type(QUICK)(
    beat_s=0.1, silence_s=0.6, hello_s=0.5, recheck_s=0.2, window_bytes=1 << 20, max_frame_bytes=8 << 20
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def keys(folder):
    return make_keys(folder, NAMES)


@pytest.fixture
def host(keys):
    host = Host(
        keys,
        NAMES,
        settings=SMALL,
        allowed=lambda source, target: (source, target) != ("hospital-b", "hospital-a"),
    )
    yield host
    host.close()


@pytest.fixture
def honest(keys, host):
    """A party whose work goes on while others misbehave."""
    guest = Guest(keys, "hospital-b", NAMES, host.address, settings=SMALL)
    eventually(lambda: guest.connected)
    yield guest
    guest.close()


class Raw:
    """A client that sends what it is told, with the certificate that it is given."""

    def __init__(self, credentials, address):
        self.line = carrier_of(Carrier.within(SMALL)).dial(credentials, address, "server", SMALL)
        self.number = 0

    def send(self, message):
        self.line.put(lambda: (message, b""))
        self.line.flush()

    def take(self):
        return next_of(self.line, lambda envelope, size: memoryview(bytearray(size)))

    def hello(self, ack=0):
        self.send(greeting(Lane.HELLO, ack, os.urandom(16) + bytes(16)))
        return self.take()

    def envelope(self, lane, payload=b"", source=A, target=SERVER, total=None, flags=FIRST, generation=0):
        self.number += 1
        size = len(payload) if total is None else total
        head = HEADER.pack(VERSION, lane, flags, source, target, generation, self.number, 0, 0, size)
        self.send(head + payload)

    def refusal(self):
        """What the host says in the end."""
        while (envelope := self.take()) is not None:
            if envelope.lane == Lane.REFUSED:
                return bytes(envelope.payload).decode()
        raise AssertionError("the host did not refuse")

    def close(self):
        self.line.cancel()
        self.line.finish()


@pytest.fixture
def raw(keys, host):
    client = Raw(keys["hospital-a"], host.address)
    yield client
    client.close()


@pytest.mark.parametrize(
    ("misdeed", "words"),
    [
        (lambda raw: raw.envelope(Lane.DATA, b"x", source=B), "another party's name"),
        (lambda raw: raw.envelope(Lane.CONTROL, b"x", source=SERVER), "another party's name"),
        (lambda raw: raw.envelope(Lane.DATA, b"x", source=999), "another party's name"),
        (lambda raw: raw.envelope(Lane.DATA, b"x", target=A), "a frame for nobody"),
        (lambda raw: raw.envelope(Lane.DATA, b"x", target=999), "a frame for nobody"),
        (
            lambda raw: raw.envelope(Lane.DATA, b"x", total=4 << 30),
            "forbidden length was announced; got 4294967296",
        ),
        (lambda raw: raw.envelope(Lane.DATA, b"x", total=1 << 63), "forbidden length"),
        (lambda raw: raw.envelope(Lane.DATA, b"", total=0), "forbidden length"),
        (lambda raw: raw.envelope(Lane.DATA, b"xx", total=3), "not full"),
        (lambda raw: raw.envelope(Lane.DATA, b"xx", total=3, target=B), "not full"),
        (lambda raw: raw.envelope(Lane.DATA, b"x", flags=0), "no frame that is under way"),
        (lambda raw: raw.envelope(Lane.DATA, bytes(CHUNK + 1)), "too long"),
        (lambda raw: raw.envelope(77, b"x"), "unknown lane came; got 77"),
        (lambda raw: raw.envelope(Lane.HELLO, bytes(32)), "unknown lane came; got 1"),
        (lambda raw: raw.send(b"short"), "too short; got 5 bytes"),
        (lambda raw: raw.send(bytes(100)), "another version"),
        (
            lambda raw: raw.send(HEADER.pack(VERSION, Lane.CONTROL, 0, A, SERVER, 0, 5, 0, 0, 0)),
            "out of order",
        ),
        (lambda raw: raw.send(HEADER.pack(VERSION, Lane.ACK, 0, A, SERVER, 0, 0, 99, 0, 0)), "never sent"),
    ],
)
def test_who_does_what_it_must_not_is_dropped_and_noted(host, honest, raw, misdeed, words):
    assert raw.hello().lane == Lane.WELCOME
    misdeed(raw)
    assert words in raw.refusal()
    assert [who for who, _ in host.incidents] == ["hospital-a"]
    assert words in host.incidents[0][1]
    eventually(lambda: host.hub.present == {"hospital-b"})
    honest.end.send("server", b"undisturbed")
    assert host.end.receive("hospital-b", 5) == b"undisturbed"


def test_nothing_that_a_dropped_party_still_sends_is_delivered(host, honest, raw):
    raw.hello()
    raw.envelope(Lane.DATA, b"in time")
    assert host.end.receive("hospital-a", 5) == b"in time"
    host.hub.drop("hospital-a", "enough")
    raw.envelope(Lane.DATA, b"late")
    raw.envelope(Lane.DATA, b"late", target=B)
    for end in (host.end, honest.end):
        with pytest.raises(TransportError, match="nothing came"):
            end.receive("hospital-a", 0.5)


def test_pairs_that_the_study_does_not_know_are_not_relayed(keys, host, honest):
    honest.end.send("hospital-a", b"frame")
    with pytest.raises(IdentityError, match="may not send frames to 'hospital-a' in this study"):
        honest.end.receive("server", 5)
    assert host.incidents[0][0] == "hospital-b"


@pytest.mark.parametrize(("target", "generation"), [(SERVER, 0), (SERVER, 9), (B, 0)])
def test_who_floods_is_dropped(host, honest, raw, target, generation):
    raw.hello()
    for _ in range(100):
        raw.envelope(Lane.DATA, bytes(1 << 17), target=target, generation=generation)
    assert "it floods" in raw.refusal()
    assert host.incidents[0][0] == "hospital-a"
    honest.end.send("server", b"undisturbed")
    assert host.end.receive("hospital-b", 5) == b"undisturbed"


def test_who_says_no_hello_is_cut_off(keys, host):
    raw = Raw(keys["hospital-a"], host.address)
    with suppress(LineBroken):
        assert raw.take() is None
    raw.close()
    assert "said no hello within 0.5 s" in host.incidents[0][1]


def test_who_begins_with_something_else_is_refused(keys, host):
    for message in (
        b"",
        b"GET / HTTP/1.1",
        greeting(Lane.HELLO, 0, b"short"),
        greeting(Lane.CONTROL, 0, bytes(32)),
    ):
        raw = Raw(keys["hospital-a"], host.address)
        raw.send(message)
        assert raw.take().lane == Lane.REFUSED
        raw.close()
    assert [who for who, _ in host.incidents][1:] != []
    assert host.hub.present == frozenset()


def test_a_certificate_of_a_party_that_does_not_take_part(folder, keys, host, carrier):
    name = f"laboratory-{carrier}"
    Authority.open(folder / "authority").issue(name, folder / name)
    raw = Raw(Credentials.load(folder / name), host.address)
    answer = raw.hello()
    assert answer.lane == Lane.REFUSED and b"does not take part" in bytes(answer.payload)
    raw.close()
    assert host.incidents[0][0] == name


def test_a_foreign_authority_gets_nothing_at_either_side(tmp_path, keys, host):
    foreign = make_keys(tmp_path, NAMES)["hospital-a"]
    smuggled = Credentials(
        party="hospital-a",
        certificate=foreign.certificate,
        key=foreign.key,
        authority=keys["hospital-a"].authority,
    )
    for credentials, words in (
        (foreign, "a certificate that this study's authority has not signed"),
        (smuggled, "check that the certificate is of this study and has not expired"),
    ):
        guest = Guest({"hospital-a": credentials}, "hospital-a", NAMES, host.address)
        eventually(lambda guest=guest: guest.states)
        assert not guest.connected and words in guest.why, guest.why
        guest.close()
    assert host.hub.present == frozenset() and host.presence == []


def test_who_took_the_hosts_address_is_not_believed(keys, host):
    thief = Host({"server": keys["hospital-b"]}, NAMES)
    guest = Guest(keys, "hospital-a", NAMES, thief.address)
    eventually(lambda: guest.states)
    assert not guest.connected and guest.welcomes == []
    assert "not its host 'server'" in guest.why, guest.why
    guest.close()
    thief.close()


def test_a_revoked_certificate_ends_an_open_stream(tmp_path):
    keys = make_keys(tmp_path, NAMES)
    host = Host(keys, NAMES, settings=SMALL)
    guest = Guest(keys, "hospital-a", NAMES, host.address)
    eventually(lambda: guest.connected)
    authority = Authority.open(tmp_path / "authority")
    authority.revoke("hospital-a", "stolen")
    (tmp_path / "server" / "revoked.pem").write_bytes(authority.revoked)
    with pytest.raises(IdentityError, match="revoked"):
        guest.end.receive("server", 10)
    again = Guest(keys, "hospital-a", NAMES, host.address)
    eventually(lambda: again.states)
    assert "revoked" in again.why
    for one in (guest, again, host):
        one.close()


def test_plaintext_and_no_certificate_get_nothing(keys, host, honest):
    with socket.create_connection(("127.0.0.1", host.port)) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        plain.settimeout(5)
        with suppress(ConnectionResetError):
            assert b"server" not in plain.recv(1000)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    bare.set_alpn_protocols(["h2", "cutlayer/1"])
    with (
        socket.create_connection(("127.0.0.1", host.port)) as connection,
        pytest.raises((ssl.SSLError, ConnectionError)),
        bare.wrap_socket(connection) as stream,
    ):
        stream.settimeout(5)
        if not stream.recv(1000):
            raise ConnectionError
    assert host.hub.present == {"hospital-b"}


def test_connections_that_say_nothing_do_not_keep_others_out(keys, host):
    silent = [socket.create_connection(("127.0.0.1", host.port)) for _ in range(200)]
    guest = Guest(keys, "hospital-a", NAMES, host.address)
    eventually(lambda: guest.connected)
    guest.close()
    for one in silent:
        one.close()


def test_one_party_that_fills_the_host_with_connections_ends_nobody_elses_part(keys, host):
    crowd = []
    for _ in range(40):
        raw = Raw(keys["hospital-a"], host.address)
        raw.send(b"nothing that is a hello")
        crowd.append(raw)
    guest = Guest(keys, "hospital-b", NAMES, host.address)
    eventually(lambda: guest.connected)
    assert not any("refuses" in why for _, why in guest.states)
    guest.close()
    for raw in crowd:
        raw.close()


def test_a_host_that_has_no_thread_left_listens_again_when_it_has(keys, host, monkeypatch):
    start, left = threading.Thread.start, [False] * 3

    def exhausted(thread):
        if thread.name == "cutlayer-line" and left:
            left.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", exhausted)
    guest = Guest(keys, "hospital-a", NAMES, host.address)
    eventually(lambda: guest.connected)
    assert not left
    guest.close()


def test_two_processes_of_a_party_are_let_in_one_after_the_other(keys):
    told = []

    def admit(party, hello):
        told.append(hello)
        if hello == b"first":
            time.sleep(0.5)
        return b""

    host = Host(keys, NAMES)
    host.hub._admit = admit
    presence = host.hub._on_presence
    host.hub._on_presence = lambda party, incarnation, there: (
        told.append(there) or presence(party, incarnation, there)
    )
    first = Guest(keys, "hospital-a", NAMES, host.address, hello=b"first")
    eventually(lambda: told)
    second = Guest(keys, "hospital-a", NAMES, host.address, hello=b"second")
    eventually(lambda: told.count(True) == 2)
    came = [one for one in told if one is not False]
    assert came == [b"first", True, b"second", True]
    for one in (first, second, host):
        one.close()


def test_a_party_that_does_not_listen_costs_bounded_memory_and_others_nothing(keys, host, honest, raw):
    raw.hello()  # and never reads again
    frame = bytes(1 << 18)
    sent = []

    def send():
        with suppress(TransportError):
            for _ in range(100):
                host.end.send("hospital-a", frame)
                sent.append(1)

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    time.sleep(0.3)
    assert 16 <= len(sent) < 40
    honest.end.send("server", b"undisturbed")
    assert host.end.receive("hospital-b", 5) == b"undisturbed"
    host.end.close()
    sending.join(5)
    assert not sending.is_alive()


def test_an_expired_certificate_is_refused_in_words(tmp_path):
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=100)
    authority = Authority.create(tmp_path / "authority", "trial", days=300, now=past)
    for name, days in (("hospital-a", 30), ("server", 200)):
        authority.issue(name, tmp_path / name, days=days, now=past)
    host = Host({"server": Credentials.load(tmp_path / "server")}, NAMES)
    guest = Guest(
        {"hospital-a": Credentials.read(tmp_path / "hospital-a")}, "hospital-a", NAMES, host.address
    )
    eventually(lambda: guest.states)
    assert not guest.connected and "has not expired" in guest.why, guest.why
    guest.close()
    host.close()


def test_a_connection_reset_before_its_handshake_leaves_no_socket_open(honest, host):
    """Both sides may hang up before either has said a word; an open socket would be a warning, and so an error."""
    port = int(host.address.rpartition(":")[2])
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), 5) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gc.collect()
    eventually(lambda: honest.connected)


def test_a_host_that_resets_before_the_handshake_is_a_broken_line(keys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopped = threading.Event()

        def reset():
            while not stopped.is_set():
                with suppress(OSError):
                    connection, _ = server.accept()
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()

        thread = threading.Thread(target=reset, daemon=True)
        thread.start()
        for _ in range(20):
            with pytest.raises(LineBroken):
                Raw(keys["hospital-a"], f"127.0.0.1:{server.getsockname()[1]}").hello()
        stopped.set()
        with suppress(OSError):
            socket.create_connection(server.getsockname(), 1).close()
        thread.join()
    gc.collect()
