"""The registered model's own code: MLflow stores this file, not a pickle.

Input: images ``(n, channels, *spatial)`` uint8, as in the data set. Output: class probabilities
``(n, classes)``.
"""

from typing import Any

import mlflow
import numpy as np
import torch

from federated.model_file import load_model, read_header
from federated.training import predict


class ServedModel(mlflow.pyfunc.PythonModel):
    """A network read from safetensors; ``params={"site": …}`` chooses a personalised one."""

    def load_context(self, context: Any) -> None:
        """Remember the weights that were logged beside this file."""
        self.path = context.artifacts["weights"]
        self.classes = read_header(self.path).classes
        self.models: dict[str, torch.nn.Module] = {}

    def predict(
        self,
        context: Any,  # noqa: ARG002 - MLflow's signature
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Class probabilities of each image."""
        images = np.asarray(model_input, dtype=np.uint8)
        site = (params or {}).get("site", "")
        if site not in self.models:
            self.models[site] = load_model(self.path, site or None)
        return predict(self.models[site], images, torch.device("cpu"), self.classes)


mlflow.models.set_model(ServedModel())
