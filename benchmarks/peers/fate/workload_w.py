"""Workload W with FATE's hetero-NN trainers: the host has the images, the guest the labels and the top.

python workload_w.py --parties guest:9999 host:10000 --data_dir FOLDER --rows ROWS --log_level WARNING
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

EPOCHS, BATCH = 5, 64


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


def guest(ctx, kept):
    y, y_test = torch.from_numpy(kept["y_train"]), torch.from_numpy(kept["y_test"])
    model = HeteroNNModelGuest(top_model=nn.Linear(256, 10))
    trainer = HeteroNNTrainerGuest(
        ctx=ctx, model=model, training_args=arguments(), train_set=TensorDataset(y), val_set=TensorDataset(y_test),
        loss_fn=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
    )  # fmt: skip
    trainer.add_callback(Marks())  # for marks only
    trainer.train()
    guess = trainer.predict(TensorDataset(y_test)).predictions
    mark(accuracy=float((guess.argmax(1) == kept["y_test"]).mean()))


def host(ctx, kept):
    x, x_test = torch.from_numpy(kept["x_train"]), torch.from_numpy(kept["x_test"])
    model = HeteroNNModelHost(bottom_model=nn.Sequential(nn.Linear(784, 256), nn.ReLU()))
    trainer = HeteroNNTrainerHost(
        ctx=ctx, model=model, training_args=arguments(), train_set=TensorDataset(x), val_set=TensorDataset(x_test),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
    )  # fmt: skip
    trainer.train()
    trainer.predict(TensorDataset(x_test))


def run(ctx):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    asked = HfArgumentParser(Rows).parse_args_into_dataclasses(return_remaining_strings=True)[0]
    with np.load(asked.rows) as kept:
        (guest if ctx.is_on_guest else host)(ctx, dict(kept))


if __name__ == "__main__":
    launch(run, extra_args_desc=[Rows])
