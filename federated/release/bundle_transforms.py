"""What the MONAI bundle of a segmentation model does with files, as ``consilium predict`` does it.

The names of these classes stand in released files, and do not change their place.
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from federated.data.folders.dicom.algorithm import Algorithm
from federated.data.folders.families import Family
from federated.errors import ConsiliumError
from federated.inference.mask_file import mask_names, write_mask
from federated.inference.prediction import case_of_file
from federated.weights.model_file import ModelHeader

FILE, PREDICTED = "image", "pred"
# Where the file's name goes on, since its image takes its place.
PLACE = "file"


class PrepareCase:
    """Makes of a case's file or folder under ``image`` what the network takes.

    ``image`` becomes float32 ``(channels, *spatial)``, and ``file`` is where it was read from.
    """

    def __init__(self, header: str) -> None:
        self._family = _family(header)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with the image in place of its file.

        Raises:
            ConsiliumError: the file cannot be read or does not fit the model.
        """
        path = Path(data[FILE])
        case, _ = case_of_file(self._family, path)
        return {**data, FILE: case.whole, PLACE: str(path)}


class WriteMask:
    """Writes of class probabilities under ``pred`` the mask on the own grid of its case."""

    def __init__(self, header: str, output_dir: str, name: str, version: str) -> None:
        self._family = _family(header)
        self._folder, self._by = Path(output_dir), Algorithm(name, version)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data, once the mask is written.

        Raises:
            ConsiliumError: the folder cannot be written to, or the mask would replace its image.
        """
        path, predicted = Path(data[PLACE]), data[PREDICTED]
        assert isinstance(predicted, Tensor)
        case, image = case_of_file(self._family, path)
        targets = [self._folder / name for name in mask_names(path, self._family)]
        if any(target.resolve() == path.resolve() for target in targets):
            raise ConsiliumError(
                f"The mask of {path} would replace it. Give another folder as output_dir."
            )
        write_mask(self._family, case.to_own_grid(predicted), image, targets, self._by)
        return dict(data)


def _family(header: str) -> Family:
    try:
        family = ModelHeader.from_text(header).family()
    except ValueError as error:
        raise ConsiliumError(
            f"The header of a network is not one of this project ({error})."
        ) from (error)
    if family is None:
        raise ConsiliumError("The header is one of a network that does not segment.")
    return family
