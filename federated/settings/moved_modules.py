"""Names that modules had before the library was laid out in rooms, for scripts that still use them.

An import by one of them gives the module that it is now, and a DeprecationWarning. The names will
be removed in version 0.3.0.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# The names below ``federated``; modules whose parts went to several places are not among them.
MOVED = {
    "augmentation": "data.augmentation",
    "bounded_file": "weights.bounded_file",
    "compression.compression": "compression.base",
    "config": "configuration.load",
    "configuration.combinations": "configuration.compatibility",
    "configuration.errors": "configuration.explain",
    "configuration.sections": "settings.sections",
    "configuration.settings": "settings.base",
    "data.array_file": "data.medmnist.array_file",
    "data.case_table": "data.medmnist.table",
    "data.families": "data.folders.families",
    "data.families.brain": "data.folders.families.brain",
    "data.families.family": "data.folders.families.base",
    "data.families.file_names": "data.folders.families.file_names",
    "data.families.hippocampus": "data.folders.families.hippocampus",
    "data.families.kidney": "data.folders.families.kidney",
    "data.families.retina": "data.folders.families.retina",
    "data.families.side_table": "data.folders.families.side_table",
    "data.families.skin": "data.folders.families.skin",
    "data.folder_dataset": "data.folders.dataset",
    "data.folder_phantom": "data.folders.phantom",
    "data.folder_table": "data.folders.table",
    "data.geometry": "data.folders.geometry",
    "data.intensities": "data.folders.intensities",
    "data.labels_left": "data.folders.labels_left",
    "data.nifti_file": "data.folders.nifti_file",
    "data.phantom": "data.medmnist.phantom",
    "data.picture_file": "data.folders.picture_file",
    "data.prepared": "run.prepared",
    "data.prepared_case": "data.folders.prepared_case",
    "data.read_case": "data.folders.read_case",
    "data.read_volume": "data.folders.read_volume",
    "data.segmented_cases": "data.folders.segmented_cases",
    "data.validation_report": "run.validation_report",
    "data.volume": "data.folders.volume",
    "evaluation": "learning.evaluation",
    "feature_mean": "training.feature_mean",
    "fisher": "strategies.resfim.fisher",
    "home": "secrets.home",
    "key_derivation": "secrets.key_derivation",
    "learning.learning_task": "learning.base",
    "masked_training": "training.masked_rule",
    "metrics": "learning.classification_metrics",
    "model_evaluation": "inference.evaluation",
    "model_file": "weights.model_file",
    "model_input": "inference.model_input",
    "names": "settings.names",
    "objective": "training.objective",
    "optimization": "training.optimization",
    "patients": "privacy.patients",
    "prediction": "inference.prediction",
    "pretrained_file": "weights.pretrained_file",
    "privacy.privacy": "privacy.base",
    "protection.protection": "protection.base",
    "releases": "site.releases",
    "round_record": "run.round_record",
    "run_folder": "run.folder",
    "selection": "run.selection",
    "spectral_style": "strategies.resfim.spectral_style",
    "strategies.strategy": "strategies.base",
    "summary": "run.summary",
    "timing": "run.timing",
    "transfer": "weights.transfer",
    "update_files": "run.update_files",
}


class _Moved(MetaPathFinder, Loader):
    """Finds modules by the names that they had."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - as Python asks
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """A spec for a name of :data:`MOVED`, and for no other."""
        known = fullname.removeprefix("federated.") in MOVED
        return ModuleSpec(fullname, self) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that it is now."""
        now = f"federated.{MOVED[spec.name.removeprefix('federated.')]}"
        warnings.warn(f"{spec.name} is {now} now", DeprecationWarning, stacklevel=2)
        return import_module(now)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing, because it is imported already; its own name and spec stay what they are."""
        name = module.__name__
        if module.__spec__ is not None and module.__spec__.name != name:
            module.__spec__.name = name


def install() -> None:
    """Let Python find modules by their old names, after every other way of finding one."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
