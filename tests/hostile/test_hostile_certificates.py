"""Whoever has no certificate of this study learns nothing of it and gets nothing; nor does a stolen address."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from dataclasses import replace

import pytest
from hostile_stage import LATE, NAMES, QUICK, Raw, Stage, Taking, eventually, make_keys

from cutlayer.errors import IdentityError
from cutlayer.keys.authority import Authority
from cutlayer.keys.credentials import Credentials
from cutlayer.sessions.joining import join
from cutlayer.transports.network import Hub, NetworkSettings
from cutlayer.transports.network.carriers import carrier_of
from cutlayer.transports.network.lines import next_of

SECRETS = (b"nobody hears", b"client-0", b"client-1", b"client-2", b"cutlayer.Network")


@pytest.fixture(scope="module")
def stage(tmp_path_factory, keys):
    """A study that waits for its parties; its last test lets them join."""
    return Stage(tmp_path_factory.mktemp("outsiders"), keys, LATE)


def tls(keys, name=None, version=None):
    """Return a client's context, without a certificate unless a name is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if name is not None:
        context.load_cert_chain(keys / name / "certificate.pem", keys / name / "key.pem")
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def shaken(stage, context) -> bytes:
    """Shake hands, ask for the stream, and return all that came back after that."""
    port = int(stage.address.rpartition(":")[2])
    got = b""
    with socket.create_connection(("127.0.0.1", port), 5) as raw, context.wrap_socket(raw) as stream:
        stream.settimeout(3)
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        with contextlib.suppress(TimeoutError):
            while part := stream.recv(4096):
                got += part
    return got


def test_what_an_outsider_sees_is_the_hosts_certificate_and_no_name_of_the_study(stage, keys):
    context = tls(keys)
    port = int(stage.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 5) as raw, context.wrap_socket(raw) as stream:
        shown = stream.getpeercert(binary_form=True)
    assert b"server" in shown
    assert not [secret for secret in SECRETS if secret in shown]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        got = shaken(stage, context)
        assert not got
        raise ConnectionError


@pytest.mark.parametrize(
    "said", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(500), b"\x16\x03\x01"]
)
def test_plaintext_gets_nothing(stage, said):
    port = int(stage.address.rpartition(":")[2])
    got = b""
    with socket.create_connection(("127.0.0.1", port), 5) as raw, contextlib.suppress(ConnectionError):
        raw.sendall(said)
        raw.settimeout(5)
        while part := raw.recv(4096):
            got += part
    assert len(got) < 200 and not [secret for secret in SECRETS if secret in got]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
def test_old_versions_of_tls_are_refused(stage, keys, version):
    context = tls(keys, "client-0", version)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shaken(stage, context)


def test_todays_version_is_taken_from_a_party_that_speaks_as_parties_do(stage, keys):
    context = tls(keys, "client-0", ssl.TLSVersion.TLSv1_3)
    assert shaken(stage, context) == b""  # it asked for HTTP
    context.set_alpn_protocols(["cutlayer/1"])
    assert b"an envelope is too" in shaken(stage, context)


def test_foreign_self_made_and_expired_certificates(stage, keys, tmp_path):
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=60)
    make_keys(tmp_path / "foreign")
    old = Authority.create(tmp_path / "old", "x", days=90, now=past)
    old.issue("client-0", tmp_path / "old-client-0", days=30, now=past)
    for folder in (tmp_path / "foreign" / "client-0", tmp_path / "old-client-0"):
        told = Credentials.read(folder)
        smuggled = Credentials(
            party="client-0", certificate=told.certificate, key=told.key,
            authority=(keys / "client-0" / "authority.pem").read_bytes(),
        )  # fmt: skip
        watched = Taking(
            lambda w, s=smuggled: join(
                replace(stage.part("client-0"), folder=tmp_path / f"of-{s.certificate[60:64].hex()}"),
                s,
                stage.address,
                w,
                settings=stage.settings,
            )
        )
        watched.start()
        eventually(lambda w=watched: w.watcher.said("not connected", "refused this certificate"))
        assert not watched.watcher.said("roll call")
    assert not stage.host.watcher.said("client-0", "joined")


def test_a_certificate_of_the_study_with_a_name_that_is_not_on_the_list(stage, keys, tmp_path):
    Authority.open(keys / "authority").issue("laboratory", tmp_path / "laboratory")
    raw = Raw.__new__(Raw)
    raw.__init__(stage)
    raw.close()
    credentials = Credentials.load(tmp_path / "laboratory")
    line = carrier_of(stage.settings).dial(credentials, stage.address, "server", stage.settings)
    line.put(lambda: (b"hello", b""))
    line.flush()
    answer = bytes(next_of(line, lambda envelope, size: memoryview(bytearray(size))).payload)
    line.cancel()
    line.finish()
    assert b"'laboratory' does not take part" in answer
    assert not [secret for secret in SECRETS if secret in answer]
    assert stage.host.watcher.said("!! laboratory", "does not take part")


@pytest.mark.parametrize("whose", ["another party's", "a foreign one"])
def test_a_stolen_address_is_not_believed_and_told_nothing(stage, keys, tmp_path, whose):
    """A host with another party's certificate, or a foreign one: `join` says so, and no hello arrives there."""
    heard = []
    place = keys if whose == "another party's" else tmp_path
    if whose == "a foreign one":
        make_keys(tmp_path)
    name = "client-1" if whose == "another party's" else "server"
    thief = Hub(
        Credentials.load(place / name), "127.0.0.1:0", NAMES, admit=lambda *a: heard.append(a) or b"",
        on_control=lambda *a: heard.append(a), on_presence=lambda *a: heard.append(a),
        on_incident=lambda *a: heard.append(a), settings=NetworkSettings(**QUICK),
    )  # fmt: skip
    address = f"127.0.0.1:{thief.start()}"
    credentials = stage.credentials("client-0")
    part = replace(stage.part("client-0"), folder=tmp_path / "victim")
    victim = Taking(
        lambda watcher: join(part, credentials, address, watcher, settings=stage.settings)
    ).start()
    words = "not its host 'server'" if whose == "another party's" else "has not signed"
    eventually(lambda: victim.watcher.said("not connected", words))
    assert heard == []
    thief.close()


def test_connections_that_say_nothing_and_one_that_says_a_byte_a_second(stage, keys):
    """300 that are silent, one that drips; they are hung up on, and the study begins and ends beside them."""
    port = int(stage.address.rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(300)]
    stop = threading.Event()

    def drip():
        with contextlib.suppress(OSError):
            while not stop.wait(1.0):
                silent[0].sendall(b"\x16")

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    stage.join("client-0", "client-1")
    stage.check(clients=2)
    stop.set()
    dripping.join()
    for one in silent:
        one.close()


def test_a_revoked_certificate_does_not_come_in(tmp_path):
    keys = tmp_path / "keys"
    authority = make_keys(keys)
    authority.revoke("client-1", "lost")
    (keys / "server" / "revoked.pem").write_bytes(authority.revoked)
    stage = Stage(tmp_path / "run", keys)
    with pytest.raises(IdentityError, match="was revoked"):
        stage.join("client-1").wait()
    assert stage.host.watcher.said("!! ", "the certificate of client-1 was revoked")
    stage.raw("client-0").close()
