"""The two data sets: scikit-learn's two moons and its bundled handwritten digits. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_moons
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]

MOONS_POINTS = 400
MOONS_NOISE = 0.18
TEST_SHARE = 0.25


@dataclass(frozen=True)
class Split:
    """Standardised inputs (rows, features), integer labels (rows,), cut into a training and a test part."""

    x_train: Array
    x_test: Array
    labels_train: NDArray[np.int64]
    labels_test: NDArray[np.int64]


def _standardised_split(x: Array, labels: NDArray[np.int64], seed: int) -> Split:
    # Fitted on ALL points, as the published experiment does; at these sizes the leak is far below the spread.
    scaled = StandardScaler().fit_transform(x)
    x_train, x_test, labels_train, labels_test = train_test_split(
        scaled, labels, test_size=TEST_SHARE, random_state=seed
    )
    return Split(x_train, x_test, labels_train.astype(np.int64), labels_test.astype(np.int64))


def two_moons(seed: int) -> Split:
    """Draw two interleaved half circles, 400 points with noise .18: 300 to train, 100 to test."""
    x, labels = make_moons(MOONS_POINTS, noise=MOONS_NOISE, random_state=seed)
    return _standardised_split(x, labels, seed)


def digits(seed: int) -> Split:
    """Load the 1797 8x8 digits that come with scikit-learn (UCI, test part); ``seed`` draws the split."""
    x, labels = load_digits(return_X_y=True)
    return _standardised_split(x, labels, seed)
