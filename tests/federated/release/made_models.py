"""Small networks with random weights, and their headers."""

from torch import nn

from federated.settings.networks import Level, NNUNet, SmallCNN, UNet
from federated.weights.model_file import ModelHeader

PICTURES = ModelHeader(SmallCNN(), 3, 8, 2, 28, "bloodmnist", "files")
VESSELS = ModelHeader(
    UNet(norm="instance", width=8), 3, 2, 2, None, "retina", "phantom", patch=(32, 32)
)
LEVELS = (
    Level(features=8, kernel=(3, 3), stride=(1, 1)),
    Level(features=8, kernel=(3, 3), stride=(2, 1)),
    Level(features=8, kernel=(1, 3), stride=(2, 2)),
)
PLANNED = ModelHeader(NNUNet(levels=LEVELS), 3, 2, 2, None, "retina", "files", patch=(16, 24))


def network_of(header: ModelHeader) -> nn.Module:
    return header.build(seed=3).eval()
