"""nnU-Net's own planner on what was counted at all sites; it needs the extra ``nnunet``.

The planner wants a list of cases. Counts tell how often each spacing and each field of view comes,
and not which ones come together, so that it is given as many cases with the same medians and
quantiles along each axis.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.files import write_json
from federated.planning.bins import Bins, Counts
from federated.planning.fingerprint import REACHES, SIDES, Fingerprint
from federated.planning.plan import Limits, Plan, window_of
from federated.planning.topology import Topology

NAME = "Dataset001_federation"
# So many cases say the same of the counts as more of them.
MOST_CASES = 1000


def plan_by_nnunet(found: Fingerprint, limits: Limits) -> Plan:
    """The plan of nnU-Net's ``ExperimentPlanner``, its ``3d_fullres`` configuration.

    The memory that it is told is ``limits.memory``, which it understands as that of a GPU.

    Raises:
        ConsiliumError: the images are pictures, none was counted, or the extra is not installed.
    """
    if found.scheme.dims != 3 or not found.cases:
        raise ConsiliumError(
            "nnU-Net's own planner is used here for volumes, of which at least one has to be "
            "counted. Set model.planner=consilium."
        )
    planner = _planner_class()
    with TemporaryDirectory(prefix="nnunet-plan-") as folder, _folders(Path(folder)):
        _write(found, limits, Path(folder))
        with redirect_stdout(StringIO()):
            planner_of_set = planner(NAME, gpu_memory_target_in_gb=limits.memory / 1e9)
            planner_of_set.UNet_base_num_features = limits.width
            plans = planner_of_set.plan_experiment()
    return _read(plans, found, limits)


def _planner_class() -> Any:
    try:
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
            ExperimentPlanner,
        )
    except ImportError as error:
        raise ConsiliumError(
            f"nnU-Net's own planner is not installed ({error}). Install it with `pip install "
            "'consilium[nnunet]'`, or set model.planner=consilium, which plans by the same rules."
        ) from error
    return ExperimentPlanner


def _write(found: Fingerprint, limits: Limits, folder: Path) -> None:
    scheme = found.scheme
    count = min(found.cases, MOST_CASES)
    rows = range(3)
    spacings = np.stack([_drawn(SIDES, found.counts["spacing"][row], count) for row in rows])
    reaches = np.stack([_drawn(REACHES, found.counts["reach"][row], count) for row in rows])
    # nnU-Net's axes are superior, anterior, right.
    spacings, shapes = spacings[::-1].T, (reaches / spacings)[::-1].T
    images = {str(n): {"images": [f"{n}.nii.gz"], "label": ""} for n in range(count)}
    channel = "CT" if limits.ct else "MRI"
    dataset: dict[str, Any] = {
        "channel_names": {str(n): channel for n in range(scheme.modalities)},
        "labels": {"background": 0} | {f"class {n}": n for n in range(1, scheme.classes)},
        "numTraining": found.cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": images,
    }
    fingerprint = {
        "spacings": spacings.tolist(),
        "shapes_after_crop": shapes.tolist(),
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {
            str(row): _intensities(found, row) for row in range(scheme.modalities)
        },
    }
    raw, prepared = folder / "raw" / NAME, folder / "preprocessed" / NAME
    raw.mkdir(parents=True)
    prepared.mkdir(parents=True)
    write_json(raw / "dataset.json", dataset)
    write_json(prepared / "dataset_fingerprint.json", fingerprint)


def _drawn(bins: Bins, counts: Counts, cases: int) -> npt.NDArray[np.float64]:
    """So many values ``(cases,)`` in rising order that are spread as the counted ones."""
    ranks = (np.arange(cases) + 0.5) * counts.sum() / cases
    places = np.searchsorted(np.cumsum(counts), ranks, side="right")
    values: npt.NDArray[np.float64] = bins.values[places]
    return values


def _intensities(found: Fingerprint, row: int) -> dict[str, float]:
    mean, deviation = found.mean_and_deviation(row)
    shares = {"percentile_00_5": 0.005, "median": 0.5, "percentile_99_5": 0.995}
    values = {name: found.quantile("intensity", share, row) for name, share in shares.items()}
    return {"mean": mean, "std": deviation, **values}


def _read(plans: Mapping[str, Any], found: Fingerprint, limits: Limits) -> Plan:
    planned = plans["configurations"]["3d_fullres"]
    levels = planned["architecture"]["arch_kwargs"]
    # Back to the files' axes, and these the other way round: right, anterior, superior.
    order = [plans["transpose_backward"][axis] for axis in (2, 1, 0)]

    def turned(sides: Any) -> tuple[int, ...]:
        return tuple(int(sides[axis]) for axis in order)

    spacing = [float(planned["spacing"][axis]) for axis in order]
    topology = Topology(
        tuple(levels["features_per_stage"]),
        tuple(turned(kernel) for kernel in levels["kernel_sizes"]),
        tuple(turned(stride) for stride in levels["strides"]),
    )
    patch, batch = turned(planned["patch_size"]), int(planned["batch_size"])
    median = [found.quantile("reach", 0.5, row) / spacing[row] for row in range(3)]
    window = window_of(found) if limits.ct else None
    return Plan(
        (spacing[0], spacing[1], spacing[2]),
        patch,
        all(side >= round(most) for side, most in zip(patch, median, strict=True)),
        batch,
        "window" if window else "zscore",
        window,
        topology,
        topology.memory(patch, found.scheme.classes, batch),
    )


@contextmanager
def _folders(root: Path) -> Iterator[None]:
    """Let nnU-Net, which asks the environment, look in folders below ``root``."""
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    before = {name: os.environ.get(name) for name in names}
    for name in names:
        os.environ[name] = str(root / name.removeprefix("nnUNet_"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
