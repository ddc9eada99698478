"""The library: data, partitions, strategies, privacy, compression, protection and the local loop.

It is pure Python with torch and numpy, and knows nothing of Prefect, MLflow or DVC. The names in
``__all__`` are meant for other programs and change with notice (CHANGELOG.md); everything else may
change with any version. A name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from federated.settings.moved_modules import install

if TYPE_CHECKING:
    from federated.compression import Compression
    from federated.configuration.experiment import Experiment
    from federated.configuration.load import load_experiment
    from federated.errors import ConsiliumError
    from federated.inference.prediction import predict_files
    from federated.privacy import Privacy
    from federated.privacy.accounting import Release, epsilon, noise_multiplier_for
    from federated.privacy.ledger import Ledger
    from federated.protection import Protection
    from federated.strategies.base import Strategy
    from federated.weights.model_file import load_model, read_header

_HOME = {
    "Compression": "federated.compression",
    "ConsiliumError": "federated.errors",
    "Experiment": "federated.configuration.experiment",
    "Ledger": "federated.privacy.ledger",
    "Privacy": "federated.privacy",
    "Protection": "federated.protection",
    "Release": "federated.privacy.accounting",
    "Strategy": "federated.strategies.base",
    "epsilon": "federated.privacy.accounting",
    "load_experiment": "federated.configuration.load",
    "load_model": "federated.weights.model_file",
    "noise_multiplier_for": "federated.privacy.accounting",
    "predict_files": "federated.inference.prediction",
    "read_header": "federated.weights.model_file",
}

__all__ = [
    "Compression",
    "ConsiliumError",
    "Experiment",
    "Ledger",
    "Privacy",
    "Protection",
    "Release",
    "Strategy",
    "epsilon",
    "load_experiment",
    "load_model",
    "noise_multiplier_for",
    "predict_files",
    "read_header",
]

install()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
