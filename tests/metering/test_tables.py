from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.metering.events import (
    Began,
    Computed,
    Ended,
    EpochEnded,
    Measured,
    Noted,
    Placed,
    Traffic,
    Worked,
    decode_event,
    encode_event,
)  # fmt: skip
from cutlayer.metering.run_log import RunLog, read_log
from cutlayer.metering.table import Table, human_bytes, human_flops, human_seconds, shown
from cutlayer.metering.tables import finished, merged_metrics, parties, tables, time, traffic


def flops(epoch, phase, party, direction, count) -> Computed:
    return Computed(
        epoch=epoch, phase=phase, party=party, segment="head", direction=direction, calls=1, flops=count
    )


def began(clients: int = 2) -> Began:
    roles = {f"client-{i}": "client" for i in range(clients)} | {"server": "server"}
    return Began(
        name="trial", study="u_shaped", digest="d" * 64, seed=7, epochs=2, batch_size=4,
        optimizer="SGD lr=0.1", parties=roles, graph="g", mermaid="m", svg="s", disclosures={},
        holdings="h", schedule="round robin", versions={"torch": "2"}, started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def sent(cut, content, sender, receiver, size, *, phase="training", epoch=0, frames=1) -> Traffic:
    return Traffic(
        epoch=epoch, phase=phase, cut=cut, content=content, sender=sender, receiver=receiver,
        frames=frames, frame_bytes=size + 10 * frames, tensor_bytes=size,
    )  # fmt: skip


def measured(epoch, party, rows, **metrics) -> Measured:
    return Measured(epoch=epoch, split="test", loss="loss", party=party, rows=rows, metrics=metrics)


ENDED = Ended(reason="all epochs done", epochs=2, best_epoch=1, seconds=75.0, peak_memory_bytes=2_500_000)


def run(clients: int = 2) -> list:
    events = [
        began(clients),
        Placed(segment="head", role="client", parameters=12, trainable=10, state_bytes=56),
    ]
    events.append(Placed(segment="body", role="server", parameters=5, trainable=5, state_bytes=20))
    for epoch in range(2):
        for i in range(clients):
            name = f"client-{i}"
            events += [
                sent("head->server", "activation", name, "server", 100 * (i + 1), epoch=epoch),
                sent("head->server", "gradient", "server", name, 100 * (i + 1), epoch=epoch),
                sent("head->server", "activation", name, "server", 40, phase="evaluation", epoch=epoch),
                flops(epoch, "training", name, "forward", 50),
                flops(epoch, "training", name, "backward", 90),
                flops(epoch, "evaluation", name, "infer", 7),
                Worked(epoch=epoch, party=name, op="forward", calls=3, seconds=0.5 * (i + 1)),
                Worked(epoch=epoch, party=name, op="load", calls=3, seconds=0.1),
            ]
            if i:
                other = f"client-{i - 1}"
                events.append(
                    sent("hand-over of client", "handover", other, name, 56, phase="hand-over", epoch=epoch)
                )
        events.append(
            EpochEnded(epoch=epoch, steps=4, rows=16, losses={"loss": 1.0 - epoch / 2}, seconds=3.0)
        )
        events += [
            measured(epoch, f"client-{i}", 10 * (i + 1), accuracy=0.5 + 0.1 * i) for i in range(clients)
        ]
        events.append(
            sent(f"metrics/{epoch}", "statistics", "client-0", "server", 16, phase="evaluation", epoch=epoch)
        )
    return [*events, Noted(subject="central twin", text="equal", figures={"equal": 1.0}), ENDED]


def row(table: Table, *start: str) -> dict:
    found = [r for r in table.rows if r[: len(start)] == start]
    assert len(found) == 1, (start, table.rows)
    return dict(zip(table.columns, found[0], strict=True))


@pytest.mark.parametrize("clients", [1, 2, 8, 9, 100])
@pytest.mark.parametrize("every_party", [False, True])
def test_the_log_gives_the_same_tables_as_the_run(tmp_path, clients, every_party):
    log = RunLog(tmp_path / "run")
    for event in run(clients):
        log.write(event)
    log.close()
    alive = tables(log.events, every_party=every_party)
    assert tables(read_log(tmp_path / "run"), every_party=every_party) == alive
    assert tables([decode_event(encode_event(e)) for e in log.events], every_party=every_party) == alive
    assert all(table.text() and table.markdown() for table in alive.values())


def test_every_table_has_rows_and_a_title():
    found = tables(run())
    assert list(found) == [
        "summary",
        "metrics",
        "losses",
        "protection",
        "traffic",
        "parties",
        "compute",
        "parameters",
        "time",
    ]
    for name, table in found.items():
        assert table.title and (table.rows or name == "protection")
        assert all(len(r) == len(table.columns) for r in table.rows)


def test_tables_of_nothing():
    for table in tables([]).values():
        assert table.text() and table.markdown()
    assert merged_metrics([], "test", "loss") == {}


def test_traffic_by_cut_phase_and_direction():
    table = traffic(run(2))
    there = row(table, "training", "head->server", "activation", "client-1")
    assert (there["to"], there["frames"], there["frame bytes"], there["tensor bytes"]) == (
        "server",
        2,
        420,
        400,
    )
    assert there["overhead (%)"] == pytest.approx(5.0)
    back = row(table, "training", "head->server", "gradient", "server", "client-0")
    assert back["tensor bytes"] == 200
    assert row(table, "evaluation", "head->server", "activation", "client-0")["tensor bytes"] == 80
    assert row(table, "hand-over", "hand-over of client", "handover")["from"] == "client-0"
    assert row(table, "evaluation", "metrics")["frames"] == 2
    phases = list(dict.fromkeys(table.column("phase")))
    assert phases == ["training", "evaluation", "hand-over"]
    assert "most by one (frame bytes)" not in table.columns


def test_a_crowd_is_one_row_with_its_most():
    table = traffic(run(100))
    there = row(table, "training", "head->server", "activation")
    assert (there["from"], there["to"]) == ("client (100 parties)", "server")
    assert there["tensor bytes"] == 2 * 100 * sum(range(1, 101))
    assert there["most by one (frame bytes)"] == 2 * (10_000 + 10)
    assert len(traffic(run(100), every_party=True).rows) > 300
    crowd = row(parties(run(100)), "client (100 parties)")
    single = parties(run(100), every_party=True)
    for column in single.columns[1:]:
        assert crowd[column] == sum(
            cell for r, cell in zip(single.rows, single.column(column), strict=True) if r[0] != "server"
        )


def test_what_left_a_party_is_what_others_received():
    table = parties(run(3))
    assert sum(table.column("sent (bytes)")) == sum(table.column("received (bytes)"))
    assert sum(table.column("sent (bytes)")) == sum(traffic(run(3)).column("frame bytes"))
    first = row(table, "client-0")
    assert first["sent in training (bytes)"] == 2 * 110
    assert first["sent in evaluation (bytes)"] == 2 * (50 + 26)
    assert first["sent in hand-over (bytes)"] == 2 * 66
    assert first["received (bytes)"] == 2 * 110
    assert table.column("party") == ("client-0", "client-1", "client-2", "server")


def test_a_party_that_sent_nothing_is_listed():
    table = parties([began(2)])
    assert table.column("sent (bytes)") == (0, 0, 0)


def test_compute_by_direction():
    found = row(tables(run(2))["compute"], "client-1", "head")
    assert list(found.values())[2:] == [100, 180, 14, 294]
    crowd = row(tables(run(9))["compute"], "client (9 parties)", "head")
    assert (crowd["all (FLOP)"], crowd["most by one (FLOP)"]) == (9 * 294, 294)


def test_parameters():
    table = tables(run(2))["parameters"]
    assert table.rows == (
        ("head", "client", 2, 12, 10, 56), ("body", "server", 1, 5, 5, 20), ("all", None, None, 17, 15, 76),
    )  # fmt: skip


def test_time_is_sorted_by_party_and_most_first():
    table = time(run(2))
    assert table.column("party") == ("client-0", "client-0", "client-1", "client-1")
    assert table.column("action") == ("forward", "load", "forward", "load")
    assert table.column("time (s)") == pytest.approx((1.0, 0.2, 2.0, 0.2))


def test_metrics_of_several_holders_are_weighted_by_rows():
    both = measured(0, "client-0", 10, accuracy=1.0, auc=0.9)
    events = [began(3), both, measured(0, "client-1", 30, accuracy=0.5)]
    table = tables(events)["metrics"]
    assert table.rows == ((1, "test", 40, 0.625, 0.9),)
    assert table.note.startswith("accuracy, AUC: means over 2 label holders, weighted by their rows")
    assert merged_metrics(events, "test", "loss") == {"accuracy": 0.625, "auc": 0.9}


def test_one_holder_is_no_mean():
    assert "means" not in tables([measured(0, "server", 3, accuracy=1.0)])["metrics"].note


def test_several_losses_are_told_apart():
    events = [
        measured(0, "a", 3, accuracy=1.0),
        dataclasses.replace(measured(0, "b", 3, accuracy=0.0), loss="other"),
    ]
    table = tables(events)["metrics"]
    assert table.columns == ("epoch", "split", "loss of", "rows", "accuracy")
    assert [r[2] for r in table.rows] == ["loss", "other"]
    assert merged_metrics(events, "test", "other") == {"accuracy": 0.0}


def test_an_epoch_trained_again_counts_once():
    first = EpochEnded(epoch=0, steps=4, rows=16, losses={"loss": 9.0}, seconds=1.0)
    again = dataclasses.replace(first, losses={"loss": 1.0})
    events = [
        began(),
        first,
        measured(0, "server", 4, accuracy=0.1),
        again,
        measured(0, "server", 4, accuracy=0.9),
    ]
    assert tables(events)["losses"].rows == ((1, 4, 16, 1.0, 1.0),)
    assert tables(events)["metrics"].column("accuracy") == (0.9,)


def test_metrics_are_those_of_the_weights_that_were_kept():
    events = [began(), *(measured(e, "server", 4, accuracy=e / 10) for e in range(5))]
    assert merged_metrics(events, "test", "loss") == {"accuracy": 0.4}
    ended = dataclasses.replace(ENDED, best_epoch=2)
    assert merged_metrics([*events, ended], "test", "loss") == {"accuracy": 0.2}


def test_a_run_that_goes_on_is_not_finished():
    epoch = EpochEnded(epoch=0, steps=1, rows=1, losses={}, seconds=1.0)
    assert not finished([began(), epoch])
    assert finished([began(), epoch, ENDED, Noted(subject="s", text="t")])
    assert not finished([began(), epoch, ENDED, epoch])


def test_the_summary_answers_the_first_questions():
    found = dict(tables(run(2))["summary"].rows)
    assert found["study"] == "trial (u_shaped)"
    assert found["parties"] == "client (2), server"
    assert found["epochs"] == "2 of 2"
    assert (found["ended"], found["time"], found["peak memory"]) == (
        "all epochs done",
        "1 min 15 s",
        "2.50 MB",
    )
    assert found["traffic in training"] == "1.28 KB"
    assert found["compute in training"] == "560 FLOP"
    assert found["test"] == "accuracy 0.5667 (row-weighted mean)"
    assert dict(tables(run(2)[:-1])["summary"].rows)["ended"] == "not yet, or cut off"


def test_text_is_aligned():
    table = Table(title="T", columns=("name", "count"), rows=(("a", 1234), ("longer", None)), note="N")
    assert table.text() == "T\n\nname    count\n------  -----\na       1,234\nlonger\n\nN\n"
    assert (
        table.markdown() == "**T**\n\n| name | count |\n| --- | ---: |\n| a | 1,234 |\n| longer |  |\n\nN\n"
    )


def test_bars_in_cells_stay_cells_in_markdown():
    assert "| a\\|b |" in Table(title="T", columns=("c",), rows=(("a|b",),)).markdown()


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (-1234, "-1,234"),
        (0.00012, "1.200e-04"),
        (float("nan"), "nan"),
        (2.5, "2.5"),
        (1e6, "1,000,000"),
    ],
)
def test_cells_as_text(cell, text):
    assert shown(cell) == text


@given(st.integers(0, 10**18))
def test_units_keep_three_digits(count):
    number, unit = human_bytes(count).split(" ")
    step = {"B": 0, "KB": 1, "MB": 2, "GB": 3, "TB": 4, "PB": 5}[unit]
    assert float(number.replace(",", "")) * 1000**step == pytest.approx(count, rel=5.1e-3)
    assert len(number.replace(".", "").replace(",", "")) <= 4


def test_units():
    assert human_bytes(0) == "0 B"
    assert human_bytes(999_600) == "1.00 MB"
    assert human_flops(29.4e12) == "29.4 TFLOP"
    assert human_seconds(59.99) == "60 s"
    assert human_seconds(7325) == "2 h 2 min"
    assert human_seconds(float("nan")) == "nan s"


def own(clients: int = 2, party: str = "client-0") -> list:
    """Return what ``party`` notes of its own part in :func:`run`."""
    found = [
        event
        for event in run(clients)
        if getattr(event, "sender", getattr(event, "party", None)) in (party, None)
        or isinstance(event, Began)
    ]
    return [dataclasses.replace(found[0], party=party), *found[1:]]


def test_a_party_s_own_log_tells_what_it_sent_by_receiver():
    found = parties(own())
    assert found.columns == (
        "to", "sent in training (bytes)", "sent in evaluation (bytes)", "sent in hand-over (bytes)", "sent (bytes)",
    )  # fmt: skip
    assert found.rows == (("client-1", 0, 0, 132, 132), ("server", 220, 152, 0, 372))


def test_a_party_in_a_crowd_is_named_in_its_own_log():
    found = tables(own(100, "client-7"))
    assert {r[0] for r in found["compute"].rows} == {"client-7"}
    assert found["parties"].column("to") == ("client (99 parties)", "server")


def test_a_log_of_before_there_were_own_logs_is_everybody_s():
    line = encode_event(began()).replace(', "party": ""', "")
    assert 'party"' not in line and decode_event(line) == began()
