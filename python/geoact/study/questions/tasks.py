"""Training, validation and test data of the four tasks.

Test data has a function of its own, which nothing that chooses a learning rate calls. The images of the test part of
digits are the same for every seed, because a seed may only choose with images that no seed is tested on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_circles, make_moons
from sklearn.model_selection import train_test_split

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

POINTS = 400
"""Rows to train on in the plane, and as many to validate."""
TEST_POINTS = 1000
DIGITS_TRAIN, DIGITS_TEST = 1000, 497
TURNS = 1.75


@dataclass(frozen=True)
class Part:
    """Inputs (rows, features) and labels (rows,)."""

    x: Array
    labels: Labels


@dataclass(frozen=True)
class Fold:
    """Data of one seed without its test part."""

    train: Part
    validation: Part


def fold(data: str, seed: int) -> Fold:
    """Return training and validation data, standardised on the training data."""
    train, validation, _ = _parts(data, seed)
    return Fold(_scaled(train, train), _scaled(validation, train))


def test_part(data: str, seed: int) -> Part:
    """Return the test data of a seed, standardised on its training data."""
    train, _, test = _parts(data, seed)
    return _scaled(test, train)


def classes(data: str) -> int:
    """Return the number of labels."""
    return 10 if data == "digits" else 2


def _scaled(part: Part, reference: Part) -> Part:
    deviation = reference.x.std(axis=0)
    # Border pixels of the digits never change.
    deviation[deviation == 0] = 1.0
    return Part((part.x - reference.x.mean(axis=0)) / deviation, part.labels)


@cache
def _parts(data: str, seed: int) -> tuple[Part, Part, Part]:
    if data == "digits":
        return _digits(seed)
    draw = np.random.RandomState(np.random.SeedSequence([seed, 3]).generate_state(1)[0])
    x, labels = PLANE[data](2 * POINTS + TEST_POINTS, draw)
    order = draw.permutation(len(x))
    x, labels = x[order], labels[order].astype(np.int64)
    cuts = (slice(0, POINTS), slice(POINTS, 2 * POINTS), slice(2 * POINTS, None))
    train, validation, test = (Part(x[cut], labels[cut]) for cut in cuts)
    return train, validation, test


def _digits(seed: int) -> tuple[Part, Part, Part]:
    x, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int64)
    rest, test, rest_labels, test_labels = train_test_split(
        x, labels, test_size=DIGITS_TEST, random_state=42, stratify=labels
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, train_size=DIGITS_TRAIN, random_state=seed, stratify=rest_labels
    )
    return Part(train, train_labels), Part(validation, validation_labels), Part(test, test_labels)


def _moons(rows: int, draw: np.random.RandomState) -> tuple[Array, Labels]:
    x, labels = make_moons(rows, noise=0.18, random_state=draw)
    return x, labels


def _circles(rows: int, draw: np.random.RandomState) -> tuple[Array, Labels]:
    x, labels = make_circles(rows, noise=0.1, factor=0.5, random_state=draw)
    return x, labels


def _spirals(rows: int, draw: np.random.RandomState) -> tuple[Array, Labels]:
    """Two arms of ``TURNS`` turns, half a turn apart; the root spreads the points evenly along an arm."""
    labels = np.arange(rows) % 2
    angle = 2 * np.pi * TURNS * np.sqrt(draw.uniform(0.03, 1.0, rows))
    turned = angle + np.pi * labels
    x = np.stack([angle * np.cos(turned), angle * np.sin(turned)], axis=1)
    return x + 0.25 * draw.standard_normal(x.shape), labels


PLANE: dict[str, Callable[[int, np.random.RandomState], tuple[Array, Labels]]] = {
    "moons": _moons,
    "circles": _circles,
    "spirals": _spirals,
}
DATA = (*PLANE, "digits")
