from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from sample_run import events, frames, own_events, write

from cutlayer.errors import LogError
from cutlayer.metering.events import Began, Computed, Ended, EpochEnded, Measured, Noted, Placed, Worked
from cutlayer.report import write_report

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; nesting is checked on the way."""

    def __init__(self, path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += " " + " ".join(data.split())

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def bare(log):
    """Leave out what plots are made of, for they take a second."""
    return [event for event in log if isinstance(event, Began | Placed | Noted | Ended)]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("run"), events())
    path = write_report(folder)
    assert path == folder / "report.html"
    assert sorted(p.name for p in (folder / "plots").glob("*.png")) == [
        "compute.png", "learning.png", "time.png", "traffic.png",
    ]  # fmt: skip
    return Page(path)


def test_it_loads_nothing_and_runs_nothing(page):
    assert not {tag for tag, _ in page.elements} & {
        "script",
        "link",
        "iframe",
        "object",
        "form",
        "a",
        "svg",
        "base",
    }
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.of("img"))
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    policy = next(m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", page.source, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (
        policy.startswith("default-src 'none'; img-src data:; ") and f"style-src 'sha256-{digest}'" in policy
    )
    assert "url(" not in style and "@import" not in style


def test_what_a_board_asks_first(page):
    assert page.text.strip().startswith("Sepsis in five hospitals: report of a run")
    for words in (
        "complete", "client (5), server", "Accuracy, test 0.82", "loss 0.15, auc 0.87", "14.2 s",
        "all epochs done", "No message of this run carried labels",
    ):  # fmt: skip
        assert words in page.text
    assert "not finished" not in page.text


def test_notes_stand_out_with_their_figures(page):
    assert "central twin The 578 weights" in page.text and "weights 578 equal 1" in page.text
    assert "alone: hospital-1 Alone it would have reached less." in page.text
    assert "auc 0.71" in page.text


def test_drawing_plots_and_tables_are_in_it(page):
    images = page.of("img")
    assert len(images) == 5 and all(image["alt"] for image in images)
    drawing = base64.b64decode(images[0]["src"].split(",")[1]).decode()
    assert '<title id="cl-title">Split graph u_shaped</title>' in drawing
    for title in (
        "Metrics by epoch",
        "Training by epoch",
        "Traffic by cut",
        "Compute by party",
        "Parameters by",
        "Time by",
    ):
        assert title in page.text
    assert "loss, accuracy, AUC: means over 5 label holders, weighted by their rows" in page.text
    assert "row-weighted mean: loss, accuracy, auc" in page.text


def test_what_was_stated_and_what_was_counted(page):
    assert "DISCLOSURE STATEMENT OF hospital-1" in page.text and "WHAT NEVER LEAVES hospital-1" in page.text
    assert "4 other parties of role client have the same statement" in page.text
    # 4 epochs of 3 batches there and back, 1 in evaluation, of 40 rows of 64 bytes; 1480 handed over
    left = 4 * (7 * 40 * 64 + 1480 + 4 * 480)
    assert f"hospital-1: {left / 1000:.1f} KB left" in page.text


def test_one_other_party_has_the_same_statement(tmp_path):
    page = write_report(write(tmp_path, events(clients=2, epochs=1))).read_text()
    assert "(1 other party of role client has the same statement)" in page
    assert "1 epoch planned" in page


def test_how_it_was_done(page):
    for words in ("seed 7", "Adam(lr=0.001)", "cutlayer 0.1.0, torch 2.13.0", "hospital-1 client 120"):
        assert words in page.text
    assert events()[0].digest in page.text


@pytest.fixture(scope="module")
def own_pages(tmp_path_factory):
    """The reports of one client and of the server, each of its own log."""
    folder = tmp_path_factory.mktemp("own")
    return {
        party: Page(write_report(write(folder / party, own_events(party))))
        for party in ("hospital-1", "server")
    }


@pytest.mark.parametrize("party", ["hospital-1", "server"])
def test_a_party_s_own_report_says_whose_view_it_is(own_pages, party):
    text = own_pages[party].text
    for words in (
        f"As {party} saw it", f"What left {party}, and what did not", f"Sent by {party}",
        f"at {party}, training and evaluation", f"No labels left {party}", f"Which rows {party} held",
        f"Written by cutlayer from {party}'s own log",
    ):  # fmt: skip
        assert words in text
    for claim in (
        "all parties, training",
        "No message of this run",
        "all frames of all parties",
        "received (",
    ):
        assert claim not in text


def test_a_party_s_own_report_has_no_zeros_for_what_others_did(own_pages):
    text = own_pages["hospital-1"].text
    table = text[text.index("What left hospital-1") : text.index("Whole frames that hospital-1 made")]
    sent = {to: numbers.split() for to, numbers in re.findall(r"(hospital-\d|server)((?: [\d,]+){4})", table)}
    training, evaluation, handed = 4 * 2 * (3 * 40 * 64 + 480), 4 * (40 * 64 + 480), 4 * (1480 + 480)
    assert sent == {
        "hospital-2": ["0", "0", f"{handed:,}", f"{handed:,}"],
        "server": [f"{training:,}", f"{evaluation:,}", "0", f"{training + evaluation:,}"],
    }


def test_a_party_s_own_report_knows_the_network_and_its_own_rows(own_pages):
    client, server = own_pages["hospital-1"].text, own_pages["server"].text
    for text in (client, server):
        assert "Network 642 parameters, at 2 roles" in text and "Parameters by segment" in text
    assert "auc 0.87, measured at hospital-1" in client
    assert "Over all rows that are measured at hospital-1; what others measure is not in its log." in client
    assert "No loss is computed at server" in server and "Accuracy" not in server


def test_a_log_without_sizes_claims_no_network(tmp_path):
    log = [event for event in own_events("server") if isinstance(event, Began | Ended)]
    assert "Network" not in Page(write_report(write(tmp_path, log))).text


def test_labels_that_a_party_shared(tmp_path):
    shared = frames(0, "training", "y->server", "label", "hospital-1", "server", 2560)
    log = [*bare(own_events("hospital-1")), shared]
    assert "Labels were openly shared by hospital-1" in Page(write_report(write(tmp_path, log))).text


def test_shared_labels_are_a_warning(tmp_path):
    shared = frames(0, "training", "y->server", "label", "hospital-1", "server", 2560)
    log = [*bare(events()), shared, events()[-1]]
    text = Page(write_report(write(tmp_path, log))).text
    assert "Labels were openly shared" in text and "2.56 KB over y->server" in text
    assert "No labels left" not in text


def test_a_run_that_goes_on_says_so(tmp_path):
    text = Page(write_report(write(tmp_path, bare(events()[:-1])))).text
    assert "not finished" in text and "This run is not finished" in text and "complete" not in text


def test_a_log_that_was_cut_off_is_reported(tmp_path):
    log = bare(events()[:-1])
    text = Page(write_report(write(tmp_path, log, tail='{"event": "traf'))).text
    assert "This run is not finished" in text


def test_a_run_that_just_began(tmp_path):
    text = Page(write_report(write(tmp_path, events()[:1]))).text
    assert "No epoch has ended yet" in text and "Nothing left this party during the run" in text


def test_names_are_text_and_never_markup(tmp_path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    log = bare(events(name=evil))
    began = log[0]
    assert isinstance(began, Began)
    log[0] = dataclasses.replace(
        began, study=evil, schedule=evil, optimizer=evil, digest=evil, graph=evil, holdings=evil,
        started=evil, svg=evil, versions={evil: evil}, disclosures={evil: evil},
        parties={**began.parties, evil: evil},
    )  # fmt: skip
    log.append(Noted(subject=evil, text=evil, figures={evil: 1.0}))
    log.append(frames(0, evil, evil, evil, evil, evil, 10))
    page = Page(write_report(write(tmp_path, log)))
    assert not page.of("script")
    assert all(
        image["src"].startswith("data:image/svg+xml;base64,") and "onerror" not in image
        for image in page.of("img")
    )
    assert evil in page.text


def test_many_parties_stay_readable(tmp_path):
    costly = Computed | Worked | Measured | EpochEnded
    log = [event for event in events(clients=60, epochs=1) if not isinstance(event, costly)]
    page = Page(write_report(write(tmp_path, log)))
    assert "client (60 parties)" in page.text and "most by one" in page.text
    assert "hospital-37" not in page.text


def test_writing_again_replaces(tmp_path):
    folder = write(tmp_path, bare(events()[:-1]))
    write_report(folder)
    write(folder, bare(events()))
    assert "This run is not finished" not in Page(write_report(folder)).text


def test_bad_folders(tmp_path):
    with pytest.raises(LogError, match="cannot read"):
        write_report(tmp_path)
    write(tmp_path, events()[1:3])
    with pytest.raises(LogError, match="has no beginning"):
        write_report(tmp_path)
    folder = write(tmp_path / "run", bare(events()))
    (folder / "report.html").mkdir()
    with pytest.raises(LogError, match=r"cannot write .*report\.html"):
        write_report(folder)


def test_reading_a_log_needs_no_torch():
    code = "import sys, cutlayer.report; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
