"""States that another party hands over: taken over whole and good to work with, or refused with nothing changed."""

import json
import sys
from pathlib import Path

import pytest
import torch
from forging import bounded
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cutlayer.errors import FrameError
from cutlayer.wire import DTYPES

sys.path.insert(0, str(Path(__file__).parents[2] / "fuzz"))

from targets import SEGMENTS, segment, work

MUCH, SOON = 200 * 2**20, 2.0


def honest(name):
    """Return the state of a segment after a step, as another party hands it over."""
    live = segment(name)
    work(live)
    return {key: tensor.detach().clone() for key, tensor in live.state().items()}


STATES = {name: honest(name) for name in SEGMENTS}


def counters(state):
    return json.loads(state["scalars"].numpy().tobytes())


def text(raw):
    return torch.tensor(list(raw), dtype=torch.uint8)


def check(name, state):
    """Restore ``state``; return whether it was taken over."""
    live = segment(name)
    before = {key: tensor.detach().clone() for key, tensor in live.state().items()}
    try:
        with bounded(MUCH, SOON):
            live.restore({key: tensor.clone() for key, tensor in state.items()})
    except FrameError as error:
        after = live.state()
        assert after.keys() == before.keys() and all(after[key].equal(before[key]) for key in before)
        assert len(str(error)) < 4000 and "\n" not in str(error)
        return False
    work(live)
    live.advance()
    return True


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -1, 2**63, 1e308, float("nan"), float("inf"), "", "0", "9" * 5000, "\x1b[2J"])
)
JSON = st.recursive(
    PLAIN, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3)
)


def places(value, at=()):
    """Yield the way to each value in an object of JSON."""
    yield at
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(inner, (*at, key))


def put(whole, place, value):
    """Return ``whole`` with ``value`` at ``place``."""
    if not place:
        return value
    inner = whole
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return whole


@pytest.mark.parametrize("name", SEGMENTS)
def test_an_honest_state_is_taken_over(name):
    assert check(name, STATES[name])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SEGMENTS)), st.data())
def test_counters_with_another_value_anywhere(name, data):
    whole = counters(STATES[name])
    place = data.draw(st.sampled_from(list(places(whole))))
    changed = put(whole, place, data.draw(JSON))
    check(name, STATES[name] | {"scalars": text(json.dumps(changed).encode())})


@settings(max_examples=200, deadline=None)
@example("adam", b"[" * 100_000)
@given(st.sampled_from(sorted(SEGMENTS)), st.binary(max_size=40) | JSON.map(lambda v: json.dumps(v).encode()))
def test_counters_that_are_something_else(name, raw):
    taken = check(name, STATES[name] | {"scalars": text(raw)})
    assert not taken or name == "frozen"  # which has nothing to count


@settings(max_examples=200, deadline=None)
@example("schedule", {"schedule": {"step": "x"}})
@given(
    st.sampled_from(["groups", "slots", "schedule"]), st.dictionaries(st.text(max_size=8), JSON, max_size=3)
)
def test_more_in_the_counters_than_belongs_there(where, more):
    whole = counters(STATES["adam"])
    if where == "groups":
        whole["groups"][0] |= more
    else:
        whole[where] |= more.get(where, more)
    assert check("adam", STATES["adam"] | {"scalars": text(json.dumps(whole).encode())}) <= (not more)


@settings(max_examples=200, deadline=None)
@example("adam", "slot/0/exp_avg", [4, 3], torch.int64)
@given(
    st.sampled_from(sorted(SEGMENTS)),
    st.sampled_from(
        sorted({key for state in STATES.values() for key in state} | {"slot/1/x", "weight/", "slot/", "x"})
    ),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from(sorted(DTYPES, key=str)),
)
def test_a_tensor_of_another_shape_or_type_or_name(name, key, shape, dtype):
    state, tensor = STATES[name], torch.ones(shape).to(dtype)
    taken = check(name, state | {key: tensor})
    known = state.get(key)
    same = known is not None and (known.shape, known.dtype) == (tensor.shape, tensor.dtype)
    assert taken <= (same or not key.startswith(("weight/", "slot/")))


@pytest.mark.parametrize("name", ["cycle", "sgd", "adam"])
def test_a_state_that_lacks_something(name):
    for key in STATES[name]:
        if key.endswith("/momentum_buffer"):  # the only one of its parameter, which may not have moved yet
            continue
        assert not check(name, {k: tensor for k, tensor in STATES[name].items() if k != key}), key
