"""A dossier is of one model: what is told of a run has to be of the weights that are released."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from federated.errors import ConsiliumError
from federated.weights.model_file import ModelHeader, save_model
from tasks.release import _refuse_other_run
from tasks.report import read_object
from tests.federated.release.made_models import PICTURES, network_of

RUN = "20260101-000000-abcd"


@dataclass(frozen=True)
class Made:
    """A registered version, the folder of its run, and what that tells."""

    version: str
    header: ModelHeader
    network: torch.nn.Module
    summary: dict[str, object]
    folder: SimpleNamespace

    def judge(self) -> None:
        found = SimpleNamespace(name="demo", version=self.version, site=None)
        experiment = SimpleNamespace(name="demo")
        values = SimpleNamespace(summary=self.summary, experiment=experiment)
        _refuse_other_run(found, self.folder, values, self.header, self.network)


@pytest.fixture
def made(tmp_path) -> Made:
    network = network_of(PICTURES)
    save_model(tmp_path / "model.safetensors", network, PICTURES)
    summary = {"run_id": RUN, "experiment": "demo", "model_version": 1, "data_source": "files"}
    folder = SimpleNamespace(root=tmp_path, run_id=RUN, model_path=tmp_path / "model.safetensors")
    return Made("1", PICTURES, network, summary, folder)


def test_of_its_own_run_a_model_has_a_dossier(made):
    made.judge()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_version": 2}, "it has version 2 now, as a run that was resumed has"),
        ({"model_version": None}, "it has version None now"),
        ({"run_id": "20260101-000000-ffff"}, "of run 20260101-000000-ffff"),
        ({"experiment": "other"}, "of other"),
        ({"data_source": "phantom"}, "the data are 'phantom', and the model that they are 'files'"),
    ],
)
def test_numbers_of_another_model_are_not_told_of_it(made, changed, said):
    with pytest.raises(ConsiliumError) as error:
        replace(made, summary=made.summary | changed).judge()
    assert said in str(error.value)
    assert "Release the version that the folder has" in str(error.value)


def test_a_phantom_is_not_made_real(made):
    drawn = replace(made, header=replace(PICTURES, data_source="phantom"))
    with pytest.raises(ConsiliumError, match="the model that they are 'phantom'"):
        drawn.judge()


def test_other_weights_are_another_model(made):
    other = network_of(PICTURES)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    with pytest.raises(ConsiliumError, match="has other weights"):
        replace(made, network=other).judge()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_summary_that_is_none_is_refused_in_a_paragraph(tmp_path, content):
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    with pytest.raises(ConsiliumError, match="cannot be read"):
        read_object(path)
