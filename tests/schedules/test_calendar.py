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
