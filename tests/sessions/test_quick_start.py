"""A party that was started quickly does the same arithmetic, without PyTorch's compiler."""

import json
import subprocess
import sys

import pytest

TRAIN = """
import hashlib, json, sys
import torch
import cutlayer as cl
from cutlayer.sessions.quick_start import quick_start
torch.set_num_threads(1)
spared = quick_start() if {quick} else -1
draw = torch.Generator().manual_seed(0)
people = cl.data.arrays(torch.rand(60, 8, generator=draw), torch.randint(0, 3, (60,), generator=draw)).split_rows(2)
torch.manual_seed(0)
graph = cl.vanilla(cl.networks.mlp((8, 5, 3)), "activation1", clients=people)
for optimizer in (cl.optim.AdamW(lr=0.01, schedule=cl.optim.StepLR(step_size=1)), cl.optim.SGD(lr=0.1, momentum=0.9)):
    run = cl.Study(graph=graph, optimizer=optimizer, epochs=2, batch_size=16).simulate(people)
digest = hashlib.sha256()
for segment, state in sorted(run.weights().items()):
    for name, tensor in sorted(state.items()):
        digest.update(tensor.numpy().tobytes())
flops = [event.flops for event in run.events if event.kind == "computed"]
print(json.dumps({{"spared": spared, "compiler": "torch._dynamo" in sys.modules, "sympy": "sympy" in sys.modules,
                   "weights": digest.hexdigest(), "flops": flops, "again": quick_start()}}))
"""


def trained(quick: bool) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", TRAIN.format(quick=quick)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def both():
    return trained(quick=True), trained(quick=False)


def test_the_compiler_stays_away(both):
    quick, _ = both
    assert quick["spared"] > 0
    assert not quick["compiler"] and not quick["sympy"]


def test_weights_and_flops_are_the_same(both):
    quick, plain = both
    assert quick["weights"] == plain["weights"]
    assert quick["flops"] == plain["flops"] and sum(quick["flops"]) > 0


def test_a_process_that_has_the_compiler_is_left_alone(both):
    _, plain = both
    assert plain["again"] == 0
