"""What an image can be labelled with: a class, several labels, or a number."""

from federated.data.dataset import TaskName
from federated.data.labelling.base import Labelling, refuse_constant
from federated.data.labelling.classes import CLASSES
from federated.data.labelling.multilabel import MULTILABEL
from federated.data.labelling.number import NUMBER

# By the task that such labels are for; segmentation has masks instead.
LABELLINGS: dict[TaskName, Labelling] = {
    "classification": CLASSES,
    "multilabel": MULTILABEL,
    "regression": NUMBER,
}

__all__ = ["LABELLINGS", "Labelling", "refuse_constant"]
