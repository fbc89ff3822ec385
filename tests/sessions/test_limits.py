"""No frame is taken that is longer than a study's cuts and hand-overs need."""

import numpy as np
from torch import nn

from cutlayer import Study, optim, vanilla
from cutlayer.data import arrays
from cutlayer.sessions.limits import settings_for


def study(width, parties=2, batch_size=8):
    rows = arrays(np.zeros((24, 4), dtype=np.float32), np.arange(24) % 2).split_rows(parties)
    network = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
    return Study(
        graph=vanilla(network, cut="0", clients=rows), optimizer=optim.SGD(lr=0.1), batch_size=batch_size
    )


def test_the_limit_follows_from_the_cuts_and_the_rows_of_a_batch():
    room = 1 << 20
    rows = 256  # of an evaluation batch
    assert settings_for(study(1000)).max_frame_bytes == room + 2 * rows * 1000 * 4
    assert settings_for(study(1000, batch_size=512)).max_frame_bytes == room + 2 * 512 * 1000 * 4


def test_a_hand_over_counts_with_the_optimizers_memory():
    wide = study(4_000)
    state = 4 * sum(p.nbytes for p in wide.graph.segments["head"].module.parameters())
    assert settings_for(wide).max_frame_bytes >= state


def test_the_study_may_say_it():
    assert settings_for(study(10), 7).max_frame_bytes == 7 << 20
