import numpy as np
import pytest

from federated.data.medmnist.files import dataset_info
from federated.learning.classification import score


def site(labels, right):
    labels = np.array(labels)
    scores = np.where(np.array(right), labels, 1 - labels)
    arrays = {"labels": labels, "probabilities": np.eye(2)[scores]}
    return dict.fromkeys(("val", "test"), arrays)


def test_the_spread_counts_every_site_alike_and_leaves_out_those_without_a_value():
    evaluation = score(
        {
            "a": site([0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1]),
            "b": site([0, 1], [1, 0]),
            "c": site([0, 0, 0, 0], [1, 1, 1, 0]),  # one class: it has no AUC
        },
        dataset_info("adrenalmnist3d"),
    )
    accuracy = evaluation.site_spread["test"]["accuracy"]
    assert accuracy == pytest.approx({"worst": 0.5, "mean": 0.75, "sd": np.std([1, 0.5, 0.75])})
    assert evaluation.site_spread["test"]["auc"]["worst"] == 0.5
    assert evaluation.site_spread["test"]["auc"]["mean"] == 0.75
    assert evaluation.confusion["test"] == [[7, 1], [1, 3]]
    assert evaluation.classes_absent == {"val": (), "test": ()}
    assert evaluation.absent_at["c"]["test"] == ("hyperplasia",)
