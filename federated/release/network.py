"""The network of a model's header, for programs that know a function by its name.

The MONAI bundle of a dossier names :func:`network_of`: what stands in released files does not
change its place.
"""

from torch import nn

from federated.errors import ConsiliumError
from federated.weights.model_file import ModelHeader


def network_of(header: str) -> nn.Module:
    """The network that a header describes, in evaluation mode; its weights are random.

    Args:
        header: the text of the entry ``consilium`` in the metadata of a model's safetensors file.

    Raises:
        ConsiliumError: the text describes no network that can be.
    """
    try:
        return ModelHeader.from_text(header).build(seed=0).eval()
    except ValueError as error:
        raise ConsiliumError(
            f"The header of a network is not one of this project ({error}). Take it from the "
            "metadata of a model.safetensors."
        ) from error
