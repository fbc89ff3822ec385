"""The tables for parties on different machines: what they take, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from cutlayer.data import FieldSpec
from cutlayer.errors import StudyError
from cutlayer.study_file import load_study
from cutlayer.study_file.party_tables import FIELD, NetworkTable
from cutlayer.study_file.people import spec_of_text

Write = Callable[..., Path]
TYPES = [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16]


@given(some.sampled_from(TYPES), some.lists(some.integers(0, 10**6), max_size=5))
def test_fields_are_read_as_they_are_written(dtype: torch.dtype, shape: list[int]) -> None:
    spec = FieldSpec(tuple(shape), dtype)
    assert FIELD.fullmatch(str(spec))
    assert spec_of_text(str(spec)) == spec


def test_defaults() -> None:
    table = NetworkTable()
    assert (table.host, table.address, table.snapshot_every) == ("", "localhost:7443", 200)
    assert (table.absent, table.absent_after_s, table.late, table.max_frame_mb) == ("wait", 60, [], None)


def test_settings_arrive(write: Write) -> None:
    more = """
    [network]
    host = "client-1"
    address = "[::1]:443"
    snapshot_every = 7
    absent = "skip"
    absent_after_s = 2
    late = ["client-0"]
    max_frame_mb = 64
    """
    network = load_study(write("chain", more=more)).at("client-0").network
    assert network == NetworkTable(
        host="client-1", address="[::1]:443", snapshot_every=7, absent="skip",
        absent_after_s=2, late=["client-0"], max_frame_mb=64,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("chain", '[network]\naddress = "localhost"', "expected host and port"),
        ("chain", '[network]\naddress = "localhost:77777"', "expected host and port"),
        ("chain", '[network]\nadress = "localhost:1"', "did you mean 'address'"),
        ("chain", '[network]\nabsent = "skipp"', "did you mean 'skip'"),
        ("chain", "[network]\nsnapshot_every = 0", "expected 1 or more"),
        ("chain", "[network]\nabsent_after_s = 0", "expected more than 0"),
        ("chain", '[network]\nlate = ["client-0"]', 'say absent = "skip"'),
        ("chain", '[network]\nhost = "sevrer"\n[parties]\na = "client"\nserver = "server"', "'sevrer', who is not"),
        ("vertical", '[network]\nabsent = "skip"', "never goes on with zeros in a missing party's place"),
        ("vertical", '[network]\nlate = ["imaging"]', "never goes on with zeros in a missing party's place"),
        ("chain", '[parties]\na = "clinet"', "the role 'clinet', which [graph] has not; did you mean 'client'"),
        ("chain", '[parties]\nhub = "server"', "nobody for the role 'client'"),
        ("chain", '[parties]\n"a b" = "client"', "'_' and '-'"),
        ("chain", '[fields.client]\nx = "float[3]"\ny = "int64[]"', "type and shape of one sample"),
        ("chain", '[fields.client]\nx = "float32[3]"', "[fields] has no labels"),
        ("chain", '[fields.clinet]\nx = "float32[3]"', "did you mean 'client'"),
        ("chain", '[fields.client]\ny = "int64[]"\n[fields.server]\nx = "float32[3]"', "holds no data"),
        ("vertical", '[fields.imaging]\nx = "float32[10]"', "does not say what 'pathology' holds"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(name: str, more: str, message: str, write: Write) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write(name, more=f"\n{more}\n"))
    assert message in str(caught.value)
