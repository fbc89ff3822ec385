"""Train the same networks on the same rows with cutlayer and with other projects for split learning, side by side.

Each project is installed in a virtual environment of its own, with pinned versions, in benchmarks/peers/.environments
(made once; pip must find a build of PyTorch that suits this machine), and used as its documentation says to. What
its user writes lies in a folder beside this script. One thread a process; each run in a network and among processes of
its own, so that bytes and memory are its alone; all sides in turn, some rounds. Four workloads:

    w         784 -> 256 ReLU | 256 -> 10, batch 64, SGD 0.05, 12,800 rows of MNIST, 5 epochs, 1,000 steps
    breast    FATE's example of a vertical network: 10 + 20 columns of 569 rows, batch 256, Adam 0.01, 50 epochs
    cifar10   the network and the settings of NVFLARE's CIFAR-10 SplitNN: batch 64, SGD 0.01 / 0.9, float16 over the
              cut (TorchSlicer and FATE: float32); as many steps as --steps says, each image seen once
    resnet18  TorchSlicer's ResNet-18 on CIFAR-10: batch 64, SGD 0.05 / 0.9, weight decay; two epochs on few images,
              as many steps as --resnet-steps says, of which the first half warms up

    python benchmarks/peers/run.py                       everything, about 27 minutes; writes results/peers.json
                                                         and the tables of docs/peers.md
    python benchmarks/peers/run.py --work resnet18       some workloads; writes nothing
    python benchmarks/peers/run.py --only NVFLARE        some sides, beside cutlayer; writes nothing
    python benchmarks/peers/run.py --install             make the environments, and no more
    python benchmarks/peers/run.py --others              ask pip for projects that are not measured; keeps its words
    python benchmarks/peers/run.py --table               the tables of the kept figures again, here and in the docs

Needs Linux and root (or `unshare` allowed to users). Rows of MNIST come from CUTLAYER_MNIST, images from
CUTLAYER_CIFAR10 (see benchmarks/README.md). Without the first, rows are random; without the second, neither cifar10
nor resnet18.

Ends with 1 if a side fails, or a peer makes more steps a second than cutlayer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import environments
import rows
from circumstances import circumstances
from figures import figures_of, lines_of, medians
from sides import SIDES, Side
from tables import TITLES, page_part, place, tables

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "peers.json"
PAGE = HERE.parent.parent / "docs" / "peers.md"
MOST_SECONDS = 1200.0
RESNET_EPOCHS = 2
CIFAR_TESTS, RESNET_TESTS = 1_000, 128
UNCUT = "one process, uncut"
UNSHARE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


class SideFailed(Exception):
    """A side did not end well; the words are the last of its own."""


def installed(sides: Sequence[Side]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the Python of each environment that the sides need, and why others have none."""
    found, failed = {"": Path(sys.executable)}, {}
    for environment in dict.fromkeys(side.environment for side in sides if side.environment):
        try:
            found[environment.name] = environments.prepared(environment)
        except environments.NotInstalled as failure:
            failed[environment.name] = str(failure)
            print(f"  {environment.name} cannot be installed: {failure}", flush=True)
    return found, failed


def run_once(side: Side, python: Path, archive: Path) -> dict[str, float]:
    """Run one side once and return its figures.

    Args:
        side: The side.
        python: Its interpreter.
        archive: The rows.

    Raises:
        SideFailed: If it fails or tells nothing.
    """
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        work = Path(name)
        for file in side.files if side.copied else ():
            shutil.copy(HERE / file, work)
        if side.copied:
            (work / "rows.npz").symlink_to(archive)
        done = subprocess.run(
            _command(side, python, archive, work),
            cwd=work, env=_variables(side, work), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        told = json.loads((work / "told.json").read_text()) if (work / "told.json").exists() else {}
    if not told or told["status"] != 0 or len(told["marks"]) < 2:
        raise SideFailed(done.stdout[-2000:])
    return figures_of(told)


def _command(side: Side, python: Path, archive: Path, work: Path) -> list[str]:
    places = {"python": python, "scripts": python.parent, "rows": archive, "here": HERE, "work": work}
    mapped = () if os.geteuid() == 0 else ("--map-root-user",)
    log = ("--log", str(work / side.log)) if side.log else ()
    return [
        *UNSHARE, *mapped, sys.executable, str(HERE / "watched.py"), "--out", str(work / "told.json"), *log,
        "--seconds", str(MOST_SECONDS), "--", *(word.format(**places) for word in side.command),
    ]  # fmt: skip


def _variables(side: Side, work: Path) -> dict[str, str]:
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    marks = {
        "PEERS_MARKS": str(work / "marks.jsonl"),
        "PYTHONPATH": str(HERE / "marking"),
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **one, **marks, **side.variables}


def measure(
    sides: Sequence[Side], rounds: int, steps: Mapping[str, int], data: Mapping[str, Path | None]
) -> dict[str, Any]:
    """Run all sides in turn and return what the results keep.

    Args:
        sides: The sides.
        rounds: Rounds of W.
        steps: Steps of ``cifar10`` and of ``resnet18``.
        data: The archives of ``w`` and ``cifar10``, where they are given.
    """
    pythons, failed = installed(sides)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        archives = archives_in(Path(name), {side.work for side in sides}, steps, data)
        able = [s for s in sides if s.work in archives and environment_of(s) in pythons]
        runs = in_turn(able, rounds, pythons, archives, failed)
    kept = [side for side in able if (side.work, side.name) in runs]
    installs = dict.fromkeys(side.environment for side in kept if side.environment)
    return {
        "workloads": {
            work: {s.name: _told(s, runs[s.work, s.name]) for s in kept if s.work == work}
            for work in dict.fromkeys(side.work for side in kept)
        },
        "rounds": rounds,
        "packages": {one.name: environments.versions(pythons[one.name], one) for one in installs},
        "failed": failed,
        "rows": "MNIST" if data["w"] else "random",
    }


def environment_of(side: Side) -> str:
    """Return the name of a side's environment; cutlayer's has none."""
    return side.environment.name if side.environment else ""


def in_turn(
    sides: Sequence[Side],
    rounds: int,
    pythons: Mapping[str, Path],
    archives: Mapping[str, Path],
    failed: dict[str, str],
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Return the figures of each side's runs; who fails is noted in ``failed`` and not asked again."""
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            label = f"{side.name} on {side.work}"
            if label in failed or (number and side.work != "w"):
                continue
            try:
                figures = run_once(side, pythons[environment_of(side)], archives[side.work])
            except SideFailed as failure:
                failed[label] = str(failure)
                print(f"  {label} failed: {failure}", flush=True)
                continue
            runs.setdefault((side.work, side.name), []).append(figures)
            said = f"{figures['steps_per_second']:.4g} steps/s, {figures['start_up_seconds']:.1f} s to start"
            print(f"  round {number + 1} of {rounds}: {label}: {said}", flush=True)
    return runs


def archives_in(
    folder: Path, works: Set[str], steps: Mapping[str, int], data: Mapping[str, Path | None]
) -> dict[str, Path]:
    """Write the rows of each of ``works`` whose data is there, and return where."""
    images = data["cifar10"]
    made = {w: folder / f"{w}.npz" for w in works if w in ("w", "breast") or images is not None}
    if "w" in made:
        rows.workload_w(data["w"], made["w"])
    if "breast" in made:
        rows.breast(made["breast"])
    if images is not None and "cifar10" in made:
        rows.cifar10(images, made["cifar10"], steps["cifar10"] * rows.BATCH, CIFAR_TESTS)
    if images is not None and "resnet18" in made:
        training = steps["resnet18"] // RESNET_EPOCHS * rows.BATCH
        rows.cifar10(images, made["resnet18"], training, RESNET_TESTS)
    return made


def _told(side: Side, runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    speeds = [round(run["steps_per_second"], 2) for run in runs]
    lines = sum(lines_of(HERE / file) for file in side.files)
    return medians(runs) | {"speeds_of_rounds": speeds, "lines": lines, "told": side.told}


def failures(figures: Mapping[str, Any]) -> list[str]:
    """Return what is beyond the bar, in words."""
    found = [f"{name}: {why}" for name, why in figures["failed"].items()]
    for work, sides in figures["workloads"].items():
        for name, told in sides.items():
            if name == UNCUT or "cutlayer" not in sides:
                continue
            ours = sides["cutlayer"]["steps_per_second"]
            if told["steps_per_second"] > ours:
                found.append(
                    f"{work}: {name} makes {told['steps_per_second']:.3g} steps/s, cutlayer {ours:.3g}"
                )
    return found


def chosen(words: Sequence[str], works: Sequence[str]) -> list[Side]:
    """Return the sides whose name has one of ``words``, and cutlayer beside them; all if there are none.

    Args:
        words: Parts of names.
        works: The workloads that are wanted; all if there are none.
    """
    for word in words:
        if not any(word.lower() in side.name.lower() for side in SIDES):
            sys.exit(
                f"no side is named like {word!r}; known: {', '.join(dict.fromkeys(s.name for s in SIDES))}"
            )
    wanted = [s for s in SIDES if not words or any(word.lower() in s.name.lower() for word in words)]
    found = {side.work for side in wanted if not works or side.work in works}
    return [s for s in SIDES if s.work in found and (s in wanted or s.name == "cutlayer")]


def kept_results() -> dict[str, Any]:
    """Return what was kept last; nothing yet is an empty comparison."""
    empty: dict[str, Any] = {"figures": {"workloads": {}}}
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else empty


def keep(results: Mapping[str, Any]) -> None:
    """Write the results."""
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def of_epochs(word: str) -> int:
    """Return how many steps ``word`` says: an even number, one step or more in each of two epochs."""
    steps = int(word)
    if steps < RESNET_EPOCHS or steps % RESNET_EPOCHS:
        raise argparse.ArgumentTypeError(f"{word} is not a multiple of {RESNET_EPOCHS}, one or more an epoch")
    return steps


def parsed() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="sides whose name has this word"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of w; the others are run once (default: 3)"
    )
    parser.add_argument("--work", nargs="+", default=[], choices=list(TITLES), help="only these workloads")
    parser.add_argument("--steps", type=int, default=300, help="steps of cifar10 (default: 300)")
    parser.add_argument(
        "--resnet-steps", type=of_epochs, default=20, metavar="STEPS", help="steps of resnet18 (default: 20)"
    )
    parser.add_argument("--quick", action="store_true", help="one round and a few steps; writes nothing")
    parser.add_argument("--install", action="store_true", help="make the environments, and no more")
    parser.add_argument("--others", action="store_true", help="ask pip for projects that are not measured")
    parser.add_argument(
        "--table",
        action="store_true",
        help="print the tables of the kept figures again, and put them in the docs",
    )
    return parser.parse_args()


def main() -> int:
    """Do what was asked for and return the exit status."""
    asked = parsed()
    if asked.table:
        print(page_part(kept_results()))
        place(kept_results(), PAGE)
        return 0
    if asked.install:
        return 1 if installed(SIDES)[1] else 0
    if asked.others:
        others = {one.pins[0]: environments.tried(one) for one in environments.OTHERS}
        print(json.dumps(others, indent=2))
        results = kept_results()
        keep({**results, "figures": {**results["figures"], "others": others}})
        return 0
    return compare(asked)


def compare(asked: argparse.Namespace) -> int:
    """Measure, print, keep unless only some sides ran, and return the exit status."""
    around = circumstances(sys.argv[1:])
    data = {
        name: Path(os.environ[variable]).resolve() if os.environ.get(variable) else None
        for name, variable in (("w", "CUTLAYER_MNIST"), ("cifar10", "CUTLAYER_CIFAR10"))
    }
    rounds, steps = asked.rounds, {"cifar10": asked.steps, "resnet18": asked.resnet_steps}
    if asked.quick:
        rounds, steps = 1, {"cifar10": 5, "resnet18": 2}
    figures = measure(chosen(asked.only, asked.work), rounds, steps, data)
    missed = failures(figures)
    print(tables(figures))
    for failure in missed:
        print(f"beyond the bar: {failure}")
    if not (asked.quick or asked.only or asked.work):
        figures["others"] = kept_results()["figures"].get("others", {})
        keep({"figures": figures, **around})
        place(kept_results(), PAGE)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
