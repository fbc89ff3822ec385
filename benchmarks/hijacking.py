"""A dishonest server on MNIST: what it gets of an unwatched client, and when the client's alarms notice it.

The client has two convolutions of 16 channels with stride 2 (784 values a row cross), the server a third and a linear
layer. 12,800 private images, batches of 64, Adam at 0.001 at both sides. The server has 10,000 other images of the same
kind; feature-space hijacking with a critic (WGAN-GP), networks of 16 channels, Adam at 0.001, two steps of
the critic a batch.

- Unwatched, over three seeds: SSIM (window of 7, pixels from 0 to 1) and mean squared error of what the server makes of
  200 private images, after 125 to 1,000 steps; beside it the mean of its own images, a blind guess, and, for one seed,
  a server with the same networks that sends the honest gradient. Whether a classifier of another kind finds the digit.
- Watched, over 20 seeds for each alarm: the step at which SplitGuard and Gradients Scrutinizer stop the client, and
  what the server has by then. Every other server has the classifier of the paper's equations in place of the critic.
- Honest, over 20 seeds: 2,000 steps with both alarms, half of the seeds with Adam, half with SGD at 0.05 and momentum.
  Three of them without alarms show what SplitGuard's wrong labels cost.
- Hiding: the server mixes in the gradient of the task; what it gets in 1,000 steps, and which alarm notices by then.

The alarms' thresholds were chosen on digits of scikit-learn and the breast-cancer table, with other networks and seeds.
Each run is kept, so that what was interrupted goes on where it was; about 30 minutes on one core.

    python benchmarks/hijacking.py --mnist mnist63k.npz
    python benchmarks/hijacking.py --table      # writes the tables into docs/alarms.md

Ends with 1 if the mean SSIM after 1,000 steps is below 0.5 or less than 0.3 above the honest server's, if an alarm does
not notice within 2,000 steps, or if there is an alarm in an honest run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import measuring
import numpy as np
import torch
from common import real_images
from common.hijacking_shown import picture, tables
from common.kept_runs import RESULTS, Kept, mean, spread
from common.pages import put
from torch import Tensor, nn

import cutlayer as cl
from cutlayer.audit import together
from cutlayer.audit.hijacking import Hijacker, Hijacking
from cutlayer.audit.scores import (
    independent_classifier,
    mean_squared_error,
    reclassified,
    structural_similarity,
)
from cutlayer.errors import AlarmError
from cutlayer.metering.events import Defended
from cutlayer.privacy.scrutinizer import Scrutinizer
from cutlayer.privacy.splitguard import SplitGuard
from cutlayer.runtime.party import LocalParty, Runner
from cutlayer.schedules.actions import Action, Op

NAME = "hijacking"
ROWS, PUBLIC, BATCH, SHOWN = 12_800, 10_000, 64, 200
STEPS, WATCHED = 1_000, 2_000
SEEDS, ALARM_SEEDS = 3, 20
MARKS = (125, 250, 500)
MIN_SSIM, MIN_ABOVE_HONEST = 0.5, 0.3
ALARMS: dict[str, SplitGuard | Scrutinizer] = {
    "SplitGuard": SplitGuard(),
    "Gradients Scrutinizer": Scrutinizer(),
}
ADAM, SGD = cl.optim.Adam(lr=1e-3), cl.optim.SGD(lr=0.05, momentum=0.9)
SHARES = (0.1, 0.25, 0.5)
"""Of the task's gradient in what a server sends that hides."""


class Data:
    """Private images of a seed, the server's own, and those held out."""

    def __init__(self, path: Path | None, *, quick: bool) -> None:
        if path is None:
            sys.exit("give --mnist PATH or set CUTLAYER_MNIST; see benchmarks/README.md")
        with np.load(path, allow_pickle=False) as content:
            self._x, self._y = (
                _images(content["x_train"]),
                torch.from_numpy(content["y_train"].astype(np.int64)),
            )
            self._test = _images(content["x_test"]), torch.from_numpy(content["y_test"].astype(np.int64))
        self.rows = BATCH * 10 if quick else ROWS
        self.public = self._x[-PUBLIC:]
        self.judge = independent_classifier(self.public, self._y[-PUBLIC:], 10, 0, steps=20 if quick else 600)

    def private(self, seed: int) -> tuple[Tensor, Tensor]:
        """Return the private rows of a seed; none of them is the server's."""
        first = seed * 1_500 % (len(self._x) - PUBLIC - self.rows)
        return self._x[first : first + self.rows], self._y[first : first + self.rows]

    def people(self, seed: int) -> cl.data.Holdings:
        """Return them in the hands of one client."""
        rows = [*self.private(seed), *(rows[:1_000] for rows in self._test)]
        return cl.data.arrays(*(part.numpy() for part in rows)).split_rows(1)


class Opened:
    """What the server makes of private images now and then: the auditor's look over its shoulder.

    Args:
        hijacker: The server.
        data: Whose images are shown to it.
        seed: Which of them are the client's.
        marks: Before which steps to look.
    """

    def __init__(self, hijacker: Hijacker, data: Data, seed: int, marks: tuple[int, ...] = ()) -> None:
        self._hijacker, self._data, self._marks = hijacker, data, marks
        self._x, self._y = (rows[:SHOWN] for rows in data.private(seed))
        self._client: LocalParty | None = None
        self.found: dict[int, measuring.Figures] = {}
        self.pictures: dict[int, Tensor] = {}

    def __call__(self, party: LocalParty, action: Action, honest: Runner) -> Runner:
        """Look before the client sends the batch of a marked step."""
        if action.op is not Op.SEND or party.role != "client":
            return honest
        self._client = party

        def run(step: int, what: str) -> None:
            if step in self._marks:
                self.look(step)
            honest(step, what)

        return run

    def look(self, step: int) -> measuring.Figures:
        """Return scores of what the server makes of the images after ``step`` steps."""
        client = self._client.live["head"].module if self._client else nn.Identity()
        with torch.no_grad():
            guess = self._hijacker.reconstruct(client(self._x))
        self.pictures[step] = guess[:10]
        self.found[step] = scores(guess, self._x, self._y, self._data.judge)
        return self.found[step]


class Onlooker(Hijacker):
    """A server with the same networks, trained as long, that sends the honest gradient all the same."""

    def __call__(self, party: LocalParty, action: Action, honest: Runner) -> Runner:
        """Learn from what came, and send what is due."""

        def neither(step: int, what: str) -> None:
            """Send nothing."""

        learn = super().__call__(party, action, neither)
        if learn is neither:
            return honest

        def run(step: int, what: str) -> None:
            flight = party.flight(step)
            due = dict(flight.gradients)
            learn(step, what)
            flight.gradients.clear()
            flight.gradients.update(due)
            honest(step, what)

        return run


def scores(guess: Tensor, truth: Tensor, labels: Tensor, judge: nn.Module) -> measuring.Figures:
    """Return how near a guess is to the images."""
    return {
        "ssim": structural_similarity(guess, truth, 0.0, 1.0),
        "mse": mean_squared_error(guess, truth),
        "digit_found": 100 * reclassified(judge, guess, labels),
    }


def study(
    people: cl.data.Holdings,
    seed: int,
    steps: int,
    *defences: cl.privacy.Defence,
    optimizer: cl.optim.OptimizerSpec = ADAM,
) -> cl.Study:
    """Return the study of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = [nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU()]
        second = [nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU()]
        rest = [nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)]
        model = nn.Sequential(nn.Sequential(*first, *second), nn.Sequential(*rest))
    rows = len(people.parties[0].splits["train"])
    return cl.Study(
        graph=cl.vanilla(model, "0", clients=people),
        optimizer=optimizer,
        batch_size=BATCH,
        epochs=-(-steps // (rows // BATCH)),
        seed=seed,
        drop_last=True,
        evaluate=("test",),
        defences=list(defences),
    )


def epochs_seen(run: cl.Run) -> list[tuple[str, float]]:
    """Return each epoch's mean score of each alarm."""
    told = [event for event in run.events if isinstance(event, Defended) and "score" in event.facts]
    return [(event.defence.partition(":")[0], event.facts["score"]) for event in told]


def unwatched(
    data: Data, seed: int, steps: int, made: type[Hijacker], how: Hijacking
) -> tuple[measuring.Figures, Opened]:
    """Return what a server gets of a client without alarms, and the look over its shoulder."""
    hijacker = made(data.public, how)
    opened = Opened(hijacker, data, seed, tuple(mark for mark in MARKS if mark < steps))
    people = data.people(seed)
    run = study(people, seed, steps).simulate(people, instead=together(hijacker, opened))
    opened.look(hijacker.steps)
    found = {str(step): figures for step, figures in opened.found.items()}
    return {"after": found, "accuracy": 100 * run.metrics("test")["accuracy"]}, opened


def watched(data: Data, seed: int, alarm: str, how: Hijacking, steps: int) -> measuring.Figures:
    """Return the step at which an alarm stops a client, and what the server has by then; no step if it does not."""
    hijacker = Hijacker(data.public, how)
    opened, people = Opened(hijacker, data, seed), data.people(seed)
    step = None
    try:
        study(people, seed, steps, ALARMS[alarm]).simulate(people, instead=together(hijacker, opened))
    except AlarmError as error:
        step = error.step
    return {"step": step, **opened.look(hijacker.steps)}


def honest(data: Data, seed: int, steps: int, *, alarms: bool = True) -> measuring.Figures:
    """Return whether there is an alarm with an honest server, and how the task is learnt."""
    people, optimizer = data.people(seed), SGD if seed % 2 else ADAM
    defences = tuple(ALARMS.values()) if alarms else ()
    try:
        run = study(people, seed, steps, *defences, optimizer=optimizer).simulate(people)
    except AlarmError as error:
        return {"alarm": str(error), "accuracy": 0.0, "least": {}}
    told = epochs_seen(run)
    least = {word: min(score for found, score in told if found == word) for word in dict(told)}
    return {"alarm": "", "accuracy": 100 * run.metrics("test")["accuracy"], "least": least}


def blind(data: Data, seed: int) -> measuring.Figures:
    """Return scores of the mean of the server's own images."""
    x, y = (rows[:SHOWN] for rows in data.private(seed))
    return scores(data.public.mean(0).expand_as(x), x, y, data.judge)


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return what servers get and when alarms notice."""
    data = Data(asked.mnist, quick=asked.quick)
    steps, longer = (20, 20) if asked.quick else (STEPS, WATCHED)
    seeds, alarm_seeds = (1, 1) if asked.quick else (SEEDS, ALARM_SEEDS)
    kept = Kept(
        NAME,
        {"rows": data.rows, "public": PUBLIC, "batch": BATCH, "steps": [steps, longer]},
        quick=asked.quick,
    )

    def run(name: str, work: Callable[[], measuring.Figures]) -> measuring.Figures:
        found = kept.run(name, work)
        print(f"{name:45} {shown(found)}", flush=True)
        return found

    def hijacked(seed: int, made: type[Hijacker], how: Hijacking, drawn: str = "") -> measuring.Figures:
        figures, opened = unwatched(data, seed, steps, made, how)
        if drawn and not asked.quick:
            np.savez_compressed(
                RESULTS / f"{NAME}.partial.{drawn}.npz", **{str(k): v for k, v in opened.pictures.items()}
            )
        return figures

    names = {"hijacked": Hijacker, "honest": Onlooker}
    found: dict[str, list[measuring.Figures]] = {name: [] for name in ("blind", *names)}
    for seed in range(seeds):
        found["blind"].append(run(f"blind, seed {seed}", partial(blind, data, seed)))
        for name, made in list(names.items())[: 1 if seed else 2]:  # one honest server will do
            drawn = "" if seed else name
            found[name].append(
                run(
                    f"{name}, seed {seed}",
                    partial(hijacked, seed, made, Hijacking(seed=seed, critic_steps=2), drawn),
                )
            )
    stopped: dict[str, list[measuring.Figures]] = {alarm: [] for alarm in ALARMS}
    for seed in range(alarm_seeds):
        how = Hijacking(seed=seed, wasserstein=seed % 2 == 0, critic_steps=2)
        for alarm in ALARMS:
            stopped[alarm].append(
                run(f"{alarm}, seed {seed}", partial(watched, data, seed, alarm, how, longer))
            )
    quiet = [
        run(f"honest with alarms, seed {n}", partial(honest, data, n, longer)) for n in range(alarm_seeds)
    ]
    plain = [
        run(f"honest without, seed {n}", partial(honest, data, n, longer, alarms=False)) for n in range(seeds)
    ]
    hiding = {}
    for share in SHARES[: 1 if asked.quick else None]:
        how = Hijacking(task=share, critic_steps=2)
        alone = run(f"hiding {share:g}", partial(hijacked, 0, Hijacker, how))
        seen = {
            a: run(f"hiding {share:g}, {a}", partial(watched, data, 0, a, how, steps))["step"] for a in ALARMS
        }
        hiding[f"{share:g}"] = {**_last(alone), "accuracy": alone["accuracy"], "noticed": seen}
    kept.done()
    return {
        "unwatched": {name: over_seeds(runs) for name, runs in found.items()},
        "alarms": {alarm: noticed(runs) for alarm, runs in stopped.items()},
        "honest": quietness(quiet, plain),
        "hiding": hiding,
        "steps": steps,
        "quick": asked.quick,
    }


def shown(figures: measuring.Figures) -> str:
    """Return a run's figures in short."""
    last = _last(figures)
    words = [f"SSIM {last['ssim']:.2f}"] if "ssim" in last else []
    words += [f"alarm at {figures['step']}"] if "step" in figures else []
    words += [figures["alarm"] or "no alarm"] if "alarm" in figures else []
    words += [f"accuracy {figures['accuracy']:.1f} %"] if "accuracy" in figures else []
    return ", ".join([*words, f"{figures['seconds']:.0f} s"])


def _last(figures: measuring.Figures) -> measuring.Figures:
    after: dict[str, measuring.Figures] = figures.get("after", {})
    return list(after.values())[-1] if after else figures


def over_seeds(runs: list[measuring.Figures]) -> measuring.Figures:
    """Return means and deviations of what was got in the end, and the mean SSIM on the way."""
    made = {
        key: {
            "mean": mean([_last(run)[key] for run in runs]),
            "deviation": spread([_last(run)[key] for run in runs]),
        }
        for key in ("ssim", "mse", "digit_found")
    }
    if "after" in runs[0]:
        made["ssim_after"] = {
            mark: mean([run["after"][mark]["ssim"] for run in runs]) for mark in runs[0]["after"]
        }
        made["accuracy"] = {"mean": mean([run["accuracy"] for run in runs])}
    return made


def noticed(runs: list[measuring.Figures]) -> measuring.Figures:
    """Return how many of the hijacked runs an alarm stopped, and when."""
    steps = sorted(run["step"] for run in runs if run["step"] is not None)
    return {
        "runs": len(runs), "noticed": len(steps), "steps": steps,
        "median": steps[len(steps) // 2] if steps else None, "latest": steps[-1] if steps else None,
        "ssim_by_then": mean([run["ssim"] for run in runs]),
        "digit_found_by_then": mean([run["digit_found"] for run in runs]),
    }  # fmt: skip


def quietness(quiet: list[measuring.Figures], plain: list[measuring.Figures]) -> measuring.Figures:
    """Return false alarms, the least scores, and what SplitGuard costs."""
    least = [run["least"] for run in quiet if run["least"]]
    cost = [without["accuracy"] - run["accuracy"] for run, without in zip(quiet, plain, strict=False)]
    return {
        "runs": len(quiet),
        "alarms": [run["alarm"] for run in quiet if run["alarm"]],
        "least_of_an_epoch": {word: min(one[word] for one in least) for word in (least[0] if least else {})},
        "accuracy": mean([run["accuracy"] for run in quiet]),
        "points_lost": {"mean": mean(cost), "each": cost},
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    if figures["quick"]:
        return []
    got, honest_got = (figures["unwatched"][name]["ssim"]["mean"] for name in ("hijacked", "honest"))
    found = []
    if got < MIN_SSIM or got - honest_got < MIN_ABOVE_HONEST:
        found.append(f"the hijacker's SSIM is {got:.2f}, an honest server's {honest_got:.2f}")
    for alarm, one in figures["alarms"].items():
        if one["noticed"] < one["runs"] or one["latest"] > WATCHED:
            found.append(
                f"{alarm} noticed {one['noticed']} of {one['runs']} hijacked runs within {WATCHED} steps"
            )
    if figures["honest"]["alarms"]:
        found.append(
            f"{len(figures['honest']['alarms'])} of {figures['honest']['runs']} honest runs had an alarm"
        )
    return found


def pictures(data: Data) -> dict[str, np.ndarray]:
    """Return ten private images and what each server made of them, which the first seed's runs left behind."""
    rows = {"private": data.private(0)[0][:10].numpy()}
    for name in ("honest", "hijacked"):
        with np.load(RESULTS / f"{NAME}.partial.{name}.npz", allow_pickle=False) as content:
            for step in content.files if name == "hijacked" else content.files[-1:]:
                rows[f"{name}, {step} steps"] = content[step]
    return rows


def _images(pixels: np.ndarray) -> Tensor:
    """Return uint8 images [N, 28, 28] as float32 [N, 1, 28, 28] from 0 to 1."""
    return torch.from_numpy(pixels[:, None].astype(np.float32) / 255)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    real_images.wanted(parser, "mnist")
    parser.add_argument("--table", action="store_true", help="only write the tables, from the results")
    asked = parser.parse_args()
    if asked.table:
        figures = json.loads((RESULTS / f"{NAME}.json").read_text())["figures"]
        for name, text in tables(figures).items():
            put("alarms.md", name, text)
        return 0
    measuring.one_thread()
    figures = measure(asked)
    if not asked.quick:
        picture(NAME, pictures(Data(asked.mnist, quick=True)))
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
