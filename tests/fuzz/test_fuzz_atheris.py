"""A minute of fuzzing for each target, with atheris: inputs that reach code which none reached before."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
SECONDS = 60


@pytest.mark.long
@pytest.mark.parametrize("target", sorted(folder.name for folder in (FUZZ / "corpus").iterdir()))
def test_a_minute_of_new_inputs_crashes_nothing(target, tmp_path):
    pytest.importorskip("atheris", reason='the extra "fuzz" is not installed: pip install -e ".[fuzz]"')
    command = [
        sys.executable,
        str(FUZZ / "run.py"),
        target,
        "--seconds",
        str(SECONDS),
        "--out",
        str(tmp_path / "found"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * SECONDS, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    tried = re.search(r"^inputs +([\d,]+) in", said, re.MULTILINE)
    assert tried and int(tried[1].replace(",", "")) > 1000, said
