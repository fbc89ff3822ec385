"""Keys for the hostile trials, made once; whoever changes them makes their own."""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import pytest
from hostile_stage import make_keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile-keys")
    make_keys(folder)
    return folder
