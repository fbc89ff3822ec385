"""Options of steps: which schedule has which, and programs with them, which the checker knows in every action."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from torch import nn

import cutlayer as cl
from cutlayer.errors import ProgramError, StudyError
from cutlayer.schedules import Op, check

FREE = {Op.ADVANCE, Op.OWN}  # what a right program may do without


@cache
def people():
    rows = np.arange(18 * 6, dtype=np.float32).reshape(18, 6)
    whole = cl.data.arrays(rows, np.arange(18) % 3, rows[:6], np.arange(6) % 3).split_rows(2)
    return cl.data.hide_labels(whole, keep=0.7)


@cache
def graph():
    plain = cl.vanilla(cl.networks.mlp((6, 8, 3)), "activation1", clients=people())
    return cl.with_decoder(plain, nn.Linear(8, 6))


def program_of(schedule, split=None):
    settings = {"optimizer": cl.optim.SGD(lr=0.1), "batch_size": 3}
    return cl.Study(graph=split or graph(), schedule=schedule, **settings).program(people())


@pytest.mark.parametrize(
    "schedule",
    [
        cl.RoundRobin(updates=True, handover="server"),
        cl.SplitFed(accumulate=2, in_flight=2, clip=0.5),
        cl.SplitFed(version=2, clip=0.5),
        cl.SplitFed(version=2, unlabelled=True),
        cl.Parallel(clip=0.5),
    ],
    ids=lambda schedule: schedule.describe(),
)
def test_whatever_is_left_out_is_found(schedule):
    program = list(program_of(schedule))
    missed = Counter()
    for index, action in enumerate(program):
        try:
            check(program[:index] + program[index + 1 :], graph())
        except ProgramError:
            continue
        missed[action.op] += 1
    assert missed.keys() <= FREE


def test_clients_at_work_take_turns_by_optimizer_steps():
    program = program_of(cl.SplitFed(version=2, accumulate=2))
    order = [(a.step, a.party, a.op) for a in program if a.op in (Op.FORWARD, Op.STEP) and a.what == "top"]
    assert [op for _, _, op in order][:6] == [Op.FORWARD, Op.FORWARD, Op.STEP] * 2
    loads = [a for a in program if a.op is Op.LOAD and a.what.startswith("train")]
    assert [a.step for a in loads] == list(range(len(loads)))
    assert loads[0].party == loads[1].party != loads[2].party == loads[3].party


def test_the_server_works_out_the_norm_where_each_client_has_a_loss_of_its_own():
    tails = cl.u_shaped(cl.networks.mlp((6, 8, 7, 3)), ("linear1", "linear2"), clients=people())
    program = program_of(cl.Parallel(clip=0.5), tails)
    told = {(a.party, a.peer) for a in program if a.op == "report" and a.what == "squares"}
    assert told == {("client-0", "server"), ("client-1", "server")}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: cl.Parallel(accumulate=2),
            r"Parallel has no accumulate: a step is of all .* already; got accumulate=2; choose",
        ),
        (
            lambda: cl.Parallel(unlabelled=True),
            r"Parallel has no unlabelled.*use SplitFed\(unlabelled=True\)",
        ),
        (lambda: cl.Asynchronous(accumulate=2, in_flight=2), "Asynchronous has no accumulate"),
        (lambda: cl.Asynchronous(in_flight=2), "Asynchronous has no in_flight"),
        (lambda: cl.Asynchronous(unlabelled=True), "Asynchronous has no unlabelled"),
        (lambda: cl.SplitFed(unlabelled=True, clip=1.0), "with unlabelled=True there is no clip"),
        (lambda: cl.SplitFed(in_flight=2), "no more batches are in flight"),
        (lambda: cl.Parallel(clip=0.0), "clip is the bound of a norm"),
    ],
)
def test_what_a_schedule_does_not_have_says_why_and_what_to_use(make, words):
    with pytest.raises(StudyError, match=words):
        make()
