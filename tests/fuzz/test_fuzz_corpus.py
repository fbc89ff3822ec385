"""The inputs that the fuzzer starts from, and those that once crashed cutlayer, are read as they should be."""

import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
sys.path.insert(0, str(FUZZ))

from targets import SEGMENTS, TARGETS, segment, work  # noqa: E402

KEPT = sorted(path for path in FUZZ.glob("corpus/*/*") if path.is_file())


def test_the_kept_inputs_are_few_and_small():
    assert 40 <= len(KEPT) <= 200
    assert {path.parent.name for path in KEPT} == set(TARGETS)
    assert sum(path.stat().st_size for path in KEPT) < 200_000


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_kept_input_is_read_or_refused_and_nothing_else(path):
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", SEGMENTS)
def test_an_honest_state_is_taken_over(name):
    """Otherwise a target that refuses everything would find nothing."""
    one, other = segment(name), segment(name)
    work(one)
    other.restore({key: tensor.clone() for key, tensor in one.state().items()})
    work(one), work(other)
    for key, tensor in one.state().items():
        assert tensor.equal(other.state()[key]), key
