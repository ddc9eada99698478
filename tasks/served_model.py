"""The registered model's own code: MLflow stores this file, not a pickle.

Input: images ``(n, channels, *spatial)``, uint8 as in the data set for classification, and float32
as ``federated.data.prepared_case`` makes them for segmentation. Output: class probabilities
``(n, classes)``, of segmentation ``(n, classes, *spatial)``. ``consilium predict`` takes files.
"""

from typing import Any

import mlflow
import numpy as np
import torch

from federated.learning.classification import predict
from federated.learning.segmentation import segment
from federated.model_file import load_model, read_header


class ServedModel(mlflow.pyfunc.PythonModel):
    """A network read from safetensors; ``params={"site": …}`` chooses a personalised one."""

    def load_context(self, context: Any) -> None:
        """Remember the weights that were logged beside this file."""
        self.path = context.artifacts["weights"]
        self.header = read_header(self.path)
        self.models: dict[str, torch.nn.Module] = {}

    def predict(
        self,
        context: Any,  # noqa: ARG002 - MLflow's signature
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Class probabilities of each image."""
        site = (params or {}).get("site", "")
        if site not in self.models:
            self.models[site] = load_model(self.path, site or None)
        model, device = self.models[site], torch.device("cpu")
        family = self.header.family()
        if family is None:
            images = np.asarray(model_input, dtype=np.uint8)
            return predict(model, images, device, self.header.classes)
        volumes = torch.from_numpy(np.asarray(model_input, dtype=np.float32))
        logits = [segment(model, volume, family, device) for volume in volumes]
        return torch.stack(logits).softmax(dim=1).double().cpu().numpy()


mlflow.models.set_model(ServedModel())
