"""The registered model's own code: MLflow stores this file, not a pickle.

The input is images ``(n, channels, *spatial)``. For classification and regression they are uint8
as in the data set. For segmentation they are float32 of any scale, CT in Hounsfield units, and
volumes have their axes towards right, anterior and superior and the data set's spacing. The output
is class probabilities ``(n, classes)``, at the model's temperature where it has one, those of
several labels ``(n, labels)``, the number ``(n, 1)`` in its own unit, or in segmentation
``(n, classes, *spatial)``. Images are checked and prepared as by ``consilium predict``, which takes
files.
"""

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from federated.errors import ConsiliumError
from federated.inference.model_input import (
    calibrated,
    case_of_array,
    class_images,
    predicted_images,
    segmented,
)
from federated.weights.model_file import load_model, read_header


class ServedModel(PythonModel):
    """A network read from safetensors; ``params={"site": …}`` chooses a personalised one."""

    def load_context(self, context: Any) -> None:
        """Remember the weights that were logged beside this file."""
        self.path = context.artifacts["weights"]
        self.header = read_header(self.path)
        self.models: dict[str, Any] = {}

    def predict(
        self,
        context: Any,  # noqa: ARG002 - MLflow's signature
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """What is predicted of each image: ``(n, outputs)``, or ``(n, classes, *spatial)``.

        Raises:
            ConsiliumError: ``consilium predict`` would refuse an image.
        """
        site = (params or {}).get("site", "")
        if site not in self.models:
            self.models[site] = load_model(self.path, site or None)
        model, given = self.models[site], np.asarray(model_input)
        family = self.header.family()
        if family is None:
            images = class_images(given, self.header, "of the request")
            return calibrated(predicted_images(model, images, self.header), self.header)
        if not given.ndim or given.dtype.kind not in "buifc":
            raise ConsiliumError(
                f"The request is of the shape {given.shape} and the type {given.dtype}; real "
                "numbers (n, channels, *spatial) are expected. Send it so."
            )
        found = []
        for number, image in enumerate(given):
            case = case_of_array(family, image, f"{number} of the request")
            own = case.probabilities_on_own_grid(segmented(model, family, case))
            found.append(own[np.newaxis].astype(np.float64))
        empty = np.zeros((0, self.header.classes, *given.shape[2:]))
        return np.concatenate(found) if found else empty


set_model(ServedModel())
