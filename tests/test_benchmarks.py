"""Every benchmark explains itself, names its bar, is listed and in the README, and its figures are kept."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
PARTS = {"run", "measuring", "equality_cases", "two_hosts", "network_pair", "network_rivals"}
KEPT = {
    path for path in (FOLDER / "results").glob("*.json") if path.stem != "peers"
}  # test_peers.py has that
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in PARTS)


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_all_are_listed_and_nothing_else(load):
    assert sorted(benchmark.name for benchmark in load("run").BENCHMARKS) == SCRIPTS


@pytest.mark.parametrize("name", [*SCRIPTS, "run"])
def test_help_says_what_is_measured_and_when_it_fails(name, load, monkeypatch, capsys):
    module = load(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert " ".join(module.__doc__.split()) in told
    assert re.search(r"Ends with 1 if ", told)


@pytest.mark.parametrize("name", SCRIPTS)
def test_there_is_a_bar_and_something_that_judges_it(name, load):
    module = load(name)
    bar = next(benchmark.bar for benchmark in load("run").BENCHMARKS if benchmark.name == name)
    assert bar and callable(module.failures)
    assert f"`{name}.py`" in (FOLDER / "README.md").read_text(encoding="utf-8")


FAR_BEYOND = {
    "disco": {
        "defences": {
            name: {"task_auc_lost": {"mean": 0.0}, "found": {"sex": {"better_look": {"auc": auc}}}}
            for name, auc in (("none", 0.94), ("disco:sex,0.9", 0.9))
        },
        "quick": False,
    },
    "seed_experiment": {
        "cases": {
            "diverged": {"compute_ratios": [0.03], "final": 0.1, "share_of_final": 1.0, "split_then": 0.1},
        },
        "planned_ratio": 0.03,
        "quick": False,
    },
    "seed_vgg16": {"metered_ratios": [0.0035], "planned_ratio": 0.0036},
    "plan_at_scale": {"cases": {"parallel": {"off": -0.3, "sums_off": 0.0}}, "quick": False},
    "breast_cancer_auc": {"auc": {"joined": 0.98}, "folds_equal_to_twin": 5, "folds": 5},
    "codec_costs": {
        "sizes": {
            "16 MB": [
                {"codec": "pq:4,16,0.01", "pays_below_mbit_s": 900.0},
                {"codec": "int8", "pays_below_mbit_s": 9000.0},
            ],
            "66 KB": [{"codec": "pq:4,16,0.01", "pays_below_mbit_s": 90.0}],
        },
        "quick": False,
    },
    "equality": {"configurations": {"vanilla": {"different": ["weight"], "fewest_steps": 50}}},
    "inversion_depth": {
        "cuts": {
            cut: {name: {"mean": {"ssim": ssim}} for name, ssim in scores.items()}
            for cut, scores in (
                ("conv1", {"white box": 0.99, "decoder": 0.9, "blind": 0.2}),
                ("fc1", {"white box": 0.9, "decoder": 0.8, "blind": 0.2}),
            )
        },
        "quick": False,
    },
    "label_leak": {
        "studies": {
            "two parties": {
                name: {"leak_by_norm": norm, "leak_by_cosine": 0.55}
                for name, norm in (("none", 0.95), ("max-norm", 0.65), ("marvell:0.3", 0.5), ("marvell:0.4", 0.5))
            }
        },
        "quick": False,
    },
    "many_clients": {
        "cases": [{"case": "W", "judged": True, "ratio": 1.2}, {"case": "V", "judged": False, "ratio": 9.0}],
        "quick": False,
    },
    "many_parties": {"different": [], "ended_well": True, "growth": 1.2, "mb_per_party": 2.0},
    "mnist5k_accuracy": {
        "accuracy": {"ten clients in turn": 0.94}, "points_between": 0.0, "equal_to_one_client": True,
        "equal_to_twin": True, "quick": False,
    },
    "network_bytes": {"works": {"w": {"over_frames": 0.011}}, "quick": False},
    "network_start": {"seconds_beyond_import_torch": 1.1, "quick": False},
    "network_vgg": {"ratio_to_loop": 0.94, "quick": False},
    "nopeek": {
        "weights": {
            "0": {"mean": {"correlation": 0.86, "ssim": 0.8, "ssim_blind": 0.2}},
            "2": {"mean": {"correlation": 0.5, "ssim": 0.6, "ssim_blind": 0.2}, "points_lost": {"mean": 0.1}},
        },
        "client_step": {"this network": {"times": 1.1}},
        "quick": False,
    },
    "nopeek_cifar10": {
        "weights": {
            "0": {"mean": {"correlation": 0.7, "ssim": 0.4, "ssim_blind": 0.1}},
            "2": {"mean": {"correlation": 0.3, "ssim": 0.1, "ssim_blind": 0.1}, "points_lost": {"mean": 8.0}},
        },
        "quick": False,
    },
    "nopeek_ham10000": {
        "weights": {
            "0": {"mean": {"correlation": 0.7, "ssim": 0.64, "ssim_blind": 0.5}},
            "0.2": {"mean": {"correlation": 0.4, "ssim": 0.63, "ssim_blind": 0.5}, "points_lost": {"mean": 0.5}},
            "2": {"mean": {"correlation": 0.3, "ssim": 0.5, "ssim_blind": 0.5}, "points_lost": {"mean": 8.0}},
        },
        "quick": False,
    },
    "overlap_vgg": {"ratio_to_loop": 0.99, "quick": False},
    "parallel_schedules": {
        "joint_steps": {"batches of 4": {"gain": 3.1}},
        "splitfed": [
            {"case": "C", "clients": 100, "judged": True, "ratio": 1.3},
            {"case": "W", "clients": 100, "judged": False, "ratio": 9.0},
        ],
        "quick": False,
    },
    "network_w": {
        "ratio_to_raw_pair": 0.69, "ratio_to_loop": 0.46, "step_times_with_nopeek": 1.1, "quick": False,
    },
    "network_wan": {"works": {"w": {"over": 0.06}, "wide": {"over": 0.04}}, "quick": False},
    "nhanes_auc": {
        "auc": {"joined": 0.83, "clinic": 0.81}, "best_alone": "clinic", "folds_equal_to_twin": 5, "folds": 5,
    },
    "precision": {"equal_to_twin": {"float32": True, "bfloat16": False, "compiled": True}},
    "semi_supervised": {
        "gain": {"labels only": {"points": 3.0, "error": 0.5}, "labels only, longer": {"points": 1.0, "error": 0.6}},
        "same_bytes": True, "equal_to_twin": True, "quick": False,
    },
    "vgg11_cifar": {"weights_equal": True, "ratio_to_uncut": 0.9, "quick": False},
    "workload_w": {"ratio_to_loop_in_memory": 0.89, "quick": False},
}  # fmt: skip


@pytest.mark.parametrize("name", FAR_BEYOND)
def test_figures_beyond_the_bar_are_said_to_be_and_end_with_1(name, load, capsys):
    failures = load(name).failures(FAR_BEYOND[name])
    assert len(failures) == 1
    assert load("measuring").finish(name, FAR_BEYOND[name], failures) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("beyond the bar: ")
    assert json.loads(said[-1])["passed"] is False


def test_an_unknown_benchmark_is_refused_with_the_known_ones(load):
    with pytest.raises(SystemExit, match="no benchmark is named 'speed'; known: equality"):
        load("run").chosen(["speed"])


def test_a_quick_run_shows_and_judges_but_keeps_nothing(tmp_path):
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--out", str(tmp_path), "breast_cancer_auc"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split() == ["breast_cancer_auc", "passed"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted(KEPT), ids=lambda path: path.stem)
def test_kept_figures_name_hardware_date_commit_command_and_versions(path):
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert path.stem in SCRIPTS
    assert kept["figures"]["benchmark"] == path.stem
    assert kept["figures"].get("quick", False) is False
    assert kept["hardware"]["processor"] and kept["date"] and kept["commit"] and kept["versions"]["torch"]
    assert kept["command"].endswith(f"benchmarks/{path.stem}.py")
