"""After training: predict together, keep one's own half, export the whole only if everyone agrees.

Two clients hold images and labels and the head of the network, a server the rest. A prediction runs over the
same cut as training did. Each part is saved by the party that holds it at the end (of the two clients, the
one that took the last turn), in a folder with nobody else's part. The joined network is written only with
the consent of every party; it is then plain safetensors with the names of the network as it was before it
was cut, and needs no cutlayer to be used.

Shown: predict, save and load, export with and without consent.
"""

import tempfile
from pathlib import Path

import rich
import torch
from safetensors.torch import load_file

import cutlayer as cl
from cutlayer.errors import ConsentError


def main(quick: bool = False) -> cl.Run:
    """Train, predict, save, load, export, and return the run."""
    source = cl.data.digits()
    clients = source.split_rows(2)
    model = cl.networks.mlp((64, 48, 10))
    graph = cl.vanilla(model, cut="activation1", clients=clients)
    study = cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=0.01), epochs=2 if quick else 10, name="keep")
    run = study.simulate(clients)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(clients))}")

    x, y = (source.splits["test"].fields[name] for name in ("x", "y"))
    logits = run.predict(x)
    print(f"Of {len(y)} new images {(logits.argmax(1) == y).sum()} are read correctly.")

    with tempfile.TemporaryDirectory() as folder:
        halves = run.save(Path(folder) / "halves")
        for file in sorted(halves.rglob("*.safetensors")):
            print(f"{file.relative_to(halves)}: {', '.join(load_file(file))}")
        fresh = cl.Study(graph=graph, optimizer=study.optimizer, name="fresh").simulate(clients)
        fresh.load(halves)
        print(f"Another run that loads them predicts the same: {torch.equal(fresh.predict(x), logits)}")

        whole = Path(folder) / "whole.safetensors"
        try:
            run.export(whole, consent=["client-0", "server"])
        except ConsentError as error:
            print(f"Refused: {error}")
        run.export(whole, consent=["client-0", "client-1", "server"])
        model.load_state_dict(load_file(whole))  # plain PyTorch from here on
        with torch.no_grad():
            print(f"The exported network predicts the same: {torch.equal(model(x), logits)}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
