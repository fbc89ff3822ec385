"""The calendar: which rows train when, the same for all parties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.errors import StudyError
from cutlayer.schedules.calendar import Batch, Calendar


@given(st.sampled_from(["train", "valid", "test"]), *[st.integers(0, 10**6)] * 3)
def test_a_batch_parses_back_from_what_it_prints(split, turn, epoch, number):
    batch = Batch(split, turn, epoch, number)
    assert Batch.parse(str(batch)) == batch


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 3), st.booleans()
)
def test_an_epoch_goes_through_every_row_once(rows, size, epoch, drop_last):
    calendar = Calendar([{"train": n} for n in rows], size, seed=1, drop_last=drop_last)
    for turn, count in enumerate(rows):
        numbers = range(calendar.batches(turn, "train"))
        batches = [calendar.positions(Batch("train", turn, epoch, number)) for number in numbers]
        seen = torch.cat(batches).tolist() if batches else []
        assert len(seen) == len(set(seen)) == (count // size * size if drop_last else count)
        assert set(seen) <= set(range(count))
        assert all(len(batch) == size for batch in batches[:-1])
        assert not drop_last or all(len(batch) == size for batch in batches)
    assert calendar.steps() == sum(calendar.batches(turn, "train") for turn in range(len(rows)))


@given(
    st.booleans(),
    st.lists(st.integers(0, 90), min_size=1, max_size=3).filter(any),
    st.integers(1, 4),
    st.data(),
)
def test_batches_are_the_same_whichever_were_asked_for_before(pooled, rows, size, data):
    def fresh():
        return Calendar([{"train": count} for count in rows], size, seed=2, pooled=pooled)

    calendar = fresh()
    all_of_them = [
        Batch("train", turn, epoch, number)
        for turn in range(len(rows))
        for epoch in range(2)
        for number in range(calendar.batches(turn, "train"))
    ]
    for batch in data.draw(st.lists(st.sampled_from(all_of_them), max_size=12)):
        positions = calendar.positions(batch)
        assert positions.equal(fresh().positions(batch))
        assert len(positions) == calendar.size(batch)


def test_pooled_batches_have_all_rows_once_and_as_many_as_asked_for():
    calendar = Calendar([{"train": 70}, {"train": 0}, {"train": 31}], 3, seed=4, pooled=True)
    steps = range(calendar.batches(0, "train"))
    batches = [[calendar.positions(Batch("train", turn, 1, step)) for turn in (0, 2)] for step in steps]
    assert [sum(map(len, parts)) for parts in batches] == [3] * 33 + [2]
    for place, count in enumerate([70, 31]):
        assert sorted(torch.cat([parts[place] for parts in batches]).tolist()) == list(range(count))


def test_of_an_epoch_that_is_over_nothing_is_kept():
    calendar = Calendar([{"train": 100}, {"train": 100}], 1, seed=4)
    batches = [calendar.positions(Batch("train", turn, 0, n)) for n in range(100) for turn in (0, 1)]
    kept = sum(map(len, calendar._ready.values()))
    assert kept < 100 <= len(batches)  # nor all of one that is at work
    calendar.positions(Batch("train", 0, 1, 0))
    assert {epoch for _, _, epoch, _ in calendar._ready} == {1}


def test_the_order_depends_on_seed_epoch_and_turn_only():
    def order(seed=0, epoch=0, turn=0, asked_first=()):
        calendar = Calendar([{"train": 50}, {"train": 50}], 50, seed=seed)
        for other in asked_first:
            calendar.positions(other)
        return calendar.positions(Batch("train", turn, epoch, 0)).tolist()

    assert order() == order() == order(asked_first=[Batch("train", 1, 3, 0), Batch("valid", 0, 0, 0)])
    different = [order(), order(seed=1), order(epoch=1), order(turn=1)]
    assert len({tuple(o) for o in different}) == 4
    assert all(sorted(o) == list(range(50)) for o in different)


def test_without_shuffle_and_in_evaluation_rows_keep_their_order():
    plain = Calendar([{"train": 5}], 2, shuffle=False)
    assert [plain.positions(Batch("train", 0, 7, i)).tolist() for i in range(3)] == [[0, 1], [2, 3], [4]]
    calendar = Calendar([{"train": 5, "test": 5}], 2, drop_last=True, evaluation_batch_size=3)
    assert [calendar.positions(Batch("test", 0, 7, i)).tolist() for i in range(2)] == [[0, 1, 2], [3, 4]]
    assert calendar.batches(0, "test") == 2 and calendar.batches(0, "train") == 2


def test_a_split_that_is_not_there_has_no_rows():
    calendar = Calendar([{"train": 5}, {}], 2)
    assert calendar.count(0, "valid") == calendar.batches(1, "train") == 0
    assert calendar.steps() == 3


@pytest.mark.parametrize("name", ["batch_size", "evaluation_batch_size"])
def test_a_batch_has_at_least_one_row(name):
    with pytest.raises(StudyError, match=f"{name} must be at least 1; got 0"):
        Calendar([{"train": 5}], **{"batch_size": 4, name: 0})


def test_positions_can_index_records():
    rows = Calendar([{"train": 4}], 3).positions(Batch("train", 0, 0, 0))
    assert rows.dtype is torch.int64 and rows.shape == (3,)
    assert torch.arange(4).index_select(0, rows).tolist() == rows.tolist()
    assert np.asarray(rows).dtype == np.int64
