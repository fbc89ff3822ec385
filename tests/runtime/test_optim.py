"""Optimizers and learning-rate schedules by name: all of PyTorch's, or a reason why not."""

import pytest
import torch
from torch import nn

from cutlayer.errors import StudyError
from cutlayer.runtime import optim
from cutlayer.runtime.optim import OptimizerSpec, ScheduleSpec


def parameters():
    return [nn.Parameter(torch.ones(3, 2))]


OPTIMIZERS = [
    name for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
]  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_pytorch_is_built_or_refused_with_the_reason(name):
    if name in ("LBFGS", "SparseAdam"):
        with pytest.raises(StudyError, match=f"{name} does not work in split learning: it needs"):
            getattr(optim, name)(lr=0.1)
        return
    built = getattr(optim, name)(lr=0.1).build(parameters())
    assert type(built) is getattr(torch.optim, name)
    assert built.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    "name", ["LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau", "SequentialLR", "ChainedScheduler"]
)
def test_schedules_that_are_no_data_are_refused_with_the_reason(name):
    with pytest.raises(StudyError, match=f"{name} does not work in split learning: it"):
        getattr(optim, name)()


def test_settings_reach_pytorch():
    spec = optim.SGD(lr=0.05, momentum=0.9, nesterov=True)
    group = spec.build(parameters()).param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.05, 0.9, True)
    built = optim.SGD(lr=1.0).build(parameters())
    schedule = optim.StepLR(step_size=1, gamma=0.5).build(built)
    built.step()
    schedule.step()
    assert built.param_groups[0]["lr"] == 0.5


def test_specs_print_compare_and_hash_as_they_are_written():
    text = "SGD(lr=0.1, momentum=0.9, schedule=StepLR(gamma=0.5, step_size=3), every='step')"
    spec = optim.SGD(momentum=0.9, lr=0.1, schedule=optim.StepLR(step_size=3, gamma=0.5), every="step")
    assert repr(spec) == text
    again = optim.optimizer(
        "SGD",
        lr=0.1,
        momentum=0.9,
        schedule=optim.lr_schedule("StepLR", gamma=0.5, step_size=3),
        every="step",
    )
    assert spec == again and hash(spec) == hash(again)
    assert spec != optim.SGD(lr=0.1) and repr(optim.Adam()) == "Adam()"
    assert isinstance(spec, OptimizerSpec) and isinstance(spec.schedule, ScheduleSpec)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: optim.optimizer("RMSProp"), r"torch.optim has no 'RMSProp'; did you mean 'RMSprop'\?"),
        (lambda: optim.lr_schedule("SetpLR"), r"torch.optim has no 'SetpLR'; did you mean 'StepLR'\?"),
        (
            lambda: optim.SGD(lr=0.1, momentun=0.9),
            r"SGD has no setting 'momentun'; did you mean 'momentum'\?",
        ),
        (lambda: optim.StepLR(stepsize=3), r"StepLR has no setting 'stepsize'; did you mean 'step_size'\?"),
        (
            lambda: optim.SGD(lr=0.1, schedule="StepLR"),
            r"schedule= wants a learning-rate schedule; got 'StepLR'",
        ),
        (lambda: optim.SGD(lr=0.1, every="batch"), r"every='batch'"),
        (
            lambda: optim.SGD(lr=-1.0),
            r"PyTorch refuses SGD\(lr=-1.0\): Invalid learning rate",
        ),
        (
            lambda: optim.SGD(nesterov=True, lr=0.1),
            r"PyTorch refuses SGD\(lr=0.1, nesterov=True\)",
        ),
        (lambda: optim.SGD(lr="fast"), r"lr of SGD is a number; got 'fast'; expected for example 0.001"),
        (lambda: optim.SGD(params=[]), r"SGD has no setting 'params'"),
        (lambda: optim.StepLR(optimizer=None), r"StepLR has no setting 'optimizer'"),
    ],
)
def test_what_cannot_be_is_refused(make, why):
    with pytest.raises(StudyError, match=why):
        make()


def test_a_schedule_that_pytorch_refuses_says_so():
    with pytest.raises(StudyError, match=r"PyTorch refuses OneCycleLR\(max_lr=0.1\): You must define"):
        optim.OneCycleLR(max_lr=0.1)
    with pytest.raises(StudyError, match=r"PyTorch refuses StepLR\(\)"):
        optim.StepLR()


def test_a_schedule_that_does_not_go_with_the_optimizer_is_refused():
    cycles = optim.CyclicLR(base_lr=0.1, max_lr=0.2)
    with pytest.raises(StudyError, match=r"PyTorch refuses CyclicLR\(.*\): optimizer must support momentum"):
        optim.Adagrad(lr=0.1, schedule=cycles)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match=r"torch.optim has no 'RMSProp'; did you mean 'RMSprop'\?"):
        _ = optim.RMSProp
    assert not hasattr(optim, "_private")


@pytest.mark.parametrize("setting", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(setting):
    with pytest.raises(StudyError, match=f"SGD needs numbers; got lr={setting}"):
        optim.SGD(lr=setting)
