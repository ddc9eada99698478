"""Procedural phantoms with MedMNIST's schema, so that everything runs with no network.

Each class is an organ-like body: an ellipsoid with its own axes, lobes, cavity, brightness and
texture. A case varies pose, size, brightness and noise and shows part of a neighbouring body, so
that classes overlap: a small net learns them well, but not perfectly. Where a case may have several
labels, each is a body somewhere in the picture; where it has a number, that is how large and bright
one body is. The images show no anatomy and no patient; every result on them is labelled
``data_source: phantom``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.dataset import SPLITS, DatasetInfo, LocatedFile
from federated.files import atomic_path, md5_of
from federated.randomness import numpy_generator

Field = npt.NDArray[np.float32]

# The most training cases, and as large a part of the others: ChestMNIST has 78,468.
MOST = 12_000
# How often the most frequent and the rarest of several labels occur.
FREQUENT, RARE = 0.4, 0.08

# How bright it is where there is no body.
GROUND = np.float32(0.12)

VERSION = 1  # raise when the images change, so that a file of an older form is not taken


@dataclass(frozen=True)
class _Body:
    """The fixed traits of one class."""

    axes: Field
    lobe_count: int
    lobe_depth: float
    cavity: float
    brightness: float
    texture_direction: Field
    texture_frequency: float
    texture_strength: float
    tint: Field


def _bodies(classes: int, dims: int, channels: int) -> list[_Body]:
    """One body for each class; over the classes each trait is spread evenly over its range."""
    rng = numpy_generator(0, purpose=f"phantom bodies {dims}d")

    def evenly(low: float, high: float, columns: int = 1) -> Field:
        places = np.stack([(rng.permutation(classes) + 0.5) / classes for _ in range(columns)], 1)
        return (low + (high - low) * places).astype(np.float32)

    axes = evenly(0.36, 0.72, dims)
    lobe_counts = evenly(2, 7)
    lobe_depths = evenly(0.04, 0.26)
    cavities = evenly(0.1, 0.65)
    brightness = evenly(0.55, 0.85)
    frequencies = evenly(3.0, 14.0)
    strengths = evenly(0.05, 0.25)
    tints = evenly(0.65, 1.0, channels) if channels > 1 else np.ones((classes, 1), np.float32)
    directions = rng.normal(size=(classes, dims)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return [
        _Body(
            axes[c],
            round(float(lobe_counts[c, 0])),
            float(lobe_depths[c, 0]),
            float(cavities[c, 0]),
            float(brightness[c, 0]),
            directions[c],
            float(frequencies[c, 0]),
            float(strengths[c, 0]),
            tints[c],
        )
        for c in range(classes)
    ]


def _normal(rng: np.random.Generator, mean: float, deviation: float, count: int) -> Field:
    """Normal draws ``(count,)``, cut at three standard deviations."""
    return (mean + deviation * rng.standard_normal(count).clip(-3.0, 3.0)).astype(np.float32)


def _rotation(rng: np.random.Generator, dims: int, deviation: float) -> Field:
    """A random rotation whose angles have standard deviation ``deviation`` radians."""
    matrix = np.eye(dims)
    for first in range(dims):
        for second in range(first + 1, dims):
            angle = rng.normal(0.0, deviation)
            turn = np.eye(dims)
            turn[first, first] = turn[second, second] = np.cos(angle)
            turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ turn
    return matrix.astype(np.float32)


def _render(body: _Body, grid: Field, rng: np.random.Generator, centre: Field) -> Field:
    """The intensity ``(points,)`` of one body over the grid ``(dims, points)``, 0 outside it."""
    dims = grid.shape[0]
    points = _rotation(rng, dims, 0.35) @ (grid - centre[:, np.newaxis])
    scaled = points / (body.axes * _normal(rng, 1.0, 0.12, dims))[:, np.newaxis]
    radius = np.sqrt((scaled**2).sum(axis=0))
    azimuth = np.arctan2(scaled[1], scaled[0])
    lobes = 1.0 + body.lobe_depth * np.cos(body.lobe_count * azimuth + rng.normal(0.0, 0.3))
    distance = radius / lobes
    from scipy.special import expit

    inside = expit((1.0 - distance) * 14.0)
    hollow = expit((body.cavity + rng.normal(0.0, 0.06) - distance) * 14.0)
    phase = rng.uniform(0.0, 2.0 * np.pi)
    stripes = np.sin(body.texture_frequency * (body.texture_direction @ points) + phase)
    shade = body.brightness * rng.normal(1.0, 0.12) + body.texture_strength * stripes
    return np.asarray(inside * (shade - 0.6 * hollow), dtype=np.float32)


def _case(label: int, bodies: list[_Body], grid: Field, rng: np.random.Generator) -> Field:
    """A body with a part of another beside it."""
    dims = grid.shape[0]
    body = bodies[label]
    image = _render(body, grid, rng, _normal(rng, 0.0, 0.12, dims))
    neighbour = bodies[int(rng.integers(len(bodies)))]
    direction = _normal(rng, 0.0, 1.0, dims)
    beside = _render(neighbour, grid, rng, direction * np.float32(1.05 / np.linalg.norm(direction)))
    image = GROUND + np.where(image > 0.08, image, np.float32(0.6) * beside.clip(0.0))
    return image[np.newaxis] * body.tint[:, np.newaxis]


def _case_of_labels(
    labels: npt.NDArray[np.uint8], bodies: list[_Body], grid: Field, rng: np.random.Generator
) -> Field:
    """A small body for each label that the case has; where they meet, the brighter one."""
    dims = grid.shape[0]
    image = np.zeros((len(bodies[0].tint), grid.shape[1]), np.float32)
    for body in (bodies[label] for label in np.flatnonzero(labels)):
        shape = replace(body, axes=np.float32(0.6) * body.axes)
        shown = _render(shape, grid, rng, _normal(rng, 0.0, 0.3, dims))
        image = np.maximum(image, shown * body.tint[:, np.newaxis])
    return GROUND + image


def _case_of_number(share: float, body: _Body, grid: Field, rng: np.random.Generator) -> Field:
    """A body that is the larger and the brighter, the nearer ``share`` is to 1."""
    axes = np.float32(0.5 + 0.7 * share) * body.axes
    shape = replace(body, axes=axes, brightness=0.4 + 0.4 * share)
    image = _render(shape, grid, rng, _normal(rng, 0.0, 0.12, grid.shape[0]))
    return (GROUND + image)[np.newaxis] * body.tint[:, np.newaxis]


def _pixels(image: Field, dims: int, side: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A case ``(channels, points)`` with noise, as ``(channels, *spatial)``."""
    stacked = image + 0.11 * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = (stacked.clip(0.0, 1.0) * 255).astype(np.uint8)
    return pixels.reshape(len(image), *(side,) * dims)


def _split(
    info: DatasetInfo, cases: int, grid: Field, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], Iterator[Field]]:
    """The labels of so many cases as a file holds them, and the cases, each drawn when asked for.

    Raises:
        ValueError: there are no such images for the set's task.
    """
    bodies = _bodies(len(info.classes), info.dims, info.channels)
    if info.task == "classification":
        labels = rng.permutation(np.arange(cases) % len(bodies)).astype(np.uint8)
        return labels[:, np.newaxis], (_case(int(label), bodies, grid, rng) for label in labels)
    if info.task == "multilabel":
        often = np.linspace(FREQUENT, RARE, len(bodies))
        several = (rng.random((cases, len(bodies))) < often).astype(np.uint8)
        return several, (_case_of_labels(row, bodies, grid, rng) for row in several)
    target = info.target
    if target is None:
        raise ValueError(f"{info.name} has no number to draw a phantom of")
    numbers: npt.NDArray[Any] = rng.uniform(target.low, target.high, cases)
    if target.whole:
        numbers = rng.integers(round(target.low), round(target.high), cases, endpoint=True)
    shares = target.share(numbers.astype(np.float64))
    drawn = (_case_of_number(float(share), bodies[0], grid, rng) for share in shares)
    return numbers[:, np.newaxis], drawn


def generate(info: DatasetInfo, size: int, seed: int) -> dict[str, npt.NDArray[Any]]:
    """Generate a whole set with the classes and split sizes of ``info``, to :data:`MOST` cases.

    Classes are as frequent as each other, labels from :data:`FREQUENT` to :data:`RARE`, and numbers
    evenly spread over their range. Equal arguments give equal arrays.

    Returns:
        The arrays of MedMNIST's schema: ``<split>_images`` ``(n, size, …[, channels])``, uint8, and
        ``<split>_labels`` ``(n, 1)`` or, of several labels, ``(n, labels)``, uint8; of numbers
        int64 or float64.

    Raises:
        ValueError: there are no such images for the set's task.
    """
    line = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*[line] * info.dims, indexing="ij")])
    part = min(1.0, MOST / max(1, info.cases["train"]))
    arrays: dict[str, npt.NDArray[Any]] = {}
    for split in SPLITS:
        rng = numpy_generator(seed, purpose=f"phantom {info.name} {split}")
        labels, drawn = _split(info, round(part * info.cases[split]), grid, rng)
        images = np.stack([_pixels(image, info.dims, size, rng) for image in drawn])
        # MedMNIST keeps channels last, and drops the axis of a single one.
        arrays[f"{split}_images"] = (
            images[:, 0] if info.channels == 1 else np.moveaxis(images, 1, -1)
        )
        arrays[f"{split}_labels"] = labels
    return arrays


def materialise(info: DatasetInfo, size: int, seed: int, root: Path) -> LocatedFile:
    """Write the phantom of a set under ``root/phantom`` unless it is there, and locate it.

    Raises:
        ConsiliumError: the folder cannot be written to.
    """
    path = root / "phantom" / f"{info.name}_{size}_seed{seed}_v{VERSION}.npz"
    if not path.is_file():
        # A folder that cannot be written to is told before seconds of drawing.
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **generate(info, size, seed))
    return LocatedFile(path, "phantom", md5_of(path))
