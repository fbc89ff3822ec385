"""A whole audit on real digits: every attack that fits, pictures, costs, the page; broken off, it goes on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.audit.auditing import Audit, Plan, Setting
from cutlayer.audit.decoding import Decoding
from cutlayer.audit.findings import Findings
from cutlayer.audit.frontier import points
from cutlayer.audit.hijacking import Hijacking
from cutlayer.audit.known import ATTACKS, attacks_of
from cutlayer.audit.page import write_page
from cutlayer.audit.verdicts import verdicts, worst
from cutlayer.audit.views import views
from cutlayer.errors import LogError, StudyError

FEW = ("decoder", "norm", "cosine")


@pytest.fixture(scope="module")
def made():
    """A study of digit images whose server has the labels, and its data."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = (found.images[:600, None] / 16.0).astype("float32")
    y = (found.target[:600] == 3).astype("int64")
    people = cl.data.arrays(x, y).hold_out(test=0.3, seed=0).split({"client": "*"}, labels="server")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    graph = cl.vanilla(model, "1", clients=people)
    return cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=0.01), batch_size=32, epochs=2), people


def settings(made):
    study, people = made

    def build(defences):
        return lambda seed: (dataclasses.replace(study, seed=seed, defences=defences), people)

    return [Setting(name="without", build=build(())), Setting(name="noisy", build=build(("laplace:1,5",)))]


@pytest.fixture(scope="module")
def done(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    told = []
    plan = Plan(
        settings=settings(made),
        attacks=[Decoding(steps=200), *attacks_of(FEW[1:])],
        rows=32,
        hijacking=Hijacking(width=8),
    )
    findings = Findings(folder, {"study": made[0].digest})
    Audit(plan, findings, lambda *now: told.append(now)).run()
    return plan, findings, told


def test_every_attack_that_fits_is_tried_and_judged_beside_a_blind_guess(done):
    _, findings, told = done
    assert {one.attack.partition(":")[0] for one in findings.found} == {*FEW, "hijacking"}
    assert [one.setting for one in findings.trained] == ["without", "noisy"]
    found = {(v.setting, v.attack.partition(":")[0]): v for v in verdicts(findings.found)}
    plain, noisy = found["without", "decoder"], found["noisy", "decoder"]
    assert plain.measure == "SSIM"
    assert plain.score > plain.blind + 0.2
    assert noisy.score < plain.score
    assert found["without", "norm"].score > 0.8
    assert told[-1][0] == told[-1][1] == 2 * (1 + 4)
    best = worst(list(found.values()), "without", "server", "inputs")
    assert best is not None and best.share >= plain.share


def test_it_goes_on_where_it_stood(done, made, tmp_path):
    plan, findings, _ = done
    lines = (findings.folder / "findings.jsonl").read_text().splitlines()
    copy = tmp_path / "half"
    copy.mkdir()
    (copy / "findings.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:20]]))
    told = []
    again = Findings(copy, {"study": made[0].digest})
    Audit(plan, again, lambda *now: told.append(now[2])).run()
    assert [one.scores for one in again.found] == [one.scores for one in findings.found]
    assert Findings(copy, {"study": made[0].digest}).found == again.found
    assert not any("without, seed 0: training" in what for what in told)
    with pytest.raises(LogError, match="of another study"):
        Findings(copy, {"study": "other"})


def test_a_page_says_in_words_what_was_found(done):
    _, findings, _ = done
    page = write_page(findings, "digits", {"norm": ("who", "what", "where")}).read_text()
    assert "As curious as it can be, server could reconstruct records" in page
    assert "What was not tried" in page
    assert page.count("data:image/png;base64") >= 4
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert (findings.folder / "frontier.png").is_file()
    assert len(json.loads((findings.folder / "frontier.json").read_text())) == 4
    assert any(point.best for point in points(findings.trained, verdicts(findings.found)))


def test_who_could_look_where(made):
    study, _ = made
    assert [(view.party, view.where, view.has_labels) for view in views(study.graph)] == [
        ("server", "head->server", True),
        ("client", "head<-server", False),
    ]
    hidden = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    clinics = cl.data.digits().split_rows(2)
    u = cl.u_shaped(hidden, ("1", "3"), clients=clinics)
    assert {(view.party, view.where) for view in views(u)} == {
        ("server", "head->server"),
        ("server", "body<-client"),
    }


def test_attacks_are_chosen_by_their_words():
    assert [type(one) for one in attacks_of([])] == list(ATTACKS)
    with pytest.raises(StudyError, match=r"no attack is named 'nrom'.*norm"):
        attacks_of(["nrom"])


def test_an_interrupted_audit_has_a_page_too(made, tmp_path: Path):
    findings = Findings(tmp_path, {"study": "x"})
    assert "No attack has been carried out yet" in write_page(findings, "nothing", {}).read_text()
