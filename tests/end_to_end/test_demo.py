"""The demonstration as a user starts it: a process of its own, real data, files to look at."""

import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from cutlayer.metering.events import Ended, Noted
from cutlayer.metering.run_log import read_log
from cutlayer.metering.tables import merged_metrics


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "cutlayer.cli", "demo", "--quick", "--out", str(out)]
    environment = {**os.environ, "COLUMNS": "150", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, out


def test_it_tells_a_study_lead_what_they_want_to_know(demo):
    text, _ = demo
    found = {name: float(auc) for name, auc in re.findall(r"│ ([\w ,-]+?) +│ (0\.\d+) │", text)}
    alone = {name: auc for name, auc in found.items() if name.endswith(" alone")}
    assert len(alone) == 5
    joined = found["all five, joined by split learning"]
    assert joined >= 0.80 and joined > max(alone.values())
    assert "equal those of the central twin to the last bit" in text
    assert "What left each party in the first fold" in text and "never left" in text
    for words in (
        "float32[B, 16] activations to study-centre: 4.03 MB",
        "gradients to nutrition: 3.24 MB",
    ):
        assert words in text
    assert re.search(r"│ questionnaire +│.*│ +\d+ MFLOP │ +2,160 │", text)
    assert len(text.splitlines()) < 60


def test_the_folder_holds_log_plots_and_a_report_that_needs_nothing_else(demo):
    _, out = demo
    events = read_log(out)
    assert isinstance([e for e in events if not isinstance(e, Noted)][-1], Ended)
    notes = {e.subject: e for e in events if isinstance(e, Noted)}
    assert notes["central twin"].figures["differing"] == 0
    assert (
        notes["AUC on held-out people"].figures["all joined"] == merged_metrics(events, "test", "loss")["auc"]
    )
    for plot in ("comparison", "learning", "traffic", "compute", "time"):
        with Image.open(out / "plots" / f"{plot}.png") as image:
            assert image.width > 600
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "AUC on held-out people" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
