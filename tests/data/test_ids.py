import numpy as np
import pytest

from cutlayer.data.ids import as_ids, repeated, some
from cutlayer.errors import DataError


def test_whole_numbers_become_int64():
    assert as_ids(np.array([3, 1], np.uint8)).dtype == np.int64
    assert as_ids(np.array([93703.0, 93704.0])).tolist() == [93703, 93704]
    assert as_ids(np.array([5, 6], dtype=object)).dtype == np.int64


def test_text_stays_text():
    assert as_ids(["p7", "p07"]).dtype.kind == "U"
    assert as_ids(np.array(["a", "b"], dtype=object)).dtype.kind == "U"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.array([1.0, np.nan]), "missing in 1 of 2 rows; got the first at row 1"),
        (np.array(["a", None], object), "missing in 1 of 2"),
        (["a", ""], "missing in 1 of 2"),
        ([1, 2, 2, 3, 3], "2 occur more than once; got 2, 3"),
        (np.array(["a", 1], object), "mixture of types"),
        ([1.5, 2.0], "float64; expected whole numbers or text"),
        ([True, False], "bool"),
        (np.zeros((2, 2), int), r"got \(2, 2\)"),
    ],
)
def test_bad_ids_are_refused(values, says):
    with pytest.raises(DataError, match=says):
        as_ids(values, party="clinic")


def test_helpers():
    assert repeated(np.array([4, 1, 4, 4, 2, 1])).tolist() == [1, 4]
    assert some(np.arange(7), 2) == "0, 1 and 5 more"
