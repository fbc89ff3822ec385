import numpy as np
import pandas as pd
import pytest
import torch

from cutlayer.data import Preparation, PreparationSettings
from cutlayer.data.prepare import MISSING
from cutlayer.errors import DataError, NumericsError


def table(**changes):
    columns = {
        "age": [20.0, 40.0, None, 60.0],
        "sex": ["f", "m", "f", None],
        "smokes": [True, False, True, True],
        "visits": pd.array([1, None, 3, 5], dtype="Int64"),
        "site": ["x"] * 4,
        "empty": [None] * 4,
        "zero": [0.0] * 4,
    }
    return pd.DataFrame({**columns, **changes})


def test_outputs_and_notes():
    fitted = Preparation.fit(table())
    assert fitted.numbers == ("age", "visits")
    assert fitted.categories == ("sex", "smokes")
    assert fitted.dropped == {
        "site": "one value in training",
        "empty": "empty in training",
        "zero": "one value in training",
    }
    assert fitted.names == (
        "age",
        "visits",
        f"sex_{MISSING}",
        "sex_f",
        "sex_m",
        "smokes_False",
        "smokes_True",
    )
    assert "7 columns become 7 numbers" in fitted.describe()
    assert "age: number: gaps become 40, then minus 40" in fitted.describe()
    assert "site: dropped, one value in training" in fitted.describe()
    assert "sex: one output each for '(missing)', 'f', 'm'; other values give zeros" in fitted.describe()


def test_numbers_by_hand():
    x = Preparation.fit(table()).transform(table())
    age = np.array([20.0, 40.0, 40.0, 60.0])
    assert x.dtype == torch.float32 and x.is_contiguous()
    np.testing.assert_allclose(x[:, 0], (age - age.mean()) / age.std(), rtol=1e-6)
    assert x[:, 2:].tolist() == [[0, 1, 0, 0, 1], [0, 0, 1, 1, 0], [0, 1, 0, 0, 1], [1, 0, 0, 0, 1]]


def test_other_rows_change_nothing_that_was_learnt():
    fitted = Preparation.fit(table())
    before = fitted.describe()
    alone = fitted.transform(table())
    strange = table(age=[1e9, None, -5, 0], sex=["q", "r", "s", "t"])
    together = fitted.transform(pd.concat([table(), strange]))
    assert torch.equal(together[:4], alone)
    assert fitted.describe() == before


def test_unseen_and_missing_values():
    fitted = Preparation.fit(table(sex=["f", "m", "f", "m"]))
    x = fitted.transform(table(sex=["q", None, "f", "m"]))
    sex = [fitted.names.index("sex_f"), fitted.names.index("sex_m")]
    assert x[:, sex].tolist() == [[0, 0], [0, 0], [1, 0], [0, 1]]


def test_missing_indicator():
    fitted = Preparation.fit(table(), PreparationSettings(missing_indicator=True))
    gaps = fitted.transform(table())[:, fitted.names.index("missingindicator_age")]
    assert (gaps > 0).tolist() == [False, False, True, False]
    assert fitted.describe().count("one more output says where gaps were") == 2


def test_rare_values_share_one_output():
    words = [f"w{i % 10}" for i in range(100)] + [f"rare{i}" for i in range(30)]
    fitted = Preparation.fit(pd.DataFrame({"word": words}), PreparationSettings(max_categories=11))
    assert len(fitted.names) == 11
    assert "30 rarer values share one" in fitted.describe()
    assert fitted.transform(pd.DataFrame({"word": ["rare3", "never seen"]}))[:, -1].tolist() == [1, 1]


def test_texts_that_name_rows_are_dropped():
    people = pd.DataFrame({"name": [f"person {i}" for i in range(40)], "sex": list("fm") * 20})
    fitted = Preparation.fit(people)
    assert fitted.names == ("sex_f", "sex_m")
    assert "name: dropped, nearly every training row has a text of its own" in fitted.describe()
    assert "person" not in fitted.describe()
    assert Preparation.fit(people.assign(name=[f"ward {i // 2}" for i in range(40)])).categories == (
        "name",
        "sex",
    )
    assert Preparation.fit(people[:20]).categories == ("name", "sex")


def test_no_rows():
    assert Preparation.fit(table()).transform(table().iloc[:0]).shape == (0, 7)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Preparation.fit(table()[["site", "zero"]]), DataError, "no column is left.*site: one value"),
        (lambda: Preparation.fit(table(age=[1, 2, np.inf, 3])), NumericsError, "'age' holds infinity.*row 2"),
        (lambda: Preparation.fit(table(age=pd.to_datetime(["2020-01-01"] * 4))), DataError, "dates"),
        (
            lambda: Preparation.fit(table()).transform(table().rename(columns={"age": "aged"})),
            DataError,
            "did",
        ),
        (lambda: Preparation.fit(table()).transform(table(age=list("abcd"))), DataError, "held numbers"),
        (lambda: PreparationSettings(max_categories=1), DataError, "2 or more"),
    ],
)
def test_what_cannot_be_prepared(make, error, says):
    with pytest.raises(error, match=says):
        make()
