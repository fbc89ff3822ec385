import numpy as np
import pandas as pd
import pytest
import torch

from cutlayer.data.lazy import LazyRows
from cutlayer.data.pool import Pool
from cutlayer.errors import DataError


def pool():
    return Pool(
        ids=np.arange(3),
        fields={"y": torch.tensor([1, 0, 1])},
        table=pd.DataFrame({"site": [3.0, 3.0, 4.0], "age": [1.0, None, 2.0]}),
        about={"patient": np.array(["a", "b", "a"])},
    )


def test_select_takes_rows_of_everything():
    part = pool().select(np.array([2, 0]))
    assert part.ids.tolist() == [2, 0]
    assert part.table["age"].tolist() == [2.0, 1.0]
    assert part.about["patient"].tolist() == ["a", "a"]
    assert part.labels().tolist() == [1, 1]


def test_columns_as_text():
    assert pool().column("site").tolist() == ["3", "3", "4"]
    assert pool().column("patient").tolist() == ["a", "b", "a"]


def test_column_errors():
    with pytest.raises(DataError, match="no value in 1 of 3 rows; got the first at id"):
        pool().column("age")
    with pytest.raises(DataError, match="did you mean 'patient'"):
        pool().column("patients")


def test_set_aside():
    aside = pool().set_aside("site")
    assert aside.columns == ["age"]
    assert aside.column("site").tolist() == ["3", "3", "4"]
    assert aside.set_aside("patient") is aside


def test_labels_of_lazy_fields_are_read_and_others_are_none():
    fields = LazyRows([(torch.zeros(1), i % 3) for i in range(600)]).fields()
    lazy = Pool(ids=np.arange(600), fields=dict(fields))
    assert lazy.labels().tolist() == [i % 3 for i in range(600)]
    assert Pool(ids=np.arange(2), fields={"x": torch.zeros(2)}).labels() is None
    assert Pool(ids=np.arange(2), fields={"y": torch.zeros(2)}).labels() is None


def test_lengths_must_agree():
    with pytest.raises(DataError, match="column 'site' and the ids differ in length; got 3 and 2 rows"):
        Pool(ids=np.arange(2), fields={}, about={"site": np.arange(3)})
