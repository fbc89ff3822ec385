import sys

import numpy as np
import pandas as pd
import pytest
import torch

from cutlayer.data import csv, frame, parquet
from cutlayer.errors import DataError, NumericsError

TABLE = pd.DataFrame(
    {"id": [7, 8, 9, 10], "age": [50.0, None, 40.0, 30.0], "sex": list("fmfm"), "ill": [0, 1, 1, 0]}
)


def test_frame_sets_id_and_label_apart():
    source = frame(TABLE, id="id", label="ill")
    pool = source.splits["train"]
    assert pool.ids.tolist() == [7, 8, 9, 10]
    assert pool.columns == ["age", "sex"]
    assert pool.labels().tolist() == [0, 1, 1, 0]
    assert frame(TABLE, drop=["sex"], about=["ill"]).splits["train"].columns == ["id", "age"]


def test_the_users_table_is_left_alone():
    before = TABLE.copy()
    frame(TABLE, id="id", label="ill").split_rows(2)
    pd.testing.assert_frame_equal(TABLE, before)


@pytest.mark.parametrize(
    ("values", "dtype", "codes", "classes"),
    [
        ([2, 3, 2, 2], torch.int64, [2, 3, 2, 2], ()),
        ([1.0, 0.0, 1.0, 0.0], torch.int64, [1, 0, 1, 0], ()),
        ([0.5, 0.0, 1.0, 0.0], torch.float32, [0.5, 0.0, 1.0, 0.0], ()),
        (["no", "yes", "no", "no"], torch.int64, [0, 1, 0, 0], ("no", "yes")),
        ([True, False, True, True], torch.int64, [1, 0, 1, 1], ("False", "True")),
        (pd.Categorical(list("baab")), torch.int64, [1, 0, 0, 1], ("a", "b")),
    ],
)
def test_labels(values, dtype, codes, classes):
    source = frame(TABLE.assign(ill=values), label="ill")
    y = source.splits["train"].fields["y"]
    assert y.dtype == dtype and y.tolist() == codes and source.classes == classes


def test_csv_round_trip(tmp_path):
    TABLE.to_csv(tmp_path / "a.csv", index=False)
    source = csv(tmp_path / "a.csv", id="id", label="ill")
    assert source.splits["train"].ids.tolist() == [7, 8, 9, 10]
    assert source.splits["train"].table["age"].isna().tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (["007", "008"], ["007", "008"]),
        (["7", "0"], [7, 0]),
        (["7.0", "8.0"], [7, 8]),
        (["7", "a8"], ["7", "a8"]),
    ],
)
def test_csv_ids_keep_their_leading_zeros(tmp_path, written, ids):
    (tmp_path / "a.csv").write_text("id,age\n" + "\n".join(f"{i},{n}" for n, i in enumerate(written)))
    assert csv(tmp_path / "a.csv", id="id").splits["train"].ids.tolist() == ids


def test_csv_with_another_separator(tmp_path):
    TABLE.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    assert csv(tmp_path / "a.tsv", separator="\t").splits["train"].columns == ["id", "age", "sex", "ill"]


def test_parquet_round_trip(tmp_path):
    TABLE.assign(ill=pd.Categorical(["a", "b", "b", "a"])).to_parquet(tmp_path / "a.parquet")
    source = parquet(tmp_path / "a.parquet", id="id", label="ill")
    assert source.splits["train"].ids.tolist() == [7, 8, 9, 10]
    assert source.classes == ("a", "b")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r'pip install "cutlayer\[parquet\]"'):
        parquet(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", r"a\.csv is empty"),
        ("id,age\n", r"a\.csv: the table has no rows"),
        ("idd,age\n1,2\n", r"a\.csv: there is no column 'id'; did you mean 'idd'"),
        ('id,age\n1,2\n"3,4\n', r"a\.csv is not a well-formed table"),
        ("id;a;y\n1;2;0\n", r"a\.csv has one column only.*say separator=\";\""),
        ("id;a;y\n1;2,5;0\n2;3,5,1;1\n", r"say separator=\";\""),
        ("id\ta\n1\t2\n", r'say separator="\\t"'),
        ("id,age\n1,2\n2,3,4\n", r"Expected 2 fields in line 3, saw 3; give every row as many values"),
        ("id,age\n1,2,3\n2,3,4\n", r"more values than there are column names; give every row"),
        ("id,age\n1,2\n1,3\n", r"a\.csv: ids in column 'id' must be unique.*got 1"),
        ("id,age\n1,2\n,3\n", r"a\.csv: ids in column 'id' are missing in 1 of 2 rows"),
    ],
)
def test_bad_csv_files(tmp_path, content, says):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=says):
        csv(tmp_path / "a.csv", id="id")


def test_bad_files(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"not a Parquet file.*write the file again"):
        parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_bytes(b"id,age\n1,\xff\xfe\n")
    with pytest.raises(DataError, match=r"not a well-formed table.*UTF-8"):
        csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04\x00\x00;;\n")
    with pytest.raises(DataError, match=r"not text.*workbook"):
        csv(tmp_path / "a.csv")
    (tmp_path / "a.csv.gz").write_bytes(b"not compressed")
    with pytest.raises(DataError, match=r"damaged.*UTF-8"):
        csv(tmp_path / "a.csv.gz")
    with pytest.raises(DataError, match="one character; got '::'"):
        csv(tmp_path / "a.csv", separator="::")
    for read in (csv, parquet):
        with pytest.raises(DataError, match="no file"):
            read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: frame(TABLE, label="il"), DataError, "did you mean 'ill'"),
        (lambda: frame(TABLE, drop=["age", "sez"]), DataError, "did you mean 'sex'"),
        (lambda: frame(TABLE, label="age"), DataError, "'age' has no value in 1 of 4 rows"),
        (lambda: frame(TABLE.assign(ill=[0, 1, np.inf, 2]), label="ill"), NumericsError, "infinity"),
        (lambda: frame(TABLE.iloc[:0]), DataError, "no rows"),
        (lambda: frame(pd.concat([TABLE, TABLE], axis=1)), DataError, "unique; got age, id, ill, sex"),
        (lambda: frame(TABLE, fields={"x": np.zeros((4, 2))}), DataError, "cannot be called 'x'"),
        (lambda: frame(TABLE, fields={"image": np.zeros((3, 2))}), DataError, "got 3 and 4 rows"),
    ],
)
def test_what_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_marks_of_missing_values_in_numbers_are_gaps(tmp_path):
    (tmp_path / "a.csv").write_text("age,code,grade\n50,x,-\n?,-,a\nn/a,y,b\n40,x,a\n-,y,a\n")
    table = csv(tmp_path / "a.csv").splits["train"].table
    assert table["age"].dtype == float
    assert table["age"].isna().tolist() == [False, True, True, False, True]
    assert table["code"].tolist() == ["x", "-", "y", "x", "y"]
    assert table["grade"].tolist()[0] == "-"


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["007", "008", "009", "007"], False),
        (["1", "N/A", "2.5", None], True),
        ([1, 2.5, None, " NA "], True),
        ([True, False, None, True], False),
        ([None, None, None, "?"], False),
        (pd.Categorical(["1", "2", "?", "1"]), False),
    ],
)
def test_what_is_taken_for_numbers(values, numbers):
    column = frame(TABLE.assign(age=values)).splits["train"].table["age"]
    assert pd.api.types.is_float_dtype(column.dtype) == numbers


def test_words_among_numbers_are_refused():
    table = pd.DataFrame({"id": [f"p{i}" for i in range(20)], "crp": [*map(str, range(18)), "<5", "low"]})
    with pytest.raises(DataError, match=r"'crp'.* 2 of 20; got '<5', the first at id 'p18'.*pandas category"):
        frame(table, id="id")
    assert frame(table.assign(crp=table["crp"].astype("category")), id="id").splits["train"].columns == [
        "crp"
    ]
    half = table.assign(crp=["1", "low"] * 10)
    assert frame(half, id="id").splits["train"].table["crp"].tolist() == half["crp"].tolist()


def test_messages_hold_plain_ids():
    table = TABLE.assign(id=list("pqrs"), ill=[0, 1, None, 1], site=["a", None, "b", "a"])
    with pytest.raises(DataError, match="the first at id 'r'"):
        frame(table, id="id", label="ill")
    with pytest.raises(DataError, match="the first at id 'q'"):
        frame(table, id="id", about=["site"]).split_rows(by="site")


def test_a_mistyped_column_is_named_before_the_number_of_parties():
    source = frame(TABLE.assign(hospital=list("abab")), id="id", label="ill")
    with pytest.raises(DataError, match=r"no column 'hospitl'; did you mean 'hospital'"):
        source.split_rows(2, by="hospitl")
    with pytest.raises(DataError, match="leave n out"):
        source.split_rows(2, by="hospital")
