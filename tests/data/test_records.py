import gc
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.data import FieldSpec, Holdings, PartyData, Records, arrays
from cutlayer.errors import AlignmentError, DataError


def records(ids, width=3, labels=False):
    rows = len(ids)
    fields = {"x": torch.arange(rows * width, dtype=torch.float32).reshape(rows, width)}
    if labels:
        fields["y"] = torch.arange(rows) % 2
    return Records(np.array(ids), fields)


def test_batch_is_index_select():
    data = records([5, 6, 7], labels=True)
    batch = data.batch(torch.tensor([2, 0]))
    assert torch.equal(batch["x"], data.fields["x"].index_select(0, torch.tensor([2, 0])))
    assert batch["y"].tolist() == [0, 0]
    assert data.specs() == {"x": FieldSpec((3,), torch.float32), "y": FieldSpec((), torch.int64)}
    assert repr(data) == "Records(3 rows; x: float32[3], y: int64[])"


def test_select_copies_compactly():
    data = records(range(100))
    part = data.select([1, 50])
    assert part.ids.tolist() == [1, 50] and len(part) == 2
    assert part.fields["x"].untyped_storage().nbytes() == 2 * 3 * 4
    assert torch.equal(part.fields["x"], data.fields["x"][[1, 50]])


@given(st.lists(st.integers(-50, 50), unique=True, min_size=1, max_size=30), st.data())
def test_rows_of_finds_every_id_where_it_is(ids, data):
    wanted = data.draw(st.lists(st.sampled_from(ids), max_size=10))
    rows = records(ids).rows_of(np.array(wanted, dtype=np.int64))
    assert rows.dtype == torch.int64
    assert [ids[row] for row in rows] == wanted


def test_rows_of_names_missing_ids():
    with pytest.raises(AlignmentError, match="2 of 3 ids are not held here; got 'q', 'z'"):
        records(["a", "b", "p"]).rows_of(np.array(["q", "b", "z"]))
    with pytest.raises(AlignmentError, match="different types"):
        records(["a"]).rows_of(np.array([1]))


@pytest.mark.parametrize(
    ("ids", "fields", "says"),
    [
        ([1, 1], {"x": torch.zeros(2)}, "unique"),
        ([1, 2], {}, "at least one field"),
        ([1, 2], {"x": torch.zeros(3)}, "3 rows, 2 ids"),
        ([1, 2], {"x": np.zeros(2)}, "got ndarray"),
        ([1], {"x": torch.tensor(1.0)}, "single number"),
    ],
)
def test_bad_records_are_refused(ids, fields, says):
    with pytest.raises(DataError, match=says):
        Records(np.array(ids), fields)


def holdings():
    return Holdings.of(
        {
            "north": {"train": records([1, 2, 3], labels=True), "test": records([9], labels=True)},
            "south": {"train": records([4], labels=True)},
            "lab": {"train": records(["a", "b"], width=1)},
        },
        roles={"north": "clinic", "south": "clinic"},
    )


def test_roles_groups_and_fields():
    held = holdings()
    assert held.roles == {"clinic": ("north", "south"), "lab": ("lab",)}
    assert [party.group for party in held.parties] == [0, 1, 0]
    assert held.fields("clinic")["x"] == FieldSpec((3,), torch.float32)
    assert held.party("south").role == "clinic"
    assert repr(held) == "Holdings(parties by role: clinic: 2, lab: 1)"


def test_example_is_the_first_training_rows():
    held = holdings()
    assert torch.equal(held.example("clinic")["x"], torch.arange(6.0).reshape(2, 3))
    assert held.example("clinic", rows=50)["x"].shape == (3, 3)


def test_table_lists_every_party():
    lines = holdings().table().splitlines()
    assert lines[0].split() == ["party", "role", "train", "valid", "test", "fields", "labels"]
    assert lines[2].split() == [
        "north",
        "clinic",
        "3",
        "-",
        "1",
        "x",
        "float32[3],",
        "y",
        "int64[]",
        "0:2",
        "1:1",
    ]
    assert lines[4].split() == ["lab", "lab", "2", "-", "-", "x", "float32[1]"]


def test_many_classes_are_summed_up():
    held = Holdings.of({"a": {"train": Records(np.arange(40), {"y": torch.arange(40) // 2})}})
    assert "20 classes of 2 to 2 rows" in held.table()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Holdings(()), "at least one party"),
        (lambda: Holdings((PartyData("a", "r", {"train": records([1])}),) * 2), "same name; got 'a'"),
        (lambda: PartyData("a", "r", {"trian": records([1])}), "did you mean 'train'"),
        (lambda: PartyData("a", "r", {}), "holds no records"),
        (lambda: PartyData("", "r", {"train": records([1])}), "a name and a role"),
        (lambda: PartyData("a", "r", {"test": records([])}), "'test' is empty"),
        (
            lambda: PartyData("a", "r", {"train": records([1]), "test": records([2], width=4)}),
            r"a: the fields in 'test' differ; got x float32\[4\]; expected x float32\[3\]",
        ),
        (
            lambda: Holdings.of(
                {"a": {"train": records([1])}, "b": {"train": records([1], width=2)}}, {"a": "r", "b": "r"}
            ),
            r"b: the fields of role 'r' differ.*as at a",
        ),
        (lambda: Holdings.of({"a": {"train": records([1])}}, {"aa": "r"}), "did you mean 'a'|no party 'aa'"),
        (lambda: holdings().party("sout"), "did you mean 'south'"),
        (lambda: holdings().fields("clinics"), "did you mean 'clinic'"),
        (
            lambda: Holdings.of({"a": {"test": records([1])}}).example("a"),
            "no party of role 'a' has training",
        ),
    ],
)
def test_contradictions_are_refused(make, says):
    with pytest.raises(DataError, match=says):
        make()


def test_five_hundred_parties_cost_a_few_kilobytes_each():
    source = arrays(
        np.zeros((2000, 5), np.float32), np.zeros(2000, int), np.zeros((500, 5)), np.zeros(500, int)
    )
    source.split_rows(2)
    gc.collect()
    tracemalloc.start()
    held = source.split_rows(500)
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held.parties) == 500
    assert used / 500 < 5_000
    assert all(
        party.splits["train"].fields["x"].untyped_storage().nbytes() == 4 * 5 * 4 for party in held.parties
    )
