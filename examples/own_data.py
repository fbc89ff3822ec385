"""Data of your own: a CSV file with ids, categories and gaps, divided by the hospital that each row names.

Three hospitals hold the records of their own patients, with diagnoses; a server holds most of the network
and, because the study is U-shaped, sees no diagnosis. The file is written here from NHANES 2017-18, which
names no hospitals: young, middle-aged and old people are given to one each, so the hospitals differ a lot.

Shown: reading a CSV file; numbers, categories and gaps prepared alike at all hospitals; validation and
test rows; training that stops when validation no longer improves and keeps the best epoch.
"""

import tempfile
from pathlib import Path

import pandas as pd
import rich
import torch
from torch import nn

import cutlayer as cl

COLUMNS = [
    "AgeInYearsAtScreening", "Gender", "MaritalStatus", "RatioOfFamilyIncomeToPoverty", "BodyMassIndexKgm2",
    "WaistCircumferenceCm", "DirectHdlcholesterolMgdl", "GeneralHealthCondition",
]  # fmt: skip


def write_csv(path: Path) -> None:
    """Write the file that you would have."""
    people = cl.data.nhanes(test=0).splits["train"]
    table = people.table.rename(columns=lambda name: name.partition(".")[2])[COLUMNS]
    hospital = pd.cut(table["AgeInYearsAtScreening"], [0, 40, 60, 120], labels=["north", "east", "west"])
    diabetes = pd.Series(people.fields["y"].numpy()).map({0: "no", 1: "yes"})
    table.assign(patient=people.ids, hospital=hospital, diabetes=diabetes).to_csv(path, index=False)


def main(quick: bool = False) -> cl.Run:
    """Read, divide, train, and return the run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patients.csv"
        write_csv(path)
        source = cl.data.csv(path, id="patient", label="diabetes").hold_out(test=0.2, valid=0.2)
    hospitals = source.split_rows(by="hospital")
    print(hospitals.table())
    prepared = hospitals.parties[0].preparation
    print(f"{len(prepared.columns)} columns became {len(prepared.names)}: {', '.join(prepared.names)}")

    model = cl.networks.mlp((len(prepared.names), 16, 16, 1), dropout=0.2)
    study = cl.Study(
        graph=cl.u_shaped(
            model, ("activation1", "activation2"), clients=hospitals, loss=nn.BCEWithLogitsLoss()
        ),
        schedule=cl.RoundRobin(turn=1),
        optimizer=cl.optim.Adam(lr=0.003),
        epochs=2 if quick else 40,
        metrics=("auc", "loss"),
        early_stopping=cl.EarlyStopping(metric="loss", patience=5),
        name="own_data",
    )
    run = study.simulate(hospitals)
    rich.print(run.summary())
    best = run.best_epoch + 1
    equal = run.equals(study.central(hospitals, epochs=best))
    print(f"Equal to the uncut network after {best} epochs, bit for bit: {equal}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
