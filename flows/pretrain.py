"""Backbones for transfer learning: centralised training on a source set."""

from pathlib import Path

from federated.configuration.load import backbone_path
from federated.configuration.params_file import PRETRAIN
from federated.run.folder import RunFolder
from flows.going_on import goes_on_by
from flows.round import fl_round
from flows.steps import export_run


def pretrain(
    backbone: str,
    overrides: list[str] | None = None,
    params: str = "params.yaml",
    runs: str = "runs",
) -> Path:
    """Train a backbone of ``pretraining`` in params.yaml, register it, and put it in place.

    Returns:
        The run's folder; the weights are also at
        :func:`federated.configuration.load.backbone_path`.

    Raises:
        ConsiliumError: there is no such backbone, or anything that fl-round raises.
    """
    with goes_on_by(f"Begin again with: consilium pretrain {backbone}"):
        folder = Path(fl_round(PRETRAIN + backbone, overrides=overrides, params=params, runs=runs))
        export_run(RunFolder(folder), backbone_path(backbone).parent)
    return folder


def missing_backbone(items: list[str]) -> str | None:
    """The backbone that ``model.init=…`` among the items names, if its file is not there."""
    (path,) = (Path(item.partition("=")[2]) for item in items if item.startswith("model.init="))
    return None if path.is_file() else path.parent.name
