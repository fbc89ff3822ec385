"""The asynchronous order: it ends, trains on every row once, and keeps its bound."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import small_graph

from cutlayer.errors import StudyError
from cutlayer.graph import vanilla
from cutlayer.graph.networks import mlp
from cutlayer.schedules import Asynchronous, Calendar, Op, check, program_of
from cutlayer.schedules.steps import Step

GRAPH = small_graph("vanilla")
FIVE = vanilla(mlp((2, 3, 2)), "linear1", clients=5, example=torch.arange(6.0).reshape(3, 2))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any),
    st.integers(0, 6),
    st.integers(0, 3),
    st.lists(st.sampled_from([0.1, 0.5, 1.0, 3.0, 20.0]), min_size=5, max_size=5),
)
def test_every_batch_is_done_once_and_no_copy_is_too_old(rows, staleness, round_, speeds):
    stated = {f"client-{n}": speed for n, speed in enumerate(speeds)}
    schedule = Asynchronous(staleness=staleness, round=round_, speeds=stated)
    calendar = Calendar([{"train": n} for n in rows], 2, seed=1)
    items = list(schedule.epoch(FIVE, calendar, 0))
    trained = sorted(item.batch for item in items if isinstance(item, Step))
    assert trained == sorted(
        f"train.{t}/0/{n}" for t in range(5) for n in range(calendar.batches(t, "train"))
    )
    version, taken, ages = 0, {}, []
    for item in items:
        if isinstance(item, Step):
            continue
        if item.op is Op.COPY:
            taken[item.what] = version
        elif item.op is Op.GIVE:
            ages.append(version - taken.pop(item.what))
        elif item.op is Op.AVERAGE:
            version += 1
        assert len(taken) <= staleness + 1
    assert max(ages) <= staleness and not taken
    check(program_of(schedule, FIVE, calendar, 2), FIVE, calendar)


def test_the_fast_do_more_rounds_before_the_slow_are_done():
    schedule = Asynchronous(staleness=3, round=1, speeds={"client-0": 10.0})
    calendar = Calendar([{"train": 6}, {"train": 6}], 2)
    order = [item.batch for item in schedule.epoch(GRAPH, calendar, 0) if isinstance(item, Step)]
    assert order == [f"train.{batch}" for batch in ("0/0/0", "0/0/1", "0/0/2", "1/0/0", "1/0/1", "1/0/2")]


def test_a_fast_client_waits_for_one_whose_copy_would_be_too_old():
    schedule = Asynchronous(staleness=1, round=1, speeds={"client-0": 10.0})
    calendar = Calendar([{"train": 6}, {"train": 6}], 2)
    order = [item.batch for item in schedule.epoch(GRAPH, calendar, 0) if isinstance(item, Step)]
    assert order[:3] == ["train.0/0/0", "train.0/0/1", "train.1/0/0"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"staleness": -1}, "staleness is a number of averages"),
        ({"rate": 0.0}, "rate is above 0"),
        ({"rate": 1.5}, "rate is above 0"),
        ({"jitter": 1.0}, "jitter is a part of a duration"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(StudyError, match=words):
        Asynchronous(**wrong)
