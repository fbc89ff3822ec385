"""Randomness is derived from the study's seed, the segment and the step, and leaves the caller's alone."""

import torch
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl


class Jitter(nn.Module):
    """Augmentation as a layer: in training, noise on each row and a random order of the columns."""

    def forward(self, x):
        if not self.training:
            return x
        return (x + 0.1 * torch.randn_like(x))[:, torch.randperm(x.shape[1])]


def graph_over(people):
    head = nn.Sequential(Jitter(), nn.Linear(6, 8), nn.ReLU())
    top = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 3))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in (head[1], top[1]):
            layer.reset_parameters()
    return cl.SplitGraph.over(
        people,
        segments=[cl.Segment("head", "client", head, ("x",)), cl.Segment("top", "server", top, ("head",))],
        losses=[cl.Loss(role="server", prediction="top")],
        shares=[cl.Share("y", "client", "server")],
    )


def test_augmentation_and_dropout_are_the_same_in_the_uncut_network():
    people = pooled()[0].split_rows(3)
    study = study_of(graph_over(people), epochs=3)
    run = study.simulate(people)
    assert run.equals(study.central(people))
    assert not study_of(graph_over(people), epochs=3, seed=8).simulate(people).equals(study.central(people))


def test_what_the_caller_drew_before_makes_no_difference_and_goes_on_as_if_nothing_happened():
    people = pooled()[0].split_rows(2)
    study = study_of(graph_over(people))
    torch.manual_seed(1)
    first = study.simulate(people).weights()
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(99)
    second = study.simulate(people).weights()
    assert all(torch.equal(first[s][n], t) for s, state in second.items() for n, t in state.items())
