"""Compiled segments: equal to the compiled twin, the same state as ever, the same bits after a restart."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
from breaking import break_off
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.metering.events import Computed

TRAIN = """
import hashlib
import torch
import cutlayer as cl
torch.set_num_threads(1)
draw = torch.Generator().manual_seed(0)
people = cl.data.arrays(torch.rand(32, 8, generator=draw), torch.randint(0, 3, (32,), generator=draw)).split_rows(1)
graph = cl.vanilla(cl.networks.mlp((8, 5, 3)), "activation1", clients=people)
study = cl.Study(graph=graph, optimizer=cl.optim.AdamW(lr=0.01), epochs=2, batch_size=16, compiled=["top"])
weights = study.simulate(people).weights()
digest = hashlib.sha256()
for segment, state in sorted(weights.items()):
    for name, tensor in sorted(state.items()):
        digest.update(tensor.numpy().tobytes())
"""
QUICKLY = f"""
import sys
from cutlayer.sessions.quick_start import quick_start
assert quick_start() > 0 and "torch._dynamo" not in sys.modules
{TRAIN}
print(digest.hexdigest())
"""
NO_COMPILER = """
import torch
from cutlayer.errors import StudyError
from cutlayer.runtime.precision import check_compiler
try:
    check_compiler(torch.device("cpu"))
except StudyError as error:
    print(error)
"""


def printed(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    return done.stdout.strip()


@cache
def compiled_and_plain():
    """Return a compiled study with dropout and two clients of equal parts, the same uncompiled, and the people."""
    source, _, _ = pooled(rows=24, test=4)
    people = source.split_rows(2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
        )
    graph = cl.vanilla(model, "1", clients=people)
    more = {"optimizer": cl.optim.Adam(lr=0.01), "batch_size": 6, "epochs": 3}
    return study_of(graph, compiled=["top", "head"], **more), study_of(graph, **more), people


def same(one, other) -> bool:
    return all(
        torch.equal(tensor, other[segment][name]) for segment in one for name, tensor in one[segment].items()
    )


@cache
def run():
    study, _, people = compiled_and_plain()
    return study.simulate(people)


def test_it_equals_the_twin_and_comes_close_to_what_is_not_compiled():
    study, plain, people = compiled_and_plain()
    twin = study.central(people)
    assert run().equals(twin)
    assert run().metrics() == twin.metrics()["loss"]
    other = plain.simulate(people).weights()
    for segment, state in run().weights().items():  # dropout and all
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, other[segment][name], atol=1e-4, rtol=1e-3)


def test_state_and_counted_work_are_those_of_the_module():
    _, plain, people = compiled_and_plain()
    other = plain.simulate(people)
    for segment, state in other.weights().items():
        assert list(run().weights()[segment]) == list(state)
    computed, expected = ([e for e in one.events if isinstance(e, Computed)] for one in (run(), other))
    assert computed == expected and sum(event.flops for event in computed) > 0


def test_a_restart_compiles_anew_and_gives_the_same_bits(tmp_path):
    study, _, people = compiled_and_plain()

    break_off(study, people, tmp_path)
    torch._dynamo.reset()
    assert same(study.simulate(people, out=tmp_path, resume=True).weights(), run().weights())


def test_a_process_that_started_quickly_compiles_as_well():
    here: dict[str, Any] = {}
    exec(TRAIN, here)
    assert printed(QUICKLY) == here["digest"].hexdigest()


def test_without_a_compiler_it_is_said(tmp_path):
    told = printed(NO_COMPILER, CXX="/nowhere/c++", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert told.startswith("segments cannot be compiled on this machine for cpu: ")
    assert "C++ compiler" in told and "agree on a study without compiled" in told


class Choosy(nn.Module):
    """A part whose way depends on what is in a tensor, which cannot be compiled as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        made = self.last(x)
        return made * 2 if float(made.detach().sum()) > 0 else made


def test_a_segment_that_cannot_be_compiled_is_named():
    people = cl.data.breast_cancer().split_columns({"imaging": ["mean *"], "pathology": ["worst *"]})
    bottoms = {"imaging": nn.Linear(10, 4), "pathology": nn.Linear(10, 4)}
    study = study_of(
        cl.vertical(bottoms, Choosy(), parties=people), batch_size=200, epochs=1, compiled=["top"]
    )
    with pytest.raises(StudyError, match=r"step 0: top failed on .*; leave this segment out of compiled"):
        study.simulate(people)
