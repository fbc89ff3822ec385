"""FATE's example of a heterogeneous network on breast cancer data: 10 columns at the guest, 20 at the host.

python breast.py --parties guest:9999 host:10000 --data_dir FOLDER --rows ROWS --log_level WARNING
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from fate.arch.launchers.argparser import HfArgumentParser
from fate.arch.launchers.multiprocess_launcher import launch
from fate.ml.nn.hetero.hetero_nn import HeteroNNTrainerGuest, HeteroNNTrainerHost, TrainingArguments
from fate.ml.nn.model_zoo.hetero_nn_model import HeteroNNModelGuest, HeteroNNModelHost
from marks import mark
from torch import nn
from torch.utils.data import TensorDataset
from transformers import TrainerCallback  # for marks only

EPOCHS, BATCH = 50, 256


@dataclass
class Rows:
    rows: str = field()


class Marks(TrainerCallback):  # for marks only
    def on_epoch_begin(self, args, state, control, **others):  # for marks only
        mark(step=state.global_step)

    def on_epoch_end(self, args, state, control, **others):  # for marks only
        mark(step=state.global_step)


def arguments():
    return TrainingArguments(
        num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH, no_cuda=True,
        disable_tqdm=True, max_grad_norm=0,
    )  # fmt: skip


def guest(ctx, x, y):
    rows = TensorDataset(x, y)
    bottom, top = nn.Linear(10, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 1))
    model = HeteroNNModelGuest(top_model=top, bottom_model=bottom)
    trainer = HeteroNNTrainerGuest(
        ctx=ctx, model=model, training_args=arguments(), train_set=rows, val_set=rows,
        loss_fn=nn.BCEWithLogitsLoss(), optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
    )  # fmt: skip
    trainer.add_callback(Marks())  # for marks only
    trainer.train()
    guess = trainer.predict(rows).predictions > 0
    mark(accuracy=float((guess == y.numpy()).mean()))


def host(ctx, x):
    rows = TensorDataset(x)
    model = HeteroNNModelHost(bottom_model=nn.Linear(20, 8))
    trainer = HeteroNNTrainerHost(
        ctx=ctx, model=model, training_args=arguments(), train_set=rows, val_set=rows,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
    )  # fmt: skip
    trainer.train()
    trainer.predict(rows)


def run(ctx):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    asked = HfArgumentParser(Rows).parse_args_into_dataclasses(return_remaining_strings=True)[0]
    with np.load(asked.rows) as kept:
        x, y = torch.from_numpy(kept["x_train"]), torch.from_numpy(kept["y_train"]).float()
    if ctx.is_on_guest:
        guest(ctx, x[:, :10], y.reshape(-1, 1))
    else:
        host(ctx, x[:, 10:])


if __name__ == "__main__":
    launch(run, extra_args_desc=[Rows])
