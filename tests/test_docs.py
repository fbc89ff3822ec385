"""What the public texts say is so: programs run, output is what it is said to be, links lead somewhere.

Each page's Python blocks run in order, in one namespace, in a folder with the digits study. A ``text`` or
``mermaid`` block that comes next shows what it prints; ``…`` stands for anything, in a line or, alone, for
several lines.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

import cutlayer
from cutlayer.cli import app
from cutlayer.study_file import load_study

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md")])
DECISIONS = sorted(ROOT.glob("docs/decisions/*.md"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its text, the line it begins in, and what it prints where the page shows it."""

    text: str
    line: int
    shown: str | None


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text()
    found = list(_FENCE.finditer(text))
    made = []
    for number, match in enumerate(found):
        after = found[number + 1] if number + 1 < len(found) else None
        shown = after[2] if after is not None and after[1] in ("text", "mermaid") else None
        if match[1] == language:
            made.append(Block(match[2], text[: match.start()].count("\n") + 2, shown))
    return made


def having(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def same(shown: str, printed: str) -> bool:
    """Whether ``printed`` is what a page shows, with ``…`` for what it leaves out."""
    pattern = "\n".join(
        r"(?:.*\n)*?.*" if line.strip() == "…" else ".*".join(map(re.escape, line.rstrip().split("…")))
        for line in shown.strip().splitlines()
    )
    return (
        re.fullmatch(pattern, "\n".join(line.rstrip() for line in printed.strip().splitlines())) is not None
    )


def test_an_ellipsis_stands_for_anything_and_nothing_else_does():
    assert same("a\n…\nd", "a\nb\nc\nd") and same("loss …, done", "loss 0.5, done")
    assert not same("a\n…\nd", "a\nb\nc") and not same("a.c", "abc") and not same("a", "a\nb")


@pytest.mark.parametrize("page", having("python"), ids=named)
def test_programs_run_and_print_what_is_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(ROOT / "examples" / "digits", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if block.shown is not None:
            assert same(block.shown, printed.getvalue()), printed.getvalue()


def test_the_first_program_has_ten_lines():
    first = blocks(ROOT / "README.md", "python")[0]
    assert len([line for line in first.text.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("page", having("toml"), ids=named)
def test_studies_can_be_built(page: Path, tmp_path: Path):
    shutil.copytree(ROOT / "examples" / "digits", tmp_path, dirs_exist_ok=True)
    for block in blocks(page, "toml"):
        if "graph" in tomllib.loads(block.text):
            (tmp_path / "study.toml").write_text(block.text)
            study, holdings = load_study(tmp_path / "study.toml").build()
            assert len(study.program(holdings)) > 0


@pytest.mark.parametrize("page", having("console"), ids=named)
def test_commands_exist_and_print_what_is_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(ROOT / "examples" / "digits", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    makefile = (ROOT / "Makefile").read_text()
    for block in blocks(page, "console"):
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
            words = command.split("#")[0].split()
            if words[0] == "make":
                assert all(
                    re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words[1:] if "=" not in word
                )
            if words[0] == "cutlayer":
                _check_command(words[1:], shown)


def _check_command(words: list[str], shown: str) -> None:
    into = words.index(">") if ">" in words else len(words)
    known = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "160"}).output
    assert all(re.search(rf"{word}\b", known) for word in words[1:into] if word.startswith("--")), words
    if shown.strip() or into < len(words):
        result = CliRunner().invoke(app, words[:into], env={"COLUMNS": "160"})
        if into < len(words):
            Path(words[into + 1]).write_text(result.stdout)
        assert same(shown, result.output if not words[into:] else ""), result.output


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_names_lead_somewhere(page: Path):
    text = page.read_text()
    prose = _FENCE.sub("", text)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'src="([^"]+)"', prose):
        if "://" not in target and not target.startswith(("#", "mailto:")):
            file, _, heading = target.partition("#")
            assert (page.parent / file).exists(), target
            assert not heading or heading in _headings(page.parent / file), target
    for path in re.findall(r"`((?:src|docs|tests|examples|benchmarks)/[\w./-]+)", prose):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(cl(?:\.\w+)+)", prose) + re.findall(r"`(cutlayer(?:\.\w+)+)", prose):
        _resolve(name)


def _headings(page: Path) -> set[str]:
    words = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in words}


def _resolve(name: str) -> None:
    """Find ``cl.data.npz`` or ``cutlayer.graph.cutting.candidates``; raise where there is no such thing."""
    found: object = cutlayer
    path = "cutlayer"
    for word in name.split(".")[1:]:
        path += f".{word}"
        found = getattr(found, word) if hasattr(found, word) else importlib.import_module(path)


def test_every_page_can_be_found():
    readme = (ROOT / "README.md").read_text()
    assert [p.name for p in ROOT.glob("docs/*.md") if f"docs/{p.name}" not in readme] == []
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    assert [p.name for p in DECISIONS if f"decisions/{p.name}" not in architecture] == []


@pytest.mark.parametrize("page", DECISIONS, ids=named)
def test_a_decision_says_context_choice_and_what_was_turned_down(page: Path):
    headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    assert headings[:3] == ["Context", "Choice", "Turned down"]


def test_versions_agree():
    version = cutlayer.__version__
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    released = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == version  # "## 0.3.0 (unreleased)" may stand above it
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == version
    assert project["requires-python"].removeprefix(">=") in (ROOT / "README.md").read_text()


def test_pictures_are_what_the_package_draws():
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs" / "img" / "draw.py")
    assert spec is not None and spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    drawings = draw.drawings()
    assert drawings.keys() == {path.stem for path in (ROOT / "docs" / "img").glob("*.svg")}
    for name, svg in drawings.items():
        assert (ROOT / "docs" / "img" / f"{name}.svg").read_text() == svg, "run python docs/img/draw.py"


def test_figures_are_those_that_were_measured():
    rows = re.findall(r"^\| ([^|]+) \| (\d*\.?\d+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    results = {
        p.stem: json.loads(p.read_text())["figures"] for p in (ROOT / "benchmarks/results").glob("*.json")
    }
    small, w, _ = results["many_clients"]["cases"]
    rows_64kb = [r for r in results["frames_overhead"]["rows"] if r["tensor_bytes"] == 65536]
    measured = [
        results["nhanes_auc"]["auc"][results["nhanes_auc"]["best_alone"]],
        results["nhanes_auc"]["auc"]["joined"],
        results["nhanes_auc"]["auc"]["central twin"],
        sum(c["trainings"] for c in results["equality"]["configurations"].values() if not c["different"]),
        results["mnist5k_accuracy"]["accuracy"]["ten clients in turn"],
        results["workload_w"]["ratio_to_loop_in_memory"],
        results["vgg11_cifar"]["ratio_to_uncut"],
        small["ratio"],
        w["ratio"],
        small["kb_per_client"],
        rows_64kb[0]["overhead_percent"],
    ]
    assert [figure for _, figure in rows] == [
        _rounded(number, figure) for (_, figure), number in zip(rows, measured, strict=True)
    ]


def _rounded(number: float, like: str) -> str:
    """Return ``number`` written as the figure ``like`` is."""
    digits = len(like.partition(".")[2])
    text = f"{number:.{digits}f}"
    return text.removeprefix("0") if like.startswith(".") else text
