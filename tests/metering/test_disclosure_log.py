"""A party's disclosure log: all that left is in it, whatever kills the process, and no change goes unnoticed."""

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import wait
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer import __version__
from cutlayer.errors import FrameError, LogError
from cutlayer.metering.disclosure_log import LOG_NAME, DisclosureLog, read_disclosures
from cutlayer.wire import Kind, Message, encode

STUDY = "9f2a" * 16


def activation(step=0, rows=4, training=True):
    tensors = (("z", torch.zeros(rows, 3)), ("label", torch.zeros(rows, dtype=torch.int64)), ("none", None))
    return encode(Message(Kind.ACTIVATION, "head->server", step, tensors, training=training))


HANDOVER = encode(Message(Kind.HANDOVER, "head", 4, (("weight", torch.zeros(2, 2)),)))


def written(folder, frames=5):
    """A log of one run that was closed, as bytes."""
    with DisclosureLog(folder, "hospital-a", study=STUDY) as log:
        for step in range(frames):
            log.note(activation(step), "server")
        log.note(HANDOVER, "hospital-b", via="server", sealed=True)
    return (folder / LOG_NAME).read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return written(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return tmp_path_factory.mktemp("copy") / LOG_NAME


def damage(path, raw):
    path.write_bytes(raw)
    with pytest.raises(LogError) as caught:
        read_disclosures(path)
    return str(caught.value)


def rehashed(entry):
    """A line as somebody would write it who knows how lines are made."""
    body = json.dumps(entry, separators=(",", ":"))
    return f'{body[:-1]},"hash":"{sha256(body.encode()).hexdigest()}"}}\n'.encode()


def test_a_line_says_what_left(tmp_path):
    before = datetime.now(UTC)
    frame = activation(7, training=False)
    with DisclosureLog(tmp_path / "new", "hospital-a", study=STUDY) as log:
        log.note(frame, "server")
        log.note(HANDOVER, 'Ünï"x"', via="server", sealed=True)
        head = log.close()
        assert log.close() == log.head == head
    opened, first, second, closed = map(json.loads, (tmp_path / "new" / LOG_NAME).read_text().splitlines())
    assert opened["entry"] == "opened" and opened["party"] == "hospital-a" and opened["study"] == STUDY
    assert opened["version"] == __version__ and re.fullmatch("[0-9a-f]{32}", opened["salt"])
    assert opened["previous"] == "0" * 64
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["time"])
    assert before <= datetime.fromisoformat(first["time"]) <= datetime.now(UTC)
    del first["time"], first["previous"], first["hash"]
    assert first == {
        "number": 2, "entry": "frame", "to": "server", "via": "", "kind": "activation", "cut": "head->server",
        "phase": "evaluation", "bytes": len(frame), "sealed": False, "step": 7, "checksum": bytes(frame[-8:]).hex(),
        "tensors": [["z", "float32", [4, 3]], ["label", "int64", [4]], ["none", None, []]],
    }  # fmt: skip
    assert (second["to"], second["via"], second["sealed"]) == ('Ünï"x"', "server", True)
    assert closed["entry"] == "closed" and closed["frames"] == 2 and closed["hash"] == head
    assert closed["bytes"] == len(frame) + len(HANDOVER)


def test_a_frame_that_is_sealed_itself_counts_as_sealed(tmp_path):
    with DisclosureLog(tmp_path, "a", study=STUDY) as log:
        log.note(encode(Message(Kind.SEALED, "b", 0, ())), "b", via="server")
    assert [flow.sealed for flow in read_disclosures(tmp_path).flows] == [True]


def test_the_sum_is_by_receiver_and_cut(tmp_path):
    raw = written(tmp_path)
    found = read_disclosures(tmp_path)
    to_server, to_peer = found.flows
    assert (found.party, found.studies, found.entries, found.runs) == ("hospital-a", [STUDY], 8, 1)
    assert found.closed and not found.torn_bytes and not found.crashes and not found.clock_jumps
    assert (to_server.to, to_server.cut, to_server.frames) == ("server", "head->server", 5)
    assert to_server.frame_bytes == 5 * len(activation())
    assert (to_server.first_step, to_server.last_step, to_server.training_frames) == (0, 4, 5)
    assert (to_peer.to, to_peer.via, to_peer.sealed) == ("hospital-b", "server", True)
    assert to_peer.frame_bytes == len(HANDOVER)
    times = [json.loads(line)["time"] for line in raw.splitlines()]
    assert (to_server.first, to_server.last) == (times[1], times[5])


def test_what_is_no_frame_is_not_noted(tmp_path):
    with DisclosureLog(tmp_path, "a", study=STUDY) as log:
        with pytest.raises(FrameError):
            log.note(b"no frame", "server")
        log.note(activation(), "server")
    assert read_disclosures(tmp_path).flows[0].frames == 1


# Changes


@settings(max_examples=400)
@given(st.data())
def test_any_byte_that_is_changed_is_noticed(sound, copy, data):
    at, flip = data.draw(st.integers(0, len(sound) - 1)), data.draw(st.integers(1, 255))
    copy.write_bytes(sound[:at] + bytes([sound[at] ^ flip]) + sound[at + 1 :])
    if at == len(sound) - 1:  # the newline at the end: the last line was not written to its end
        found = read_disclosures(copy)
        assert found.torn_bytes and not found.closed
    else:
        with pytest.raises(LogError, match=rf"line {sound[:at].count(bytes([10])) + 1} "):
            read_disclosures(copy)


@given(st.data())
def test_any_part_that_is_missing_is_noticed(sound, copy, data):
    start = data.draw(st.integers(0, len(sound) - 1))
    end = data.draw(st.integers(start + 1, len(sound)))
    copy.write_bytes(sound[:start] + sound[end:])
    try:
        found = read_disclosures(copy)
    except LogError:
        return
    assert end == len(sound) and not found.closed  # only a cut at the end is no break, and that is said


@given(st.permutations(range(8)))
def test_lines_in_another_order_are_noticed(sound, copy, order):
    lines = sound.splitlines(keepends=True)
    copy.write_bytes(b"".join(lines[i] for i in order))
    if order == sorted(order):
        assert read_disclosures(copy).entries == 8
    else:
        first = next(place for place, i in enumerate(order) if place != i)
        with pytest.raises(LogError, match=f"line {first + 1} is entry {order[first] + 1}"):
            read_disclosures(copy)


def test_each_kind_of_change_is_named(sound, copy):
    lines = sound.splitlines(keepends=True)
    third = json.loads(lines[2])
    del third["hash"]
    edited = lines[2].replace(b'"to":"server"', b'"to":"nobody"')
    assert "line 3 was changed after it was written" in damage(
        copy, b"".join([*lines[:2], edited, *lines[3:]])
    )
    assert "line 3 is entry 4: entry 3 is missing" in damage(copy, b"".join([*lines[:2], *lines[3:]]))
    assert "line 3 is entry 6: entries 3 to 5 are missing" in damage(copy, b"".join([*lines[:2], *lines[5:]]))
    assert "line 4 is entry 3, and entry 4 belongs there" in damage(
        copy, b"".join([*lines[:3], lines[2], *lines[3:]])
    )
    forged = rehashed(third | {"to": "nobody"})
    said = damage(copy, b"".join([*lines[:2], forged, *lines[3:]]))
    assert "line 4 follows a line with the hash" in said
    assert "line 3 is not an entry" in damage(copy, b"".join([*lines[:2], b"hello\n", *lines[2:]]))
    assert "line 1 is entry 2: entry 1 is missing" in damage(copy, b"".join(lines[1:]))


@given(
    st.sampled_from(["entry", "number", "time", "previous", "step", "bytes", "to", "sealed"]),
    st.sampled_from([None, "x", -1.5, [], {}, float("inf"), "2026-01-01", "9" * 5000]),
)
def test_lines_with_hashes_that_fit_and_no_sense_are_damage_or_read(copy, key, value):
    opening = {
        "number": 1,
        "time": "2026-01-01T00:00:00.000000Z",
        "entry": "opened",
        "party": "a",
        "study": "",
    }
    opened = rehashed(opening | {"previous": "0" * 64})
    frame = {
        "number": 2, "time": "2026-01-01T00:00:00.000000Z", "entry": "frame", "to": "b", "via": "", "kind": "label",
        "cut": "c", "phase": "training", "tensors": [], "bytes": 9, "sealed": False, "step": 0, "checksum": "",
        "previous": json.loads(opened)["hash"],
    }  # fmt: skip
    copy.write_bytes(opened + rehashed(frame))
    assert read_disclosures(copy).flows[0].frames == 1
    copy.write_bytes(opened + rehashed(frame | {key: value}))
    try:
        assert read_disclosures(copy).entries == 2
    except LogError as error:
        assert "line 2" in str(error)


def test_lines_cut_off_at_the_end_are_seen_with_the_head(sound, copy):
    lines = sound.splitlines(keepends=True)
    head = json.loads(lines[-1])["hash"]
    copy.write_bytes(sound)
    assert read_disclosures(copy, head=head).head_line == 8
    assert read_disclosures(copy, head=json.loads(lines[3])["hash"]).head_line == 4
    copy.write_bytes(b"".join(lines[:-2]))
    assert not read_disclosures(copy).closed
    with pytest.raises(LogError, match="removed at the end, or all were rewritten"):
        read_disclosures(copy, head=head)
    with pytest.raises(LogError, match="64 digits"):
        read_disclosures(copy, head=head[:12])


def test_what_is_no_log_is_refused(tmp_path):
    with pytest.raises(LogError, match="cannot read"):
        read_disclosures(tmp_path)
    (tmp_path / LOG_NAME).write_bytes(b"")
    with pytest.raises(LogError, match="holds no entry"):
        read_disclosures(tmp_path)


# Restarts


def test_runs_that_are_restarted_go_on_in_the_same_chain(tmp_path):
    first = written(tmp_path)
    second = written(tmp_path)
    assert second.startswith(first)
    found = read_disclosures(tmp_path, head=json.loads(first.splitlines()[-1])["hash"])
    assert (found.runs, found.crashes, found.entries, found.head_line) == (2, 0, 16, 8)
    assert found.flows[0].frames == 10


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_torn_last_line_is_cut_off_and_said(sound, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("torn") / LOG_NAME
    kept = data.draw(st.integers(0, len(sound)))
    path.write_bytes(sound[:kept])
    whole = sound[:kept].rfind(b"\n") + 1
    with DisclosureLog(path.parent, "hospital-a", study=STUDY) as log:
        log.note(activation(), "server")
    raw = path.read_bytes()
    assert raw.startswith(sound[:whole])
    added = [json.loads(line) for line in raw[whole:].splitlines()]
    found = read_disclosures(path)
    assert found.closed and not found.torn_bytes
    if kept in (0, len(sound)):
        assert [e["entry"] for e in added] == ["opened", "frame", "closed"]
    else:
        assert [e["entry"] for e in added] == ["opened", "recovered", "frame", "closed"]
        assert added[1]["torn_bytes"] == kept - whole and found.crashes == 1


def test_a_long_last_line_is_found_again(tmp_path):
    frame = encode(
        Message(Kind.HANDOVER, "head", 0, tuple((f"{i:0200}", torch.zeros(1)) for i in range(900)))
    )
    for _ in range(2):
        log = DisclosureLog(tmp_path, "a", study=STUDY)
        log.note(frame, "b")
        with pytest.raises(LogError, match="another process is writing"):
            DisclosureLog(tmp_path, "a", study=STUDY)
        os.close(log._file)  # as if the process had ended
    found = read_disclosures(tmp_path)
    assert (found.runs, found.crashes, found.flows[0].frames, found.closed) == (2, 1, 2, False)


def test_a_log_of_somebody_else_or_with_a_damaged_end_is_not_gone_on_with(tmp_path):
    raw = written(tmp_path)
    with pytest.raises(LogError, match="log of another party; got 'hospital-a'"):
        DisclosureLog(tmp_path, "hospital-b", study=STUDY)
    (tmp_path / LOG_NAME).write_bytes(raw[:-10] + b"0" * 9 + b"\n")
    with pytest.raises(LogError, match="its last line is not an entry"):
        DisclosureLog(tmp_path, "hospital-a", study=STUDY)
    with pytest.raises(LogError, match="cannot note in"):
        DisclosureLog(tmp_path / LOG_NAME, "hospital-a", study=STUDY)


def test_a_clock_that_was_set_back_is_noted(tmp_path):
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="microseconds")[:-6] + "Z"
    opened = {
        "number": 1,
        "time": later,
        "entry": "opened",
        "party": "a",
        "study": STUDY,
        "previous": "0" * 64,
    }
    (tmp_path / LOG_NAME).write_bytes(rehashed(opened))
    with DisclosureLog(tmp_path, "a", study=STUDY):
        pass
    second, *more = map(json.loads, (tmp_path / LOG_NAME).read_text().splitlines()[1:])
    assert -3600 <= second["clock"] < -3500 and not any("clock" in entry for entry in more)
    assert read_disclosures(tmp_path).clock_jumps == 1


# Disks that are full, processes that are killed


def test_where_nothing_can_be_written_the_log_does_not_open(tmp_path):
    (tmp_path / LOG_NAME).symlink_to("/dev/full")
    with pytest.raises(LogError, match=r"so nothing leaves: No space left on device; make room"):
        DisclosureLog(tmp_path, "a", study=STUDY)


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_log_that_was_taken_away_meanwhile_is_noticed(tmp_path, exchanged):
    log = DisclosureLog(tmp_path, "a", study=STUDY)
    (tmp_path / LOG_NAME).rename(tmp_path / "old")
    if exchanged:
        (tmp_path / LOG_NAME).write_bytes((tmp_path / "old").read_bytes())
    with pytest.raises(LogError, match="another file was put in its place" if exchanged else "No such file"):
        log.close()


def test_a_log_that_was_taken_away_is_noticed_while_frames_leave_and_serves_once_it_is_back(tmp_path):
    with DisclosureLog(tmp_path, "a", study=STUDY) as log:
        (tmp_path / LOG_NAME).rename(tmp_path / "old")
        log._sync_at -= 60  # as if a while had gone by
        log.note(activation(0), "server")
        wait([log._syncing])
        for step in (1, 2):
            with pytest.raises(LogError, match="so nothing leaves: No such file"):
                log.note(activation(step), "server")
        (tmp_path / "old").rename(tmp_path / LOG_NAME)
        for step in (3, 4):
            log.note(activation(step), "server")
    assert read_disclosures(tmp_path).flows[0].frames == 5


def test_frames_leave_while_the_log_is_brought_to_the_disk(tmp_path):
    with DisclosureLog(tmp_path, "a", study=STUDY) as log:
        for step in range(50):
            log._sync_at -= 60
            log.note(activation(step), "server")
        assert log._syncing.exception() is None
    found = read_disclosures(tmp_path)
    assert found.closed and found.flows[0].frames == 50


def test_a_log_that_was_closed_notes_nothing(tmp_path):
    log = DisclosureLog(tmp_path, "a", study=STUDY)
    log.close()
    with pytest.raises(LogError, match="is closed"):
        log.note(activation(), "server")


WRITER = """
import resource, sys, torch
from cutlayer.errors import LogError
from cutlayer.metering.disclosure_log import DisclosureLog
from cutlayer.wire import Kind, Message, encode

log = DisclosureLog(sys.argv[1], "a", study="d")
step = 0
def note():
    global step
    log.note(encode(Message(Kind.ACTIVATION, "c", step, (("z", torch.zeros(2)),))), "b")
    step += 1
"""

FULL_DISK = """
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
for attempt in range(2):
    try:
        while True:
            note()
    except LogError as error:
        print(step, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
note()
print(step, log.close())
"""

ENDLESS = """
while True:
    note()
    print(step, flush=True)
"""


def writing(script: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER + script, folder], stdout=subprocess.PIPE, text=True
    )


def test_a_full_disk_lets_nothing_leave_and_leaves_the_log_whole(tmp_path):
    """The disk is full within a line, twice; then there is room again."""
    said = writing(FULL_DISK, tmp_path).communicate(timeout=60)[0].splitlines()
    (first, message), (second, _), (last, head) = (line.split(" ", 1) for line in said)
    assert 5 < int(first) == int(second) == int(last) - 1
    assert "so nothing leaves" in message
    found = read_disclosures(tmp_path, head=head)
    assert found.flows[0].frames == int(last) and found.closed and found.runs == 1


def test_all_that_was_noted_is_there_after_kill_9(tmp_path):
    process = writing(ENDLESS, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 500:
            process.send_signal(signal.SIGKILL)
            break
    noted = [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGKILL
    found = read_disclosures(tmp_path)
    assert not found.closed and found.flows[0].frames in range(max([500, *noted]), max([500, *noted]) + 3)
    with DisclosureLog(tmp_path, "a", study="d"):  # the lock went with the process
        pass
    assert read_disclosures(tmp_path).crashes == 1
