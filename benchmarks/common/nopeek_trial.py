"""NoPeek on images: networks with it and without, what distance correlation and a decoder then tell, and the bars.

Distance correlation on the test images is squared, in batches as in training, which is biased upwards; that of permuted
pairs beside it, the same where nothing belongs together; in one batch of 1,000; bias-corrected there, squared and
Euclidean. The decoder has the worst case of Vepakomma et al. 2020: training images leaked with their activations. It is
judged by SSIM, by mean squared error and by a classifier that was trained on other images; a blind guess is the mean
of the leaked images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from measuring import Failures, Figures
from torch import Tensor, nn
from torch.nn import functional as F

import cutlayer as cl
from cutlayer.audit.learning import applied, fit, seeded
from cutlayer.audit.scores import (
    independent_classifier,
    leak_auc,
    reclassified,
    score_labels,
    structural_similarity,
)
from cutlayer.privacy import Noise
from cutlayer.privacy.distance import (
    corrected_distance_correlation,
    correlation_of,
    distance_correlation,
    distances,
    permuted,
)
from cutlayer.privacy.nopeek import NoPeek

from .kept_runs import Kept, mean, paired, standard_error
from .nopeek_shown import SHOWN, draw_images, packed, unpacked

__all__ = ["QUICK", "Data", "Trial", "failures_of", "measure", "network_of", "picture", "study_of"]

MAX_CORRELATION, MAX_LOST = 0.48, 1.0
JUDGED = 1_000
QUICK: Figures = {"rows": 640, "test": 100, "epochs": 1, "decoder_steps": 20}
"""What makes a trial quick."""

Data = dict[str, Tensor]
"""Images from 0 to 1 and labels, ``x_`` and ``y_`` of ``train``, ``test`` and, for the classifier, ``judge``."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A data set, the network for it, and how long it is trained and attacked.

    Attributes:
        name: The benchmark's.
        network: Makes it from a seed; the part ``first`` is the client's.
        decoder: Makes what turns activations into images.
        weights: NoPeek's, 0 first, which is without it.
        settings: Of training and attack; the names are those of the kept figures.
        classes: Of the labels. With two, balanced accuracy and AUC are told too, and AUC is what may not be lost.
        judge_steps: Batches on which the classifier is trained that judges reconstructions.
    """

    name: str
    network: Callable[[int], nn.Sequential]
    decoder: Callable[[], nn.Module]
    weights: tuple[float, ...]
    settings: Figures
    classes: int = 10
    judge_steps: int = 600

    @property
    def task(self) -> str:
        """The score that may not be lost."""
        return "auc" if self.classes == 2 else "accuracy"


def network_of(seed: int, first: Callable[[], nn.Module], rest: Callable[[], nn.Module]) -> nn.Sequential:
    """Return both parts, ``first`` and ``rest``, with weights that follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Sequential()
        made.add_module("first", first())
        made.add_module("rest", rest())
        return made


def study_of(
    people: cl.data.Holdings, made: nn.Sequential, weight: float, settings: Figures, seed: int
) -> cl.Study:
    """Return a study of one client with NoPeek, if its weight is not 0."""
    return cl.Study(
        graph=cl.vanilla(made, "first", clients=people),
        optimizer=cl.optim.Adam(lr=settings["rate"]),
        batch_size=settings["batch"],
        epochs=settings["epochs"],
        seed=seed,
        evaluate=(),
        defences=[NoPeek(weight=weight)] if weight else (),
    )


def measure(trial: Trial, data: Data, seeds: int, *, quick: bool) -> Figures:
    """Return all figures, by weight; each run is kept until all are there."""
    kept = Kept(trial.name, trial.settings, quick=quick)

    @cache
    def judge() -> nn.Module:
        steps = 20 if quick else trial.judge_steps
        return independent_classifier(data["x_judge"], data["y_judge"], trial.classes, 0, steps=steps)

    runs: dict[float, list[Figures]] = {weight: [] for weight in trial.weights}
    for seed in range(1 if quick else seeds):
        for weight in trial.weights:
            work = partial(train, trial, data, judge, weight, seed)
            one = kept.run(f"weight {weight} seed {seed}", work)
            runs[weight].append(one)
            names = (trial.task, "correlation", "corrected", "ssim", "reclassified")
            told = "  ".join(f"{name} {one[name]:.3f}" for name in names)
            print(f"seed {seed} weight {weight}  {told}  {one['seconds']} s", flush=True)
    kept.done()
    plain = runs[trial.weights[0]]
    if not quick:
        shown = {weight: unpacked(made[0]["shown"]) for weight, made in runs.items()}
        draw_images(trial.name, data["x_test"], shown)
    weights = {f"{weight:g}": summary(made, plain, trial.task) for weight, made in runs.items()}
    for name, one in weights.items():
        told = "  ".join(f"{what} {value:.3f}" for what, value in one["mean"].items())
        print(f"weight {name}: {told}")
    return {"weights": weights, "settings": trial.settings, "seeds": len(plain), "quick": quick}


def train(trial: Trial, data: Data, judge: Callable[[], nn.Module], weight: float, seed: int) -> Figures:
    """Return what one run comes to; ``judge`` gives the classifier of reconstructions."""
    run, head = trained(trial, data, weight, seed)
    guess = torch.as_tensor(run.predict(data["x_test"], batch_size=500))
    return {
        **task_scores(guess, data["y_test"]),
        **correlations(data["x_test"], applied(head, data["x_test"]), trial.settings["batch"]),
        **decoded(trial, data, head, judge(), seed),
    }


def trained(trial: Trial, data: Data, weight: float, seed: int) -> tuple[cl.Run, nn.Module]:
    """Return a run and the client's trained part."""
    people = cl.data.arrays(data["x_train"], data["y_train"]).split_rows(1)
    study = study_of(people, trial.network(seed), weight, trial.settings, seed)
    run = study.simulate(people)
    head = copy.deepcopy(study.graph.segments["head"].module)
    head.load_state_dict(run.weights()["head"])
    return run, head.eval()


def task_scores(guess: Tensor, labels: Tensor) -> Figures:
    """Return accuracy of scores of classes [N, C] in percent; of two classes, balanced accuracy and AUC too."""
    found = score_labels(guess.argmax(1), None, labels)
    told = {"accuracy": 100 * found["label_accuracy"]}
    if guess.shape[1] == 2:
        told["balanced_accuracy"] = 100 * found["balanced_accuracy"]
        told["auc"] = 100 * (leak_auc(guess[:, 1] - guess[:, 0], labels, positive=1) or 0.0)
    return told


def correlations(x: Tensor, z: Tensor, batch: int) -> Figures:
    """Return what distance correlation tells of images and their activations."""
    noise, biased, by_chance = Noise(b"the order does not matter", "nopeek"), [], []
    for rows, sent in zip(torch.split(x, batch), torch.split(z, batch), strict=True):
        a, b = distances(rows, "squared"), distances(sent, "squared")
        biased.append(float(correlation_of(a, b)))
        by_chance.append(float(correlation_of(a, permuted(b, noise.permutation(len(b))))))
    rows, sent = x[:1000], z[:1000]
    return {
        "correlation": mean(biased),
        "correlation_permuted": mean(by_chance),
        "correlation_1000": float(distance_correlation(rows, sent, "squared")),
        "corrected": float(corrected_distance_correlation(rows, sent, "squared")),
        "corrected_euclidean": float(corrected_distance_correlation(rows, sent)),
    }


def learnt_decoder(trial: Trial, data: Data, head: nn.Module, seed: int) -> nn.Module:
    """Return a decoder that learnt from the first training images and their activations."""
    leaked = data["x_train"][: trial.settings["leaked"]]
    with seeded(seed, "leaked pairs"):
        decoder = trial.decoder()
        return fit(decoder, applied(head, leaked), leaked, F.mse_loss, steps=trial.settings["decoder_steps"])


def decoded(trial: Trial, data: Data, head: nn.Module, judge: nn.Module, seed: int) -> Figures:
    """Return how well a decoder with leaked pairs makes images of activations."""
    decoder = learnt_decoder(trial, data, head, seed)
    truth, labels = data["x_test"][:JUDGED], data["y_test"][:JUDGED]
    guess = applied(decoder, applied(head, truth))
    blind = data["x_train"][: trial.settings["leaked"]].mean(0, keepdim=True).expand_as(truth).contiguous()
    found = {
        "ssim": structural_similarity(guess, truth, 0.0, 1.0),
        "mse": float((guess - truth).square().mean()),
        "reclassified": 100 * reclassified(judge, guess, labels),
        "ssim_blind": structural_similarity(blind, truth, 0.0, 1.0),
        "reclassified_original": 100 * reclassified(judge, truth, labels),
        "shown": packed(guess[:SHOWN]),
    }
    if trial.classes == 2:
        for name, images in (("", guess), ("_original", truth)):
            found[f"reclassified_auc{name}"] = task_scores(applied(judge, images), labels)["auc"]
    return found


def picture(trial: Trial, data: Data) -> None:
    """Draw what decoders of seed 0 make of test images, by NoPeek's weight; trained for it alone."""
    made = {}
    for weight in trial.weights:
        _, head = trained(trial, data, weight, 0)
        made[weight] = applied(learnt_decoder(trial, data, head, 0), applied(head, data["x_test"][:SHOWN]))
    draw_images(trial.name, data["x_test"], made)


def summary(runs: list[Figures], plain: list[Figures], task: str) -> Figures:
    """Return one weight's figures over the seeds, and how much of ``task`` is lost beside those without NoPeek."""
    told = [name for name in runs[0] if name not in ("seconds", "shown")]
    return {
        "mean": {name: mean([one[name] for one in runs]) for name in told},
        "standard_error": {name: standard_error([one[name] for one in runs]) for name in told},
        "points_lost": paired([one[task] for one in plain], [one[task] for one in runs]),
        "seconds": [one["seconds"] for one in runs],
    }


def failures_of(figures: Figures, least_factor: float = 1.0) -> Failures:
    """Return which bars no weight reaches, in words: distance correlation for points lost, and the decoder's SSIM.

    SSIM is what is beyond a blind guess, of the weights that reach the first bar; of all if none does. Without NoPeek
    it must be more than ``least_factor`` times as much.
    """
    plain, *defended = figures["weights"].values()
    found = []
    good = [
        one
        for one in defended
        if one["mean"]["correlation"] <= MAX_CORRELATION and one["points_lost"]["mean"] <= MAX_LOST
    ]
    if not good:
        told = "; ".join(
            f"{o['mean']['correlation']:.3f} for {o['points_lost']['mean']:.2f}" for o in defended
        )
        found.append(f"distance correlation for points lost: {told}")
    before, *after = (one["mean"]["ssim"] - one["mean"]["ssim_blind"] for one in (plain, *(good or defended)))
    if before <= least_factor * min(after):
        least = min(after)
        found.append(f"the decoder's SSIM is {before:.3f} beyond a blind guess, {least:.3f} with NoPeek")
    return found
