"""What was approved is kept, and nothing else is taken for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutlayer as cl
from cutlayer.errors import ConsentError, LogError
from cutlayer.sessions.approval import Approvals, code_digest, vouches_for

CODE = {"model.py": "ab" * 32, "parts/layers.py": "cd" * 32}


def study(**more) -> cl.Study:
    clinics = cl.data.digits().split_rows(2)
    graph = cl.vanilla(cl.networks.mlp((64, 8, 10)), cut="activation1", clients=clinics)
    return cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), **more)


def test_an_approval_is_found_again(tmp_path: Path):
    mine = study(code=CODE)
    Approvals(tmp_path / "new").allow(mine, "statement", "terminal")
    again = Approvals(tmp_path / "new")
    assert again.covers(mine, "statement") and again.covers_code(CODE)
    assert again.last.how == "terminal" and again.last.parts == mine.parts
    assert not list((tmp_path / "new").glob("*.new"))


def test_another_study_or_statement_or_code_is_not_covered(tmp_path: Path):
    kept = Approvals(tmp_path)
    kept.allow(study(), "statement", "--approve")
    other = study(seed=1, batch_size=32)
    assert not kept.covers(other, "statement")
    assert not kept.covers(study(), "another statement")
    assert kept.differences(other) == ["program", "seed"]
    assert kept.covers_code({}) and not kept.covers_code(CODE)


def test_the_last_approval_counts(tmp_path: Path):
    kept = Approvals(tmp_path)
    kept.allow(study(), "statement", "--approve")
    kept.allow(study(seed=1), "statement", "--approve")
    kept.allow_code(CODE, "terminal")
    again = Approvals(tmp_path)
    assert again.covers(study(seed=1), "statement") and not again.covers(study(), "statement")
    assert again.covers_code(CODE) and not again.covers_code({**CODE, "more.py": "00" * 32})


def test_the_digest_of_code_is_that_part_of_the_study():
    assert code_digest(CODE) == study(code=CODE).parts["model code"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"digest": 3}]', '[{"more": "x"}]', '[{"code": {"a": 1}}]', "\xff"]
)
def test_damage_is_an_error(tmp_path: Path, text: str):
    (tmp_path / "approved.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(LogError, match="cannot be read"):
        Approvals(tmp_path)


def test_a_changed_byte_never_covers_another_study(tmp_path: Path):
    Approvals(tmp_path).allow(study(), "statement", "--approve")
    kept = json.loads((tmp_path / "approved.json").read_text())
    kept[0]["digest"] = kept[0]["digest"][::-1]
    (tmp_path / "approved.json").write_text(json.dumps(kept))
    assert not Approvals(tmp_path).covers(study(), "statement")


@given(st.text(max_size=70), st.integers(0, 2**256 - 1))
def test_only_beginnings_of_thirty_two_digits_and_more_vouch(word: str, number: int):
    digest = f"{number:064x}"
    assert vouches_for(digest, digest) and vouches_for(digest[:32], digest)
    with pytest.raises(ConsentError, match="no digest"):
        vouches_for(digest[:31], digest)
    try:
        assert vouches_for(word, digest) == digest.startswith(word)
    except ConsentError:
        assert len(word) < 32 or len(word) > 64 or not set(word) <= set("0123456789abcdef")
