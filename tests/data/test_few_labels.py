"""Most labels put away: which rows keep theirs, and what unlabelled records are."""

import numpy as np
import pytest
import torch

import cutlayer as cl
from cutlayer.data import Holdings, Records
from cutlayer.errors import DataError

PEOPLE = cl.data.digits().split_rows(3)


def test_rows_are_dealt_into_labelled_and_unlabelled_and_nothing_else_changes():
    few = cl.data.hide_labels(PEOPLE, keep=0.1, seed=4)
    for before, after in zip(PEOPLE.parties, few.parties, strict=True):
        train, labelled, rest = before.splits["train"], after.splits["train"], after.splits["unlabelled"]
        assert len(labelled) == round(0.1 * len(train)) and set(rest.fields) == {"x"}
        ids = np.concatenate([labelled.ids, rest.ids])
        assert sorted(ids) == sorted(train.ids)
        for records in (labelled, rest):
            assert torch.equal(records.fields["x"], train.fields["x"][train.rows_of(records.ids)])
        assert torch.equal(labelled.fields["y"], train.fields["y"][train.rows_of(labelled.ids)])
        assert after.splits["test"] is before.splits["test"]
    assert few.fields("client") == PEOPLE.fields("client")
    assert "unlabelled" in few.table() and "unlabelled" not in PEOPLE.table()


def test_the_seed_chooses_the_rows():
    one, same, other = (cl.data.hide_labels(PEOPLE, keep=0.1, seed=seed) for seed in (1, 1, 2))
    ids = [people.party("client-0").splits["train"].ids for people in (one, same, other)]
    assert np.array_equal(ids[0], ids[1]) and not np.array_equal(ids[0], ids[2])


@pytest.mark.parametrize("keep", [0, 1, -0.1, 50])
def test_a_share_that_is_none_is_refused(keep):
    with pytest.raises(DataError, match="above 0 and below 1"):
        cl.data.hide_labels(PEOPLE, keep=keep)


def test_who_has_no_labels_cannot_hide_them():
    columns = cl.data.breast_cancer().split_columns({"clinic": slice(0, 5), "laboratory": slice(5, 10)})
    with pytest.raises(DataError, match="clinic: the party does not hold both records and the label 'y'"):
        cl.data.hide_labels(columns, keep=0.5)


def records(first, rows, **fields):
    return Records(np.arange(first, first + rows), {"x": torch.zeros(rows, 2), **fields})


def test_unlabelled_records_lack_fields_but_have_none_of_another_kind():
    labelled = records(0, 4, y=torch.arange(4))
    whole = Holdings.of(
        {"a": {"unlabelled": records(9, 2), "train": labelled}, "b": {"unlabelled": records(20, 3)}},
        {"a": "client", "b": "client"},
    )
    assert set(whole.fields("client")) == {"x", "y"}
    assert len(whole.example("client")["y"]) == 2
    wrong = Records(np.arange(3), {"x": torch.zeros(3, 5)})
    with pytest.raises(DataError, match="the fields in 'unlabelled' differ"):
        Holdings.of({"a": {"train": labelled, "unlabelled": wrong}})
    with pytest.raises(DataError, match="the fields in 'test' differ"):
        Holdings.of({"a": {"train": labelled, "test": records(9, 2)}})
    with pytest.raises(DataError, match=r"unknown split 'unlabeled'.*unlabelled"):
        Holdings.of({"a": {"train": labelled, "unlabeled": records(9, 2)}})
