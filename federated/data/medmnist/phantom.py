"""Procedural phantoms with MedMNIST's schema, so that everything runs with no network.

Each class is an organ-like body: an ellipsoid with its own axes, lobes, cavity, brightness and
texture. A case varies pose, size, brightness and noise and shows part of a neighbouring body, so
that classes overlap: a small net learns them well, but not perfectly. The images show no anatomy
and no patient; every result on them is labelled ``data_source: phantom``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from federated.data.dataset import SPLITS, DatasetInfo, LocatedFile
from federated.files import atomic_path, md5_of
from federated.randomness import numpy_generator

Field = npt.NDArray[np.float32]

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


def _case(
    label: int, bodies: list[_Body], grid: Field, side: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    dims = grid.shape[0]
    body = bodies[label]
    image = _render(body, grid, rng, _normal(rng, 0.0, 0.12, dims))
    neighbour = bodies[int(rng.integers(len(bodies)))]
    direction = _normal(rng, 0.0, 1.0, dims)
    beside = _render(neighbour, grid, rng, direction * np.float32(1.05 / np.linalg.norm(direction)))
    image = np.float32(0.12) + np.where(image > 0.08, image, np.float32(0.6) * beside.clip(0.0))
    stacked = image[np.newaxis] * body.tint[:, np.newaxis]
    stacked = stacked + 0.11 * rng.standard_normal(stacked.shape, dtype=np.float32)
    pixels = (stacked.clip(0.0, 1.0) * 255).astype(np.uint8)
    return pixels.reshape(len(body.tint), *(side,) * dims)


def generate(info: DatasetInfo, size: int, seed: int) -> dict[str, npt.NDArray[np.uint8]]:
    """Generate a whole set with the class count and split sizes of ``info``.

    Classes are as frequent as each other. Equal arguments give equal arrays.

    Returns:
        The arrays of MedMNIST's schema: ``<split>_images`` ``(n, size, …[, channels])`` and
        ``<split>_labels`` ``(n, 1)``, all uint8.
    """
    bodies = _bodies(len(info.classes), info.dims, info.channels)
    line = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*[line] * info.dims, indexing="ij")])
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    for split in SPLITS:
        rng = numpy_generator(seed, purpose=f"phantom {info.name} {split}")
        labels = rng.permutation(np.arange(info.cases[split]) % len(bodies)).astype(np.uint8)
        images = np.stack([_case(int(label), bodies, grid, size, rng) for label in labels])
        # MedMNIST keeps channels last, and drops the axis of a single one.
        arrays[f"{split}_images"] = (
            images[:, 0] if info.channels == 1 else np.moveaxis(images, 1, -1)
        )
        arrays[f"{split}_labels"] = labels[:, np.newaxis]
    return arrays


def materialise(info: DatasetInfo, size: int, seed: int, root: Path) -> LocatedFile:
    """Write the phantom of a set under ``root/phantom`` unless it is there, and locate it.

    Raises:
        ConsiliumError: the folder cannot be written to.
    """
    path = root / "phantom" / f"{info.name}_{size}_seed{seed}_v{VERSION}.npz"
    if not path.is_file():
        arrays = generate(info, size, seed)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    return LocatedFile(path, "phantom", md5_of(path))
