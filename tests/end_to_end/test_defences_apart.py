"""Noise between real processes: it follows from each party's own secret, also past a crash, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trial
from trial import Bench, Trial

from cutlayer.privacy.noise import simulated_secret

DEFENCES = '[defences]\n"head->server" = ["gaussian:2,0.5", "nopeek:0.5"]'
SEED = 7  # of the studies


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with trial.bench(tmp_path_factory.mktemp("defences")) as made:
        yield made


def test_with_the_simulations_secrets_it_comes_to_the_simulators_bits_past_a_crash(
    bench: Bench, tmp_path: Path
) -> None:
    study = bench.dealt("vanilla", network=DEFENCES)
    tried = Trial(bench, study, tmp_path, {"client-1": [["restore:before:1"]]})
    for party in tried.parties:
        tried.out(party).mkdir(parents=True)
        (tried.out(party) / "secret").write_bytes(simulated_secret(SEED, party))
    with tried:
        tried.wait()
        tried.check()
        assert tried.kills["client-1"] == 1


def test_with_secrets_of_their_own_nobody_can_tell_the_noise_from_the_study(
    bench: Bench, tmp_path: Path
) -> None:
    study = bench.dealt("vanilla", network=DEFENCES)
    with Trial(bench, study, tmp_path) as tried:
        tried.wait()
        secrets = {(tried.out(party) / "secret").read_bytes() for party in tried.parties}
        assert len(secrets) == len(tried.parties)
        assert all((tried.out(party) / "secret").stat().st_mode & 0o77 == 0 for party in tried.parties)
        with pytest.raises(AssertionError):
            tried.check()
