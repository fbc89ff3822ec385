"""A party's secret: drawn once, the same after that, and nobody else's."""

from __future__ import annotations

import pytest

from cutlayer.errors import LogError
from cutlayer.sessions.secrets import own_secret


def test_it_is_drawn_once_and_readable_by_its_owner_alone(tmp_path):
    found = own_secret(tmp_path / "part")
    assert len(found) == 32
    assert own_secret(tmp_path / "part") == found
    assert own_secret(tmp_path / "other") != found
    assert (tmp_path / "part" / "secret").stat().st_mode & 0o777 == 0o600


def test_one_that_is_damaged_is_not_replaced_in_silence(tmp_path):
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(LogError, match="damaged; got 5 bytes"):
        own_secret(tmp_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="secret cannot be kept"):
        own_secret(tmp_path / "file" / "part")
