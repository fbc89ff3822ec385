"""Makes the rows that all sides train on, one archive for each workload."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

W_ROWS, W_TESTS = 12_800, 2_000
BATCH = 64
MEAN = np.array([125.3, 123.0, 113.9], dtype=np.float32)
SPREAD = np.array([63.0, 62.1, 66.7], dtype=np.float32)


def workload_w(mnist: Path | None, out: Path) -> None:
    """Write rows of MNIST's shape: float32 [N, 784] from 0 to 1, and int64 [N].

    Args:
        mnist: An archive of MNIST; random numbers without one, and accuracy means nothing.
        out: Where to.
    """
    if mnist is None:
        draw = np.random.default_rng(0)
        x = draw.integers(0, 256, (W_ROWS + W_TESTS, 784), dtype=np.uint8)
        y = draw.integers(0, 10, W_ROWS + W_TESTS)
    else:
        with np.load(mnist, allow_pickle=False) as kept:
            x = np.concatenate([kept["x_train"][:W_ROWS], kept["x_test"][:W_TESTS]]).reshape(-1, 784)
            y = np.concatenate([kept["y_train"][:W_ROWS], kept["y_test"][:W_TESTS]])
    write(out, x.astype(np.float32) / np.float32(255), y, W_ROWS)


def cifar10(path: Path, out: Path, training: int, tests: int) -> None:
    """Write images for training and for test: float32 [N, 3, 32, 32], standardised as NVFLARE's example does.

    Args:
        path: An archive with x_train, y_train, x_test, y_test (uint8 NHWC).
        out: Where to.
        training: How many images to train on.
        tests: How many for test.

    Raises:
        ValueError: If there are fewer for training.
    """
    with np.load(path, allow_pickle=False) as kept:
        if len(kept["y_train"]) < training:
            raise ValueError(
                f"{path} has {len(kept['y_train'])} images for training, {training} are wanted: fewer steps"
            )
        x = np.concatenate([kept["x_train"][:training], kept["x_test"][:tests]])
        y = np.concatenate([kept["y_train"][:training], kept["y_test"][:tests]])
    x = (x.astype(np.float32) - MEAN) / SPREAD
    write(out, np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y, training)


def breast(out: Path) -> None:
    """Write scikit-learn's breast cancer data, standardised, the same 569 rows for training and test, as FATE does.

    Args:
        out: Where to.
    """
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    write(out, np.concatenate([x, x]), np.concatenate([y, y]), len(x))


def write(out: Path, x: NDArray[np.float32], y: NDArray[np.integer], training: int) -> None:
    """Write the first ``training`` rows for training and the others for test."""
    labels = y.astype(np.int64)
    np.savez(
        out, x_train=x[:training], y_train=labels[:training], x_test=x[training:], y_test=labels[training:]
    )
