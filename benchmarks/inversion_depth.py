"""Inversion of activations on MNIST, by the depth of the cut.

LeNet-5 with ReLU (6 and 16 channels, linear layers of 120, 84 and 10), one client with the first 6,000 training images,
two epochs of Adam with 0.001 in batches of 64; cut after each of five of its layers. The server sees the activations
of 100 test images at the end of training. Two attacks of He, Zhang and Lee 2019: the white box, which has the client's
trained segment (250 steps of Adam with 0.05, total variation 0.01), and a decoder, which may ask it about the last
3,000 training images, which the client has not (200 batches of 64). A blind guess is the mean of these. Images are from
0 to 1; SSIM has a uniform window of 7 pixels; the classifier that judges reconstructions was trained on 3,000 images
that are nobody else's. Seeds differ in initial weights, in the order of rows and in the attacks' own random numbers.

Each run is kept, so that what was interrupted goes on where it was; about 10 minutes on one core.

    python benchmarks/inversion_depth.py --mnist mnist63k.npz
    python benchmarks/inversion_depth.py --mnist mnist63k.npz --picture    # the picture beside the results

Ends with 1 if the white box's SSIM after the first convolution is below 0.98, if it is anywhere above that of the layer
before by more than 0.02, or if it has fallen by less than 0.2 at the last; or if an attack is no better than a blind
guess after the first convolution.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from functools import partial
from typing import TYPE_CHECKING

import measuring
import numpy as np
import torch
from common import real_images
from common.drawing import draw
from common.kept_runs import RESULTS, Kept, mean, standard_error
from torch import Tensor, nn

import cutlayer as cl
from cutlayer.audit import Attack, Guess, Knowledge, Transcript, Truth, together, watch
from cutlayer.audit.decoding import Decoding
from cutlayer.audit.inversion import Inversion
from cutlayer.audit.scores import independent_classifier, score_inputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "inversion_depth"
CUTS = ("conv1", "pool1", "conv2", "pool2", "fc1")
ROWS, TEST, PUBLIC, BATCH, EPOCHS, RATE = 6_000, 100, 3_000, 64, 2, 1e-3
STEPS, DECODER_STEPS = 250, 200
MIN_FIRST, MAX_RISE, MIN_FALL = 0.98, 0.02, 0.2
SHOWN = 10

Data = dict[str, Tensor]


def mnist(asked: argparse.Namespace, rows: int, test: int, public: int) -> Data:
    """Return images from 0 to 1 and labels: the client's, those that are predicted, public ones, and the judge's."""
    if asked.mnist is None:
        sys.exit("give --mnist PATH or set CUTLAYER_MNIST; see benchmarks/README.md")
    with np.load(asked.mnist, allow_pickle=False) as content:
        x, y, x_test, y_test = (content[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    parts = {
        "train": (x[:rows], y[:rows]),
        "test": (x_test[:test], y_test[:test]),
        "public": (x[-public:], y[-public:]),
        "judge": (x[rows : rows + public], y[rows : rows + public]),
    }
    found = {}
    for name, (images, labels) in parts.items():
        found[f"x_{name}"] = torch.from_numpy(images).float()[:, None] / 255
        found[f"y_{name}"] = torch.from_numpy(labels.astype(np.int64))
    return found


def seen_at(
    data: Data, cut: str, seed: int, epochs: int
) -> tuple[Transcript, Truth, nn.Module, dict[str, float]]:
    """Return what the server saw of the test images, the truth, the client's trained segment, and the metrics."""
    people = cl.data.arrays(data["x_train"], data["y_train"], data["x_test"], data["y_test"]).split_rows(1)
    graph = cl.vanilla(cl.networks.lenet(channels=1, seed=seed), cut, clients=people)
    study = cl.Study(
        graph=graph, optimizer=cl.optim.Adam(lr=RATE), batch_size=BATCH, epochs=epochs, seed=seed
    )
    transcript, watching = watch("server", most=len(data["x_test"]))
    truth = Truth(people, transcript)
    run = study.simulate(people, instead=together(watching, truth.instead))
    head = graph.segments["head"].module
    head.load_state_dict(run.weights()["head"])
    return transcript.only(training=False), truth, head, run.metrics()


def attacked(
    data: Data, judge: nn.Module, cut: str, seed: int, epochs: int, attacks: dict[str, Attack]
) -> measuring.Figures:
    """Return the scores of each attack, and of the blind guess, at one cut."""
    seen, truth, head, metrics = seen_at(data, cut, seed, epochs)
    known = Knowledge(shape=(1, 28, 28), low=0, high=1, client=head, public_x=data["x_public"])
    sights = seen.sights("activation")
    x, y = truth.rows(sights, "x"), truth.rows(sights, "y")

    def scored(guess: Guess) -> dict[str, float]:
        if guess.inputs is None:
            raise TypeError("these attacks are after inputs")
        return score_inputs(guess.inputs, x[guess.at], low=0, high=1, labels=y[guess.at], judge=judge)

    found: measuring.Figures = {}
    for name, attack in attacks.items():
        guess = attack.guess(seen, known, seed)
        found[name] = scored(guess)
        found["blind"] = scored(attack.blind(guess, known, seed))
    return {"scores": found, "accuracy": 100 * metrics["accuracy"], "numbers": sights[0].rows[0].numel()}


def attacks_of(quick: bool) -> dict[str, Attack]:
    """Return the attacks by the names that they have in the figures."""
    return {
        "white box": Inversion(steps=5 if quick else STEPS, rows=TEST),
        "decoder": Decoding(steps=5 if quick else DECODER_STEPS, rows=TEST),
    }


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return scores by cut."""
    rows, test, public, epochs = (640, 20, 200, 1) if asked.quick else (ROWS, TEST, PUBLIC, EPOCHS)
    attacks = attacks_of(asked.quick)
    settings: measuring.Figures = {
        "rows": rows,
        "test": test,
        "public": public,
        "batch": BATCH,
        "epochs": epochs,
        "rate": RATE,
    }
    settings |= {name: str(attack) for name, attack in attacks.items()}
    data = mnist(asked, rows, test, public)
    judge = independent_classifier(data["x_judge"], data["y_judge"], 10, 0, steps=20 if asked.quick else 300)
    kept = Kept(NAME, settings, quick=asked.quick)
    seeds = range(1 if asked.quick else asked.seeds)
    runs: dict[str, list[measuring.Figures]] = {cut: [] for cut in CUTS}
    for seed in seeds:
        for cut in CUTS:
            work = partial(attacked, data, judge, cut, seed, epochs, attacks)
            one = kept.run(f"{cut} seed {seed}", work)
            runs[cut].append(one)
            told = "  ".join(f"{name} {scores['ssim']:.3f}" for name, scores in one["scores"].items())
            print(f"seed {seed}  {cut:6} SSIM: {told}  {one['seconds']} s", flush=True)
    kept.done()
    cuts = {cut: summary(made) for cut, made in runs.items()}
    return {"cuts": cuts, "settings": settings, "seeds": len(seeds), "quick": asked.quick}


def summary(runs: list[measuring.Figures]) -> measuring.Figures:
    """Return one cut's figures over the seeds."""
    found: measuring.Figures = {
        "numbers": runs[0]["numbers"],
        "accuracy": mean([r["accuracy"] for r in runs]),
    }
    for who in runs[0]["scores"]:
        values = {score: [run["scores"][who][score] for run in runs] for score in runs[0]["scores"][who]}
        found[who] = {
            "mean": {score: mean(each) for score, each in values.items()},
            "standard_error": {score: standard_error(each) for score, each in values.items()},
        }
    return found


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    if figures["quick"]:
        return []
    ssim = {cut: one["white box"]["mean"]["ssim"] for cut, one in figures["cuts"].items()}
    cuts = list(ssim)
    first, last = cuts[0], cuts[-1]
    found = []
    if ssim[first] < MIN_FIRST:
        found.append(f"SSIM after {first} is {ssim[first]:.3f}")
    for before, cut in itertools.pairwise(cuts):
        if ssim[cut] > ssim[before] + MAX_RISE:
            found.append(f"SSIM after {cut} is {ssim[cut]:.3f}, after {before} {ssim[before]:.3f}")
    if ssim[first] - ssim[last] < MIN_FALL:
        found.append(f"SSIM falls only from {ssim[first]:.3f} to {ssim[last]:.3f}")
    for who in ("white box", "decoder"):
        one = figures["cuts"][first]
        if one[who]["mean"]["ssim"] <= one["blind"]["mean"]["ssim"]:
            found.append(f"{who} is no better than a blind guess after {first}")
    return found


def picture(asked: argparse.Namespace) -> None:
    """Write originals and reconstructions of the first seed, a line for each cut and attack."""
    data = mnist(asked, ROWS, SHOWN, PUBLIC)
    shown: list[tuple[str, Tensor]] = []
    for cut in CUTS:
        seen, truth, head, _ = seen_at(data, cut, 0, EPOCHS)
        known = Knowledge(shape=(1, 28, 28), low=0, high=1, client=head, public_x=data["x_public"])
        if not shown:
            shown = 2 * [("original", truth.rows(seen.sights("activation"), "x"))]
        for name, attack in attacks_of(False).items():
            guess = attack.guess(seen, known, 0)
            if guess.inputs is not None:
                shown.append((f"{cut}, {name}", guess.inputs))
    draw_pairs(shown)


def draw_pairs(shown: list[tuple[str, Tensor]]) -> None:
    """Draw rows of images [N, 1, H, W] with their titles, two side by side."""

    def panel(axes: list[Axes]) -> None:
        for axis, (title, images) in zip(axes, shown, strict=True):
            side_by_side = torch.cat(list(images[:, 0]), dim=1).numpy()
            axis.imshow(side_by_side, cmap="gray", vmin=0, vmax=1, interpolation="none")
            axis.set_title(title, fontsize=8)
            axis.set_axis_off()

    height = 0.55 * len(shown) / 2
    draw(RESULTS / f"{NAME}.svg", panel, width=7.0, height=height, columns=2, rows=len(shown) // 2)


def main() -> int:
    """Train, attack, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    real_images.wanted(parser, "mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--picture", action="store_true", help="only draw what the attacks make of ten images"
    )
    asked = parser.parse_args()
    measuring.one_thread()
    if asked.picture:
        picture(asked)
        return 0
    figures = measure(asked)
    for cut, one in figures["cuts"].items():
        told = "  ".join(
            f"{who} {one[who]['mean']['ssim']:.3f}/{one[who]['mean']['psnr_db']:.1f} dB"
            for who in ("white box", "decoder", "blind")
        )
        print(f"{cut:6} {one['numbers']:5} numbers a row  {told}")
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
