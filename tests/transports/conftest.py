"""What is tried between machines is tried with every carrier."""

import pytest
from network_parties import Carrier

from cutlayer.transports.network.settings import CARRIERS


@pytest.fixture(params=CARRIERS)
def carrier(request, monkeypatch):
    """Through what the parties of the test reach each other."""
    monkeypatch.setattr(Carrier, "name", request.param)
    return request.param
