"""NVFLARE's CIFAR-10 network with FATE's hetero-NN trainers: the host has images and bottom, the guest labels and top.

python cifar10.py --parties guest:9999 host:10000 --data_dir FOLDER --rows ROWS --log_level WARNING
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from cifar10_network import bottom, top
from fate.arch.config import cfg
from fate.arch.launchers.argparser import HfArgumentParser
from fate.arch.launchers.multiprocess_launcher import launch
from fate.ml.nn.hetero.hetero_nn import HeteroNNTrainerGuest, HeteroNNTrainerHost, TrainingArguments
from fate.ml.nn.model_zoo.hetero_nn_model import HeteroNNModelGuest, HeteroNNModelHost
from marks import mark
from torch import nn
from torch.utils.data import TensorDataset
from transformers import TrainerCallback  # for marks only

EPOCHS, BATCH = 1, 64
WHOLE = {"federation.split_large_object.max_message_size": 4_194_304}  # bytes; an activation has 1,048,576


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
    model = HeteroNNModelGuest(top_model=top())
    trainer = HeteroNNTrainerGuest(
        ctx=ctx, model=model, training_args=arguments(), train_set=TensorDataset(y), val_set=TensorDataset(y_test),
        loss_fn=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
    )  # fmt: skip
    trainer.add_callback(Marks())  # for marks only
    trainer.train()
    guess = trainer.predict(TensorDataset(y_test)).predictions
    mark(accuracy=float((guess.argmax(1) == kept["y_test"]).mean()))


def host(ctx, kept):
    x, x_test = torch.from_numpy(kept["x_train"]), torch.from_numpy(kept["x_test"])
    model = HeteroNNModelHost(bottom_model=bottom())
    trainer = HeteroNNTrainerHost(
        ctx=ctx, model=model, training_args=arguments(), train_set=TensorDataset(x), val_set=TensorDataset(x_test),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
    )  # fmt: skip
    trainer.train()
    trainer.predict(TensorDataset(x_test))


def run(ctx):
    torch.manual_seed(42)
    torch.set_num_threads(1)
    asked = HfArgumentParser(Rows).parse_args_into_dataclasses(return_remaining_strings=True)[0]
    with np.load(asked.rows) as kept:
        rows = dict(kept)
    with cfg.temp_override(WHOLE):
        (guest if ctx.is_on_guest else host)(ctx, rows)


if __name__ == "__main__":
    launch(run, extra_args_desc=[Rows])
