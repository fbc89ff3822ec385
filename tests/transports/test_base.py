"""The public names, and what the trial of a transport says of itself."""

import cutlayer.transports
from cutlayer.transports.conformance import CHECKS, COPYING_CHECKS


def test_the_public_names_are_there():
    assert all(hasattr(cutlayer.transports, name) for name in cutlayer.transports.__all__)


def test_every_check_says_what_it_checks():
    assert all(check.__doc__ for check in CHECKS + COPYING_CHECKS)
    assert len({check.__name__ for check in CHECKS + COPYING_CHECKS}) == len(CHECKS + COPYING_CHECKS)
