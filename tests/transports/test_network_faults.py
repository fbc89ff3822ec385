"""What breaks between parties on different machines, and is mended: streams, processes, the way between."""

import random
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from network_parties import QUICK, Guest, Host, Proxy, eventually, make_keys

from cutlayer.errors import IdentityError, PeerTimeout, RestartError, StudyError, TransportError

pytestmark = pytest.mark.usefixtures("carrier")
NAMES = ("hospital-a", "hospital-b", "server")
MANY = (*(f"clinic-{number}" for number in range(100)), "server")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return make_keys(tmp_path_factory.mktemp("keys"), NAMES)


@pytest.fixture
def opened():
    """A list of what is closed in the end, the last first."""
    ones = []
    yield ones
    for one in reversed(ones):
        one.close()


@pytest.fixture
def make(keys, opened):
    """Makes hosts, guests and proxies that are closed in the end."""

    class Make:
        @staticmethod
        def host(**more):
            opened.append(Host(keys, NAMES, **more))
            return opened[-1]

        @staticmethod
        def guest(name, address, **more):
            opened.append(Guest(keys, name, NAMES, address, **more))
            return opened[-1]

        @staticmethod
        def proxy(port, **more):
            opened.append(Proxy(port, **more))
            return opened[-1]

    return Make


def test_control_messages_and_presence(make):
    host = make.host()
    guest = make.guest("hospital-a", host.address)
    guest.dial.control(b"ready")
    host.hub.control("hospital-a", b"go")
    eventually(lambda: host.control == [("hospital-a", b"ready")] and guest.control == [b"go"])
    assert guest.welcomes == [(b"answer to hello", True)]
    assert host.hub.present == {"hospital-a"}
    guest.close()
    eventually(lambda: not host.hub.present)
    assert [(party, here) for party, _, here in host.presence] == [
        ("hospital-a", True),
        ("hospital-a", False),
    ]
    assert host.incidents == []


def test_what_cannot_be_sent_is_refused(make):
    host = make.host()
    guest = make.guest("hospital-a", host.address)
    for send in (guest.dial.control, lambda message: host.hub.control("hospital-a", message)):
        with pytest.raises(TransportError, match="control message is too long; got 4194305 bytes"):
            send(bytes((4 << 20) + 1))
    with pytest.raises(TransportError, match="did you mean 'hospital-a'"):
        host.hub.control("hospital-aa", b"")
    with pytest.raises(TransportError, match="expected 1 to 67108864"):
        guest.end.send("server", bytes((64 << 20) + 1))
    with pytest.raises(TransportError, match="got 0 bytes"):
        guest.end.send("server", b"")


def test_a_stream_that_is_cut_inside_frames_goes_on_and_each_arrives_once(make):
    host = make.host()
    proxy = make.proxy(host.port)
    guest = make.guest("hospital-a", proxy.address)
    eventually(lambda: guest.connected)
    proxy.cut_after = proxy.passed + (10 << 20)
    content = random.Random(0).randbytes(32 << 20)
    for number in range(3):
        guest.end.send("server", bytes([number]) + content)
    for number in range(3):
        came = host.end.receive("hospital-a", 20)
        assert came[0] == number and came[1:] == content
    assert [connected for connected, _ in guest.states] == [True, False, True]
    with pytest.raises(PeerTimeout):
        host.end.receive("hospital-a", 0.2)


def test_a_way_that_goes_dark_is_noticed_at_both_ends_and_taken_up_again(make):
    host = make.host()
    proxy = make.proxy(host.port)
    guest = make.guest("hospital-a", proxy.address)
    eventually(lambda: host.hub.present)
    proxy.hold()
    guest.end.send("server", b"in the dark")
    eventually(lambda: not host.hub.present and not guest.connected)
    proxy.cut()
    proxy.release()
    assert host.end.receive("hospital-a", 10) == b"in the dark"
    host.end.send("hospital-a", b"light")
    assert guest.end.receive("server", 10) == b"light"
    assert host.incidents == []


def test_cuts_again_and_again_lose_nothing_in_any_direction(make):
    host = make.host()
    proxies = [make.proxy(host.port) for _ in range(2)]
    guests = [make.guest(name, proxy.address) for name, proxy in zip(NAMES, proxies, strict=False)]
    ends = {guest.end.party: guest.end for guest in guests} | {"server": host.end}
    rounds, stop = 60, threading.Event()

    def cut():
        dice = random.Random(1)
        while not stop.wait(dice.uniform(0.05, 0.2)):
            dice.choice(proxies).cut()

    def send(source, target):
        for number in range(rounds):
            ends[source].send(target, number.to_bytes(4, "big") * (1 + 9973 * (number % 50)))
            time.sleep(0.02)

    def receive(source, target):
        return [int.from_bytes(ends[target].receive(source, 20)[:4], "big") for _ in range(rounds)]

    cutting = threading.Thread(target=cut, daemon=True)
    cutting.start()
    pairs = [(one, other) for one in NAMES for other in NAMES if one != other]
    with ThreadPoolExecutor(12) as pool:
        sends = [pool.submit(send, *pair) for pair in pairs]
        receives = [pool.submit(receive, *pair) for pair in pairs]
        came = [one.result(30) for one in receives]
        stop.set()
        for one in sends:
            one.result(10)
    cutting.join()
    assert came == [list(range(rounds))] * len(pairs)
    assert sum(not connected for connected, _ in guests[0].states) >= 2
    assert host.incidents == []


def test_a_host_that_restarts_is_a_new_one_and_both_begin_from_zero(make):
    host = make.host()
    guest = make.guest("hospital-a", host.address)
    eventually(lambda: guest.connected)
    guest.end.send("server", b"to the old one")
    host.close()
    eventually(lambda: not guest.connected)
    assert "ended the stream" in guest.why or "broke" in guest.why
    again = make.host(address=host.address)
    eventually(lambda: guest.connected)
    assert [new for _, new in guest.welcomes] == [True, True]
    guest.dial.begin(1)
    again.hub.begin(1)
    guest.end.send("server", b"to the new one")
    assert again.end.receive("hospital-a", 10) == b"to the new one"
    again.end.send("hospital-a", b"from it")
    assert guest.end.receive("server", 10) == b"from it"


def test_a_second_process_of_a_party_replaces_the_first(make):
    host = make.host()
    first = make.guest("hospital-a", host.address)
    eventually(lambda: first.connected)
    first.end.send("server", b"first")
    assert host.end.receive("hospital-a", 10) == b"first"
    first.dial._stopped.set()  # as if it were gone, without a word
    second = make.guest("hospital-a", host.address)
    eventually(lambda: second.connected)
    second.end.send("server", b"second")
    assert host.end.receive("hospital-a", 10) == b"second"
    assert len({incarnation for _, incarnation, _ in host.presence}) == 2


def test_generations(make):
    host = make.host()
    guests = {name: make.guest(name, host.address) for name in NAMES[:2]}
    one, other = guests["hospital-a"], guests["hospital-b"]
    one.end.send("server", b"old")
    one.end.send("hospital-b", b"old")
    time.sleep(0.2)
    one.dial.begin(2)
    one.end.send("server", b"new")
    one.end.send("hospital-b", b"new")
    with pytest.raises(PeerTimeout):  # the new one is kept, the old one is there
        assert host.end.receive("hospital-a", 5) == b"old"
        host.end.receive("hospital-a", 0.2)
    host.hub.begin(2)
    other.dial.begin(2)
    assert host.end.receive("hospital-a", 5) == b"new"
    assert other.end.receive("hospital-a", 5) == b"new"
    other.dial.begin(1 + 2)
    other.end.send("hospital-a", b"ahead")
    with pytest.raises(PeerTimeout):
        one.end.receive("hospital-b", 0.2)
    one.dial.begin(3)
    assert one.end.receive("hospital-b", 5) == b"ahead"


def test_whoever_waits_can_be_called_together(make):
    host = make.host()
    guest = make.guest("hospital-a", host.address)
    eventually(lambda: guest.connected)
    with ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(host.end.receive, "hospital-a", 20),
            pool.submit(guest.end.receive, "server", 20),
        ]
        time.sleep(0.1)
        host.hub.interrupt(RestartError("hospital-b restarted"))
        guest.dial.interrupt(RestartError("hospital-b restarted"))
        for one in waiting:
            with pytest.raises(RestartError, match="hospital-b restarted"):
                one.result(5)
    with pytest.raises(RestartError):
        host.end.send("hospital-a", b"frame")
    host.hub.begin(1)
    guest.dial.begin(1)
    host.end.send("hospital-a", b"frame")
    assert guest.end.receive("server", 5) == b"frame"


def test_a_party_that_is_refused_is_told_why_and_stops(make):
    host = make.host()
    host.refuse["hospital-a"] = StudyError("another study", got="digest 1", expected="digest 2")
    guest = make.guest("hospital-a", host.address)
    eventually(lambda: guest.states)
    assert not guest.connected and "another study; got digest 1; expected digest 2" in guest.why
    with pytest.raises(IdentityError, match="another study"):
        guest.end.receive("server", 5)
    with pytest.raises(IdentityError, match="another study"):
        guest.end.send("server", b"frame")


def test_a_party_that_is_dropped_is_told_why_and_is_let_in_again_after_a_while(make):
    host = make.host(settings=replace(QUICK, pardon_s=1.0))
    guest = make.guest("hospital-a", host.address)
    eventually(lambda: host.hub.present)
    host.hub.drop("hospital-a", "it left the study")
    with pytest.raises(IdentityError, match="it left the study"):
        guest.end.receive("server", 10)
    again = make.guest("hospital-a", host.address)
    eventually(lambda: again.states)
    assert "it left the study" in again.why
    time.sleep(1.1)
    third = make.guest("hospital-a", host.address)
    eventually(lambda: third.connected)


def test_a_party_may_dial_before_the_host_listens(make, keys):
    silent = make.host()
    silent.close()
    guest = make.guest("hospital-a", silent.address)
    eventually(lambda: guest.states)
    assert f"nobody listens at {silent.address}; is the host 'server' running" in guest.why
    guest.end.send("server", b"early")
    time.sleep(0.5)
    assert len(guest.states) == 1  # told once
    host = make.host(address=silent.address)
    assert host.end.receive("hospital-a", 10) == b"early"


def test_a_host_that_cannot_be_reached_is_an_error_in_words(make):
    silent = socket.create_server(("127.0.0.1", 0))
    guest = make.guest("hospital-a", f"127.0.0.1:{silent.getsockname()[1]}")
    eventually(lambda: guest.states)
    assert "does not answer; is the host 'server' running, and does a firewall" in guest.why, guest.why
    other = make.guest("hospital-b", "no.such.host.invalid:1")
    eventually(lambda: other.states)
    assert "the name in no.such.host.invalid:1 is not known" in other.why
    silent.close()


def test_through_an_http_proxy(make, monkeypatch):
    host = make.host()
    proxy = make.proxy(host.port, connect=True)
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY", "http_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    guest = make.guest("hospital-a", f"server.study.example:{host.port}")
    content = bytes(range(256)) * 8192
    guest.end.send("server", content)
    assert host.end.receive("hospital-a", 10) == content
    assert proxy.asked[0].startswith(f"CONNECT server.study.example:{host.port}")


def test_an_address_in_use_is_an_error_in_words(make):
    host = make.host()
    with pytest.raises(
        TransportError, match=f"cannot listen at {host.address}: .*; choose a port that is free"
    ):
        make.host(address=host.address)


def test_a_hundred_parties_and_memory_that_stays(tmp_path, opened):
    keys = make_keys(tmp_path, MANY)
    host = Host(keys, MANY, settings=type(QUICK)(beat_s=1.0))
    opened.append(host)
    guests = [Guest(keys, name, MANY, host.address, settings=type(QUICK)(beat_s=1.0)) for name in MANY[:-1]]
    opened.extend(guests)
    eventually(lambda: len(host.hub.present) == 100, within_s=30)

    def exchange(rounds):
        for _ in range(rounds):
            for guest in guests:
                guest.end.send("server", bytes(65536))
            for guest in guests:
                host.end.send(guest.end.party, host.end.receive(guest.end.party, 20))
            for guest in guests:
                assert len(guest.end.receive("server", 20)) == 65536

    exchange(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    exchange(6)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 50 * 1024
    assert host.incidents == []


def test_nothing_is_left_running(keys, tmp_path):
    before = set(threading.enumerate())
    host = Host(keys, NAMES)
    guest = Guest(keys, "hospital-a", NAMES, host.address)
    eventually(lambda: guest.connected)
    guest.end.send("server", bytes(3 << 20))
    assert len(host.end.receive("hospital-a", 10)) == 3 << 20
    guest.close()
    host.close()
    eventually(lambda: set(threading.enumerate()) <= before, within_s=5)
