"""The twelve runs: every kind of strategy, privacy, compression and protection at least once.

All noise is seeded, and encryption adds whole numbers, so a run has one result. Sites share
predictions: what is recorded are exact metrics, which statistics give up to the last bit or, of the
AUC, up to a thousandth.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_COMMON: Mapping[str, Any] = {
    "seed": 3,
    "rounds": 2,
    "validate": {},
    "evaluation": {"share": "predictions"},
    "strategy": {"name": "fedavg"},
    "privacy": {"name": "none"},
    "compression": {"name": "none"},
    "protection": {"name": "plain"},
    "runner": {"name": "serial"},
}

PARAMS: Mapping[str, Any] = {
    "defaults": _COMMON,
    "experiments": {
        "volumes": {
            "seed": 3,
            "validate": {},
            "data": {"dataset": "adrenalmnist3d", "source": "files"},
            "sites": {"count": 3, "partition": "dirichlet", "beta": 0.5, "min_cases": 8},
            "training": {"lr": 2e-3, "batch_size": 16, "local_epochs": 1, "device": "cpu"},
        },
        "pictures": {
            "seed": 3,
            "validate": {},
            "data": {"dataset": "retina", "source": "files"},
            "sites": {"count": 2, "partition": "natural", "min_cases": 3, "overlays": False},
            "model": {"name": "unet", "norm": "instance", "width": 8},
            "training": {"lr": 3e-3, "batch_size": 4, "patches_per_case": 1, "device": "cpu"},
            "selection": {"metric": "val/dice"},
        },
        "scans": {
            "seed": 3,
            "validate": {},
            "data": {"dataset": "hippocampus", "source": "files", "spacing": 4},
            "sites": {"count": 3, "partition": "iid", "min_cases": 3, "scanner_shift": True},
            "model": {"name": "unet", "norm": "instance", "width": 8},
            "training": {"lr": 1e-2, "schedule": "cosine", "batch_size": 2, "device": "cpu"},
            "selection": {"metric": "val/dice", "keep": "last"},
        },
    },
}

_QUANTISED = ("compression.name=shared_mask", "compression.density=0.2", "compression.bits=8")
# Whoever holds keys or masks is a process of its own.
_APART = ("runner.name=processes", "runner.workers=2")
_SEEDED = ("privacy.noise=seeded", "privacy.delta=1e-3", "privacy.clip=1")

# An experiment of PARAMS, and what is set.
GOLDEN: Mapping[str, tuple[str, Sequence[str]]] = {
    "local": ("volumes", ["strategy.name=local", "sites.scanner_shift=true"]),
    "fedprox, top_k": (
        "volumes",
        [
            *("strategy.name=fedprox", "strategy.mu=0.01", "sites.participation=0.6"),
            *("compression.name=top_k", "compression.density=0.1", "compression.bits=8"),
        ],
    ),
    "scaffold, shared_mask, packed_bfv": (
        "volumes",
        ["strategy.name=scaffold", *_QUANTISED, "protection.name=packed_bfv", *_APART],
    ),
    "fedadam, shared_mask that is trained alone, ckks": (
        "volumes",
        [
            "strategy.name=fedadam",
            *_QUANTISED,
            "compression.train=sent",
            "protection.name=ckks",
            *_APART,
        ],
    ),
    "fednova, secagg_plus": (
        "volumes",
        [
            *(
                "strategy.name=fednova",
                "protection.name=secagg_plus",
                *_APART,
                "compression.bits=16",
            ),
            "training.augment=torchio",
        ],
    ),
    "fedbn": (
        "volumes",
        ["strategy.name=fedbn", "model.norm=batch", "training.class_weights=balanced"],
    ),
    "ditto": ("volumes", ["strategy.name=ditto", "compression.bits=4"]),
    "fedyogi, dp_sgd, adaptive": (
        "volumes",
        [
            *("strategy.name=fedyogi", "privacy.name=dp_sgd", "privacy.noise_multiplier=1"),
            *("privacy.adaptive.rate=0.5", *_SEEDED),
        ],
    ),
    "fedavgm, site_level, adaptive, packed_bfv": (
        "volumes",
        [
            *("strategy.name=fedavgm", "privacy.name=site_level", "privacy.epsilon_per_round=6"),
            *(
                "privacy.adaptive.rate=0.5",
                *_SEEDED,
                *_QUANTISED,
                "protection.name=packed_bfv",
                *_APART,
            ),
        ],
    ),
    "fedavg, site_level_distributed, secagg_plus": (
        "volumes",
        [
            *("privacy.name=site_level_distributed", "privacy.epsilon_per_round=6", *_SEEDED),
            *("compression.bits=16", "protection.name=secagg_plus", *_APART),
        ],
    ),
    "pictures, resfim": (
        "pictures",
        ["strategy.name=resfim", "strategy.rho=0.2", "strategy.refresh=2", "compression.bits=8"],
    ),
    "scans, percentile_laplace": (
        "scans",
        [
            *("privacy.name=percentile_laplace", "privacy.noise_multiplier=0.01"),
            *("privacy.clip=1", "privacy.noise=seeded"),
        ],
    ),
}
