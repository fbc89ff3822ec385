"""Vertical, horizontal and multi-task: three cities, two institutions in each, two studies that share them.

In each city a registry and a clinic hold other columns of the same people (NHANES 2017-18, dealt to three
cities). One centre knows who has diabetes, another who has high blood pressure (130 mmHg or more on average),
and only of those it has measured: rows are matched by id, and only people whom all know are trained on.

Shown: several parties in one role (registries hand their weights to the next registry, clinics to the next
clinic), a centre that serves all cities, and labels of one's own. Built by hand from roles and segments.
"""

import rich
import torch
from torch import nn

import cutlayer as cl
from cutlayer.data import Deal, Holdings, PartyData, Records, Source

COLUMNS = {"registry": ["DEMO.*"], "clinic": ["BMX.*", "HDL.*", "TCHOL.*"]}
CENTRES = ("diabetes", "pressure")


def deal(source: Source) -> Holdings:
    """Return the institutions of three cities and the two centres."""
    people = source.split(COLUMNS, rows=Deal(n=3), labels="diabetes")
    known = {}
    for split, pool in source.splits.items():
        systolic = pool.table.filter(like="Systolic").mean(axis=1)  # of three readings
        high = torch.tensor(systolic.to_numpy() >= 130).long()
        known[split] = Records(pool.ids, {"y": high}).select(systolic.notna().to_numpy().nonzero()[0])
    return Holdings((*people.parties, PartyData("pressure", "pressure", known)))


def split_graph(people: Holdings) -> cl.SplitGraph:
    """Return a bottom at each institution, a merge and a top at each centre."""
    torch.manual_seed(0)
    segments, losses = [], []
    for name in COLUMNS:
        columns = people.fields(name)["x"].shape[0]
        segments.append(cl.Segment(name, name, nn.Sequential(nn.Linear(columns, 16), nn.ReLU()), ("x",)))
    for name in CENTRES:
        segments.append(cl.Segment(f"merge-{name}", name, cl.Concat(), tuple(COLUMNS)))
        segments.append(cl.Segment(f"top-{name}", name, nn.Linear(32, 1), (f"merge-{name}",)))
        loss = cl.Loss(role=name, prediction=f"top-{name}", function=nn.BCEWithLogitsLoss(), name=name)
        losses.append(loss)
    return cl.SplitGraph.over(people, segments=segments, losses=losses, name="vertical_multi_task")


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    people = deal(cl.data.nhanes())
    print(people.table())
    study = cl.Study(
        graph=split_graph(people),
        schedule=cl.RoundRobin(turn=2),
        optimizer=cl.optim.AdamW(lr=0.003, weight_decay=0.1),
        epochs=2 if quick else 8,
        metrics=("auc", "loss"),
        name="hybrid_vertical_multi_task",
    )
    run = study.simulate(people)
    rich.print(run.summary())
    for name in CENTRES:
        print(f"{name}: AUC {run.metrics('test', name)['auc']:.3f}")
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(people))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
