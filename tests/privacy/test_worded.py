"""What is chosen by a word says its settings again, and refuses those that cannot be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.audit.known import ATTACKS
from cutlayer.errors import StudyError
from cutlayer.privacy import DEFENCES, defence_of
from cutlayer.privacy.worded import Worded


@dataclass(frozen=True, kw_only=True)
class Salt(Worded):
    word: ClassVar[str] = "salt"
    grains: int = 3
    weight: float = 1.0
    spilt: float = 0.0
    share: float = 0.25

    def __post_init__(self) -> None:
        self._check_whole("grains", least=2)
        self._check_positive("weight")
        self._check_not_negative("spilt")
        self._check_share("share", below=0.5)


def test_printed_it_is_the_word_that_it_is_chosen_by() -> None:
    assert str(Salt(weight=2.50)) == "salt:grains=3,weight=2.5,spilt=0,share=0.25"
    assert str(Worded()) == ""
    for word in ("nopeek:0.5", "gaussian:1,0.5", "max-norm", "splitguard:0.2"):
        assert defence_of(str(defence_of(word))) == defence_of(word)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -1.0, True, "2", None])
@pytest.mark.parametrize("name", ["grains", "weight", "spilt", "share"])
def test_what_is_no_fitting_number_is_refused_with_name_and_value(name: str, wrong: object) -> None:
    with pytest.raises(StudyError, match=f"salt: {name} cannot be that; got .*; expected a"):
        Salt(**{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "wrong"), [("grains", 1), ("grains", 2.0), ("weight", 0), ("share", 0.5), ("share", 0)]
)
def test_so_is_what_lies_at_the_edge(name: str, wrong: float) -> None:
    with pytest.raises(StudyError, match=f"salt: {name} cannot be that"):
        Salt(**{name: wrong})  # type: ignore[arg-type]


@given(
    st.integers(2),
    st.floats(0, exclude_min=True, allow_infinity=False),
    st.floats(0, 0.5, exclude_min=True, exclude_max=True),
)
def test_all_else_is_taken(grains: int, weight: float, share: float) -> None:
    assert Salt(grains=grains, weight=weight, share=share).share == share


def test_words_are_of_one_thing_each() -> None:
    for kinds in (DEFENCES, ATTACKS):
        words = [kind.word for kind in kinds]
        assert all(words) and len(set(words)) == len(words)
