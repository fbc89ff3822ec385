"""Three clinics hold measurements of tumours, a laboratory the diagnoses: what does each find out of the other?

What a clinic sends tells the laboratory of its measurements, and the gradients that come back tell the clinic
of the diagnoses. The same study is trained open and with two defences: Marvell at the laboratory hides
diagnoses in the gradients, noise at the clinics hides measurements in the activations. Then both are attacked.

Shown: what every run says of leaks by itself; what a defence protects and what it does not, in its own words; an
audit in Python, each attack beside a blind guess, with its page. Data: scikit-learn's breast cancer.
"""

import dataclasses
import tempfile
from pathlib import Path

import torch
from torch import nn

import cutlayer as cl
from cutlayer.audit.attributes import AttributeInference
from cutlayer.audit.auditing import Audit, Plan, Setting
from cutlayer.audit.findings import Findings
from cutlayer.audit.known import attacks_of
from cutlayer.audit.page import write_page
from cutlayer.audit.verdicts import AFTER, Verdict, verdicts

DEFENCES = ("marvell:0.4", "noise:1")


def tell(found: list[Verdict]) -> None:
    """Print what each attack got in both settings, beside a guess that saw nothing."""
    print("\nWhat curious parties get:")
    for one in (verdict for verdict in found if verdict.setting == "open"):
        other = next(v for v in found if v.setting == "defended" and v.attack == one.attack)
        print(f"{one.party}, to {AFTER[one.after]}, by {one.name!r} (a guess: {one.measure} {one.blind:.2f})")
        print(f"  open {one.score:.2f}: {one.word}; defended {other.score:.2f}: {other.word}")
    left = [f"{v.name} by {v.party}" for v in found if v.setting == "defended" and v.share >= 0.15]
    print(f"Of these the defences do not protect from: {', '.join(left) or 'none'}.")


def setting(name: str, study: cl.Study, people: cl.data.Holdings) -> Setting:
    """Return what an audit trains and attacks, with any seed."""
    return Setting(name=name, build=lambda seed: (dataclasses.replace(study, seed=seed), people))


def main(quick: bool = False) -> cl.Run:
    """Train without and with defences, attack both, and return the run without."""
    people = cl.data.breast_cancer().split({"client": "*"}, rows=cl.data.Deal(n=3), labels="server")
    model, loss = cl.networks.mlp((30, 16, 8, 1)), nn.BCEWithLogitsLoss()
    plain = cl.Study(
        graph=cl.vanilla(model, cut="activation1", clients=people, loss=loss),
        optimizer=cl.optim.Adam(lr=0.01),
        batch_size=32,
        epochs=6 if quick else 8,
        metrics=("auc", "accuracy", "loss"),
        name="open",
    )
    studies = {"open": plain, "defended": dataclasses.replace(plain, defences=DEFENCES, name="defended")}
    runs = {name: study.simulate(people) for name, study in studies.items()}
    for name, run in runs.items():
        told = ", ".join(f"{metric} {value:.3f}" for metric, value in run.metrics("test").items())
        print(f"\n{name}: {told}. What the run itself says of its last epoch:")
        for _, cut, _, measure, _, last, _ in run.tables()["protection"].rows:
            print(f"  {measure} at {cut}: {last:.2f}")
    print(f"Equal to the uncut network, bit for bit: {runs['open'].equals(plain.central(people))}\n")
    for defence in cl.privacy.defences_of(DEFENCES):
        print(defence.statement())

    attacks = [*attacks_of(["decoder", "cosine", "gradient-clusters"]), AttributeInference(of="mean area")]
    settings = [setting(name, study, people) for name, study in studies.items()]
    findings = Findings(Path(tempfile.mkdtemp(prefix="cutlayer-audit-")), {"study": plain.digest})
    Audit(Plan(settings=settings, attacks=attacks, rows=128), findings).run()
    tell(verdicts(findings.found))
    who = {attack.word: (attack.adversary, attack.needs, attack.source) for attack in attacks}
    print(f"The audit's page: {write_page(findings, 'breast cancer', who)}")
    return runs["open"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
