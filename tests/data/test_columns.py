import numpy as np
import pandas as pd
import pytest
import torch

from cutlayer.data.columns import Columns, choose
from cutlayer.data.lazy import LazyRows
from cutlayer.data.pool import Pool
from cutlayer.errors import DataError

TABLE = Pool(
    ids=np.arange(2),
    fields={"image": torch.zeros(2, 1, 4, 4), "y": torch.zeros(2)},
    table=pd.DataFrame(np.zeros((2, 4)), columns=["age", "blood_na", "blood_k", "odd[1]"]),
)
ARRAY = Pool(ids=np.arange(2), fields={"x": torch.zeros(2, 6), "y": torch.zeros(2)})


@pytest.mark.parametrize(
    ("selection", "means"),
    [
        (["age", "blood_*"], Columns(columns=("age", "blood_na", "blood_k"))),
        ("blood_k", Columns(columns=("blood_k",))),
        (["blood_k", "blood_*"], Columns(columns=("blood_k", "blood_na"))),
        (["odd[1]"], Columns(columns=("odd[1]",))),
        (["image"], Columns(fields=("image",))),
        (["image", "age"], Columns(fields=("image",), columns=("age",))),
        (slice(1, 3), Columns(columns=("blood_na", "blood_k"))),
        ([0, -1], Columns(columns=("age", "odd[1]"))),
    ],
)
def test_selections_of_a_table(selection, means):
    assert choose(selection, TABLE, "clinic") == means


def test_selections_of_an_array():
    assert choose(slice(None, 2), ARRAY, "a") == Columns(fields=("x",), positions=(0, 1))
    assert choose(range(4, 6), ARRAY, "a").positions == (4, 5)
    assert choose(np.array([5, -6]), ARRAY, "a").positions == (5, 0)
    assert choose(["x"], ARRAY, "a") == Columns(fields=("x",))


@pytest.mark.parametrize(
    ("selection", "pool", "says"),
    [
        (["aeg"], TABLE, "clinic: there is no column 'aeg'; did you mean 'age'"),
        (["urine_*"], TABLE, r"no column 'urine_\*'"),
        (["y"], TABLE, "no column 'y'"),
        ([], TABLE, "at least one column"),
        (["age", 1], TABLE, "named or numbered, not both"),
        ([6], ARRAY, "there is no column 6; expected positions from 0 to 5"),
        (slice(9, 12), ARRAY, "at least one column"),
        (
            [0],
            Pool(ids=np.arange(2), fields={"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)}),
            "name the fields",
        ),
        ([0], Pool(ids=np.arange(1), fields=dict(LazyRows([(torch.zeros(3), 0)]).fields())), "fields x"),
    ],
)
def test_selections_that_mean_nothing(selection, pool, says):
    with pytest.raises(DataError, match=says):
        choose(selection, pool, "clinic")
