import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from cutlayer.data.lazy import FieldSpec, LazyField, LazyRows, select_fields
from cutlayer.errors import DataError


class Squares(Dataset):
    """Items (x, y) that count how often they are read; x differs from reading to reading."""

    def __init__(self, rows=10):
        self.rows, self.readings = rows, 0

    def __len__(self):
        return self.rows

    def __getitem__(self, i):
        self.readings += 1
        return torch.tensor([float(i * i), float(self.readings)]), self.readings


def test_specs_come_from_the_first_item():
    fields = LazyRows(Squares()).fields()
    assert fields["x"].spec == FieldSpec((2,), torch.float32)
    assert fields["y"].spec == FieldSpec((), torch.int64)
    assert "rows=10" in repr(fields["x"])


def test_x_and_y_come_from_one_reading_and_the_next_batch_is_read_anew():
    data = Squares()
    fields = LazyRows(data).fields()
    data.readings = 0
    rows = torch.tensor([3, 5])
    for readings in ([1, 2], [3, 4]):
        x = fields["x"].index_select(0, rows)
        y = fields["y"].index_select(0, rows)
        assert x[:, 0].tolist() == [9, 25]
        assert x[:, 1].tolist() == y.tolist() == readings
    assert data.readings == 4


def test_selected_rows_stay_lazy_and_keep_to_their_own_batches():
    fields = LazyRows(Squares()).fields()
    chosen = select_fields(fields, torch.tensor([9, 2]))
    assert all(isinstance(field, LazyField) and len(field) == 2 for field in chosen.values())
    assert chosen["x"].source is chosen["y"].source is not fields["x"].source
    assert chosen["x"].index_select(0, torch.tensor([1, 0]))[:, 0].tolist() == [4, 81]


def test_no_rows_give_an_empty_batch():
    assert LazyRows(Squares()).fields()["x"].index_select(0, torch.tensor([], dtype=torch.int64)).shape == (
        0,
        2,
    )


def test_numpy_values_and_dicts():
    items = [{"image": np.ones((1, 2)), "age": 3.5, "id": np.int32(4)}] * 3
    batch = {n: f.index_select(0, torch.tensor([0, 2])) for n, f in LazyRows(items).fields().items()}
    assert batch["image"].dtype == batch["age"].dtype == torch.float32
    assert batch["id"].tolist() == [4, 4]


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([], "empty"),
        ([(1, 2, 3)], "tuple of 3"),
        ([("picture", 1)], "field 'x' of item 0 is not a tensor; got str"),
    ],
)
def test_items_that_are_not_understood(items, says):
    with pytest.raises(DataError, match=says):
        LazyRows(items).fields()


def test_items_of_different_shapes_cannot_join():
    fields = LazyRows([(torch.zeros(2), 0), (torch.zeros(3), 0)]).fields()
    with pytest.raises(DataError, match=r"field 'x' of row 1 cannot join its batch; got float32\[3\]"):
        fields["x"].index_select(0, torch.tensor([0, 1]))


def test_only_rows_can_be_chosen():
    with pytest.raises(DataError, match="dim=1"):
        LazyRows(Squares()).fields()["x"].index_select(1, torch.tensor([0]))
