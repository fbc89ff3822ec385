"""A rehearsal uses a folder of its own, and touches nothing that lies elsewhere."""

from typer.testing import CliRunner

from cutlayer.cli import app
from cutlayer.keys import Authority


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    Authority.create(tmp_path / "keys" / "authority", "the real one")
    before = sorted(path for path in tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["local", "examples/digits/study.toml", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert sorted(path for path in tmp_path.rglob("*")) == before
    Authority.open(tmp_path / "keys" / "authority")
