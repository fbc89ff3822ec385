import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.data import common_ids
from cutlayer.errors import AlignmentError

id_sets = st.sets(st.integers(0, 60), min_size=1)


@given(st.lists(id_sets, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_equals_the_intersection_of_sets_in_any_order(sets, random):
    shared = set.intersection(*sets)
    parties = {}
    for i, ids in enumerate(sets):
        shuffled = list(ids)
        random.shuffle(shuffled)
        parties[f"party-{i}"] = np.array(shuffled)
    if not shared:
        with pytest.raises(AlignmentError, match="no id in common"):
            common_ids(parties)
    else:
        assert common_ids(parties).tolist() == sorted(shared)


def test_text_ids():
    assert common_ids({"a": np.array(["z", "b", "c"]), "b": np.array(["c", "z"])}).tolist() == ["c", "z"]


def test_repeated_ids_name_the_party():
    with pytest.raises(AlignmentError, match=r"^b: ids must be unique.*got 4"):
        common_ids({"a": np.array([4]), "b": np.array([4, 4])})


def test_numbers_here_and_text_there():
    with pytest.raises(AlignmentError, match="whole numbers at a, text at b"):
        common_ids({"a": np.array([4]), "b": np.array(["4"])})


def test_nothing_in_common_shows_examples():
    with pytest.raises(AlignmentError, match="a: 1; b: 2"):
        common_ids({"a": np.array([1]), "b": np.array([2])})


def test_strict_counts_by_party():
    parties = {"a": np.array([1, 2, 3]), "b": np.array([2, 3]), "c": np.array([3, 2, 9])}
    with pytest.raises(AlignmentError, match=r"a: 1 unmatched \(1\); b: 0 unmatched; c: 1 unmatched \(9\)"):
        common_ids(parties, strict=True)
    same = {"a": np.array([1, 2]), "b": np.array([2, 1])}
    assert common_ids(same, strict=True).tolist() == [1, 2]


def test_no_parties():
    with pytest.raises(AlignmentError, match="no party"):
        common_ids({})
