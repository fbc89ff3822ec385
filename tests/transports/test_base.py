"""Memory to receive into, and the public names."""

import numpy as np
import pytest

import cutlayer.transports
from cutlayer.transports import aligned_buffer
from cutlayer.transports.conformance import CHECKS, COPYING_CHECKS


@pytest.mark.parametrize("size", [1, 63, 64, 65, 100_000])
def test_a_buffer_is_aligned_writable_and_as_long_as_asked(size):
    buffer = aligned_buffer(size)
    assert len(buffer) == size
    assert np.frombuffer(buffer, dtype=np.uint8).ctypes.data % 64 == 0
    buffer[:] = bytes(size)


def test_a_buffer_may_be_empty():
    assert len(aligned_buffer(0)) == 0


def test_the_public_names_are_there():
    assert all(hasattr(cutlayer.transports, name) for name in cutlayer.transports.__all__)


def test_every_check_says_what_it_checks():
    assert all(check.__doc__ for check in CHECKS + COPYING_CHECKS)
    assert len({check.__name__ for check in CHECKS + COPYING_CHECKS}) == len(CHECKS + COPYING_CHECKS)
