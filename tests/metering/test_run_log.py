"""The run's log: one line an event, readable while it grows, after a cut and after a full disk."""

import dataclasses
import json
import logging
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cutlayer.cli import app
from cutlayer.errors import LogError
from cutlayer.metering.events import (
    Began,
    Computed,
    Defended,
    Ended,
    EpochEnded,
    Event,
    Measured,
    Noted,
    Placed,
    Traffic,
    Worked,
    decode_event,
    encode_event,
)
from cutlayer.metering.run_log import RunLog, read_log
from cutlayer.metering.tables import tables

NOTE = Noted(subject="a", text="b", figures={"c": 0.1})
END = Ended(reason="done", epochs=2, best_epoch=1, seconds=0.5, peak_memory_bytes=10)


def epoch(number):
    return EpochEnded(epoch=number, steps=3, rows=9, losses={"loss": 0.1 + number}, seconds=0.25)


def written(folder, *events):
    log = RunLog(folder)
    for event in events:
        log.write(event)
    log.close()
    return folder / "log.jsonl"


# Events

TEXT, NUMBER = st.text(max_size=20), st.floats(allow_nan=False)
BY_TYPE = {
    "str": TEXT, "int": st.integers(-(10**29), 10**29), "float": NUMBER,
    "Mapping[str, str]": st.dictionaries(TEXT, TEXT, max_size=3),
    "Mapping[str, float]": st.dictionaries(TEXT, NUMBER, max_size=3),
    "Sums": st.dictionaries(
        st.sampled_from(["accuracy", "loss", "mae", "rmse"]),
        st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(NUMBER, min_size=n, max_size=n), min_size=2, max_size=2)),
    ),
}  # fmt: skip
KINDS = [Began, Placed, Traffic, Computed, Worked, EpochEnded, Measured, Noted, Ended, Defended]


@given(
    st.sampled_from(KINDS).flatmap(
        lambda kind: st.builds(kind, **{f.name: BY_TYPE[f.type] for f in dataclasses.fields(kind)})
    )
)
def test_an_event_is_one_line_and_comes_back_from_it(event):
    line = encode_event(event)
    assert "\n" not in line and json.loads(line)["event"] == type(event).kind
    assert decode_event(line) == event


def test_numbers_that_are_none_come_back_too():
    event = Measured(
        epoch=0, split="test", loss="loss", party="a", rows=1, metrics={"a": math.inf, "b": math.nan}
    )
    metrics = decode_event(encode_event(event)).metrics
    assert metrics["a"] == math.inf and math.isnan(metrics["b"])


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "1", '"began"', "{}", '{"event": "sung"}', '{"event": "ended"}', '{"event": "noted", "odd": 1}',
     encode_event(NOTE)[:-5], '{"event": ["noted"]}'],
)  # fmt: skip
def test_what_is_no_event_is_refused(line):
    with pytest.raises(
        LogError, match=r"not an event of a run log: .*; the line was damaged, or written by a newer"
    ):
        decode_event(line)


SAMPLES = [
    Began(
        name="n", study="s", digest="d", seed=1, epochs=2, batch_size=3, schedule="s", optimizer="o",
        parties={"a": "client", "b": "server"}, graph="g", mermaid="m", svg="<svg/>", disclosures={"a": "all"},
        holdings="h", versions={"torch": "2"}, started="2026-01-01T00:00:00+00:00",
    ),
    Placed(segment="head", role="client", parameters=4, trainable=4, state_bytes=16),
    Traffic(
        epoch=0, phase="training", cut="head->server", content="activation", sender="a", receiver="b", frames=1,
        frame_bytes=80, tensor_bytes=64,
    ),
    Computed(epoch=0, phase="training", party="a", segment="head", direction="forward", calls=1, flops=32),
    Worked(epoch=0, party="a", op="forward", calls=1, seconds=0.5),
    epoch(0),
    Measured(
        epoch=0, split="test", loss="loss", party="b", rows=2, metrics={"loss": 0.5},
        sums={"loss": [[1.0], [2.0]], "accuracy": [[1.0], [2.0]]},
    ),
    NOTE,
    END,
    Defended(epoch=0, party="a", cut="head->b", defence="nopeek:0.1", facts={"distance correlation": 0.5}),
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | TEXT | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def test_there_is_a_sample_of_each_kind():
    assert [type(event) for event in SAMPLES] == KINDS


@given(sample=st.sampled_from(SAMPLES), value=JSON, data=st.data())
def test_any_value_in_place_of_a_field_gives_an_event_with_tables_or_a_log_error(sample, value, data):
    name = data.draw(st.sampled_from([f.name for f in dataclasses.fields(sample)]))
    line = json.dumps({**json.loads(encode_event(sample)), name: value})
    try:
        event = decode_event(line)
    except LogError as error:
        assert "not an event of a run log" in error.what
        return
    others = [e for e in SAMPLES if type(e) is not type(event)]
    for table in tables([*others, sample, event]).values():
        assert table.text() and table.markdown()


@pytest.mark.parametrize(
    ("sample", "name", "value", "words"),
    [
        (SAMPLES[6], "metrics", 3, "its metrics should be numbers by name"),
        (SAMPLES[6], "metrics", {"loss": "low"}, "its metrics should be numbers by name"),
        (SAMPLES[6], "sums", {"loss": [1.0, 2.0]}, "its sums should be lists of numbers by metric"),
        (SAMPLES[6], "rows", True, "its rows should be a whole number"),
        (SAMPLES[6], "rows", 10**400, "its rows should be a whole number"),
        (SAMPLES[0], "parties", [1], "its parties should be texts by name"),
        (SAMPLES[0], "name", "\ud800", "its name should be text"),
        (SAMPLES[4], "seconds", "1", "its seconds should be a number"),
    ],
)
def test_a_field_of_another_type_is_named_with_file_and_line(sample, name, value, words, tmp_path):
    path = written(tmp_path, NOTE, NOTE)
    with path.open("a") as file:
        file.write(json.dumps({**json.loads(encode_event(sample)), name: value}) + "\n")
    with pytest.raises(LogError, match=rf"log.jsonl, line 3: not an event of a run log \({words}\)"):
        read_log(tmp_path)


def test_the_report_of_a_damaged_log_is_a_short_error(tmp_path):
    path = written(tmp_path, SAMPLES[0])
    with path.open("a") as file:
        file.write(json.dumps({**json.loads(encode_event(SAMPLES[6])), "metrics": 3}) + "\n")
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1 and "its metrics should be numbers by name" in " ".join(
        result.stderr.split()
    )
    assert "Traceback" not in result.output and len(result.stderr) < 600


def test_brackets_without_end_are_no_event():
    with pytest.raises(LogError, match="not an event"):
        decode_event("[" * 100_000)


def test_events_are_told_apart_by_their_kind():
    assert len({kind.kind for kind in KINDS}) == len(KINDS)
    assert set(KINDS) == set(Event.__subclasses__())


# The log


def test_without_a_folder_events_stay_in_memory():
    log = RunLog()
    log.write(NOTE)
    log.close()
    assert log.events == [NOTE] and log.folder is None


def test_a_log_is_readable_while_it_grows(tmp_path):
    log = RunLog(tmp_path / "deep" / "run")
    for number in range(3):
        log.write(epoch(number))
        assert read_log(tmp_path / "deep" / "run") == [epoch(n) for n in range(number + 1)]
    log.close()
    log.close()
    assert read_log(tmp_path / "deep" / "run" / "log.jsonl") == log.events


def test_a_log_that_is_there_is_not_written_over(tmp_path):
    written(tmp_path, NOTE)
    with pytest.raises(LogError, match=r"log.jsonl exists already; choose another folder, or resume"):
        RunLog(tmp_path)
    assert read_log(tmp_path) == [NOTE]


def test_a_log_goes_on_where_it_ended(tmp_path):
    written(tmp_path, epoch(0))
    log = RunLog(tmp_path, append=True)
    log.write(epoch(1))
    log.close()
    assert log.events == read_log(tmp_path) == [epoch(0), epoch(1)]


def test_a_line_that_was_cut_off_is_left_out_with_a_warning(tmp_path, caplog):
    path = written(tmp_path, epoch(0), epoch(1))
    whole = path.read_bytes()
    for cut in range(1, len(whole) - whole.index(b"\n") - 1):
        path.write_bytes(whole[:-cut])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read_log(tmp_path) == [epoch(0)]
        assert "the last line was cut off and is left out" in caplog.text
    log = RunLog(tmp_path, append=True)
    log.write(epoch(1))
    log.close()
    assert path.read_bytes() == whole


def test_a_character_that_was_cut_in_two_is_no_problem(tmp_path):
    path = written(tmp_path, NOTE, Noted(subject="a", text="Grüße"))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("ü".encode()) + 1])
    assert read_log(tmp_path) == [NOTE]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = written(tmp_path, epoch(0), epoch(1), epoch(2))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:20] + "\n" + lines[2])
    for read in (lambda: read_log(tmp_path), lambda: RunLog(tmp_path, append=True)):
        with pytest.raises(LogError, match=r"log.jsonl, line 2: not an event of a run log"):
            read()


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\x0bb", "a\rb", "a\nb", "é"])
def test_characters_that_end_lines_elsewhere_do_not_end_them_here(text, tmp_path):
    event = Noted(subject=text, text=text)
    written(tmp_path, event, epoch(0))
    assert read_log(tmp_path) == [event, epoch(0)]


def test_there_must_be_a_log_to_read(tmp_path):
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "nothing" / "log.jsonl"):
        with pytest.raises(
            LogError, match=r"cannot read .*: No such file.*; give a run's folder or its log.jsonl"
        ):
            read_log(path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match=r"choose (another folder|a folder you may write to)"):
        RunLog(tmp_path / "file" / "run")
    with pytest.raises(LogError, match=r"cannot write .*file/log.jsonl: |file/log.jsonl exists"):
        RunLog(tmp_path / "file")


def test_a_full_disk_is_said_and_what_was_noted_before_is_kept(tmp_path):
    written(tmp_path, epoch(0))
    os.rename(tmp_path / "log.jsonl", tmp_path / "kept.jsonl")
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    log = RunLog(tmp_path, append=True)
    with pytest.raises(
        LogError, match=r"cannot write .*log.jsonl: No space left on device; make room on the disk; every"
    ):
        log.write(epoch(1))
    with pytest.raises(LogError, match=r"cannot finish .*log.jsonl: No space left on device"):
        log.close()
    log.close()
    assert read_log(tmp_path / "kept.jsonl") == [epoch(0)]


# Rewinding


@pytest.mark.parametrize("folder", [True, False])
def test_a_log_forgets_what_came_after_an_epoch(folder, tmp_path):
    log = RunLog(tmp_path if folder else None)
    for event in (NOTE, epoch(0), epoch(1), NOTE, epoch(2), END):
        log.write(event)
    log.rewind(5)
    assert log.events == [NOTE, epoch(0), epoch(1), NOTE, epoch(2)]
    log.rewind(1)
    log.write(epoch(2))
    assert log.events == [NOTE, epoch(0), epoch(1), NOTE, epoch(2)]
    log.rewind(-1)
    log.write(END)
    log.close()
    assert log.events == [NOTE, END]
    assert not folder or read_log(tmp_path) == [NOTE, END]


def test_rewinding_to_the_last_epoch_changes_nothing(tmp_path):
    path = written(tmp_path, NOTE, epoch(0))
    log = RunLog(tmp_path, append=True)
    before = path.read_bytes()
    log.rewind(0)
    log.close()
    assert path.read_bytes() == before
