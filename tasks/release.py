"""release: the dossier of a registered model: all that a reviewer needs, in one signed folder."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError, unreadable
from federated.exchange.identity import Identity
from federated.release import bundle
from federated.release.card import ReleasedModel, card_of
from federated.release.card_blocks import Card
from federated.release.card_text import card_markdown, card_page
from federated.release.exported import (
    TOLERANCE,
    Comparison,
    compare_onnx,
    compare_torchscript,
    require,
    to_onnx,
    to_torchscript,
    trial_inputs,
)
from federated.release.manifest import MANIFEST, Manifest
from federated.release.materials import bill_of_materials, installed_packages
from federated.release.places import without_places
from federated.report import words
from federated.report.run_page import run_page
from federated.report.values import RunValues
from federated.run.coordinator_home import CoordinatorHome
from federated.run.folder import RunFolder
from federated.settings.sections import Parties
from federated.stages.coordinator import coordinator_identity
from federated.weights.model_file import (
    ModelHeader,
    load_model,
    personal_sites,
    read_header,
    save_model,
)
from tasks.register import site_model_name
from tasks.registered_model import RegisteredWeights, registered_weights
from tasks.release_folder import new_folder, refuse_taken, sign_folder
from tasks.report import REPORT, read_object, read_values
from tasks.track import client, unusable_errors

WEIGHTS, ONNX, CHECKS = "model.safetensors", "model.onnx", "checks.json"
CARD, CARD_PAGE, BUNDLE, MATERIALS = "model_card.md", "model_card.html", "bundle", "sbom.cdx.json"
NEEDED = ("onnx", "onnxruntime", "cyclonedx")
# In characters: what MLflow's databases hold of the description of a version.
LONGEST_DESCRIPTION = 5000
# In bytes, of what somebody has written of attacks.
LONGEST_ATTACKS = 2**16


@dataclass(frozen=True)
class Release:
    """What was released.

    Attributes:
        manifest: what is in the folder, and who has signed it.
        left_out: for each form that the model cannot be written in, one paragraph that says so.
        registry: what MLflow has not taken of it, and why; ``""`` if it has taken all.
    """

    manifest: Manifest
    left_out: list[str]
    registry: str


@dataclass(frozen=True)
class _Form:
    """A form of the model: its file, what it is, its content, and how it compares with torch's."""

    path: str
    what: str
    content: bytes | None
    compared: Comparison | None
    refused: str = ""

    def told(self) -> tuple[str, str]:
        if self.compared is None or self.refused:
            return self.path, f"left out. {self.refused}"
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.compared.inputs)
        said = (
            f"differ from torch's by at most {self.compared.largest:.1e}, where these are up to "
            f"{self.compared.outputs:.3g}, and what it predicts by at most "
            f"{self.compared.predicted:.1e}"
            if self.compared.largest
            else "are exactly torch's"
        )
        return self.path, f"{self.what}; its outputs {said}, on drawn inputs of {shapes}"


def silent(_: str) -> None:
    """Say nothing."""


def release(
    model: str,
    out: Path,
    licence: str | None = None,
    attacks: Path | None = None,
    say: Callable[[str], None] = silent,
) -> Release:
    """Write the dossier of a registered model into a new folder.

    Args:
        model: ``NAME@ALIAS`` or ``NAME@VERSION``.
        out: the folder, which is made.
        licence: under which the weights are released.
        attacks: a text of what attacks on this model have found.
        say: tells a person what is being done now.

    Raises:
        ConsiliumError: there is no such model, its run is not here or its key is not, a package of
            the extra ``release`` is missing, or the folder cannot be written to.
    """
    require(*NEEDED)
    refuse_taken(out)
    found = registered_weights(model)
    folder = _run_of(found, model)
    values = read_values(folder, pictures=False)
    header, network = read_header(found.path), _network(found)
    _refuse_other_run(found, folder, values, header, network)
    values = replace(values, summary=without_places(values.summary))
    config = without_places(read_object(folder.config_path))
    identity = _identity(folder, values.experiment)
    say("writing it as ONNX and as TorchScript, and comparing both with torch …")
    inputs = trial_inputs(header)
    name, number = str(found.name), str(found.version)
    metadata = bundle.as_json(bundle.metadata(header, name, number, words.limits(values)))
    forms = [
        _form(
            ONNX,
            "ONNX",
            lambda: to_onnx(network, header),
            lambda content: compare_onnx(network, header, content, inputs),
        ),
        _form(
            f"{BUNDLE}/{bundle.TORCHSCRIPT}",
            "TorchScript, which torch and MONAI read without Consilium",
            lambda: to_torchscript(network, header, metadata),
            lambda content: compare_torchscript(network, header, content, inputs),
        ),
    ]
    told = _told(found, header, network, licence, attacks, forms, identity)
    say("writing the card, the report, the MONAI bundle and the bill of materials …")
    card = card_of(values, told)
    with new_folder(out) as place:
        _write_model(place, network, header, forms, told)
        _write(place / BUNDLE / bundle.METADATA, metadata)
        _write_bundle(place / BUNDLE, network, header, told, values)
        _write(place / CARD, card_markdown(card))
        _write(place / f"{BUNDLE}/docs/README.md", card_markdown(card))
        _write(place / CARD_PAGE, card_page(card))
        _write(place / REPORT, run_page(values))
        _write_json(place / folder.summary_path.name, values.summary)
        _write_json(place / folder.config_path.name, config)
        materials = bill_of_materials(told.name, told.version, installed_packages())
        _write(place / MATERIALS, materials)
        manifest = sign_folder(place, told.name, told.version, folder.run_id, identity)
    left_out = [f"{form.path} is left out. {form.refused}" for form in forms if form.refused]
    say("giving MLflow the dossier …")
    return Release(manifest, left_out, _register(found, out, card))


def _run_of(found: RegisteredWeights, model: str) -> RunFolder:
    """The folder of the run that made a registered model.

    Raises:
        ConsiliumError: the model is only a file, its run is not here, or it made no model for all.
    """
    if found.mlflow_run_id is None:
        raise ConsiliumError(
            f"{model} is a file, and a dossier is of a model in the registry, whose run is known. "
            "Give NAME@ALIAS or NAME@VERSION, for example hippocampus@champion."
        )
    tags = client().get_run(found.mlflow_run_id).data.tags
    folder = RunFolder(Path(tags.get("run_folder", "")))
    if "run_folder" not in tags or not folder.summary_path.is_file():
        raise ConsiliumError(
            f"The run that made {model} is not here, or not finished: there is no "
            f"{folder.summary_path}. Make the dossier where the coordinator's folder of that run "
            "is."
        )
    if "kept_round" not in read_object(folder.summary_path):
        raise ConsiliumError(
            f"{model} was made for one site that joined a federation later. Only that site "
            "knows how good it is and on what it was trained, so there is no dossier of it. "
            "Release the federation's own model."
        )
    return folder


def _refuse_other_run(
    found: RegisteredWeights,
    folder: RunFolder,
    values: RunValues,
    header: ModelHeader,
    network: nn.Module,
) -> None:
    """Refuse to tell of a model what is of another one, as after a run was resumed.

    Args:
        found: the model in the registry.
        folder: of the run that made it.
        values: what is told of that run.
        header: the model's.
        network: the model.

    Raises:
        ConsiliumError: the folder is not, or no longer, that of this version.
    """
    summary, wrong = values.summary, ""
    told = (str(summary.get("run_id")), str(summary.get("experiment")))
    if told != (folder.run_id, values.experiment.name):
        wrong = f"its summary.json is of run {told[0]:.100} of {told[1]:.100}"
    elif found.site is None and str(summary.get("model_version")) != str(found.version):
        wrong = f"it has version {summary.get('model_version')} now, as a run that was resumed has"
    elif summary.get("data_source") != header.data_source:
        wrong = (
            f"its summary.json says that the data are {summary.get('data_source')!r:.60}, and the "
            f"model that they are {header.data_source!r:.60}"
        )
    elif not _equal(network, load_model(folder.model_path, found.site)):
        wrong = f"its {folder.model_path.name} has other weights"
    if wrong:
        raise ConsiliumError(
            f"The folder {folder.root} is not that of {found.name} version {found.version}: "
            f"{wrong}. Its numbers would be told of another model. Release the version that the "
            "folder has, or put the folder back as it was."
        )


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the very same tensors."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _network(found: RegisteredWeights) -> nn.Module:
    """The network with its weights; those of a personalised version are no one model.

    Raises:
        ConsiliumError: every site has a model of its own, and none is named.
    """
    sites = personal_sites(found.path)
    if sites and found.site is None:
        own = site_model_name(str(found.name), sites[0])
        raise ConsiliumError(
            f"{found.name} version {found.version} is personalised: each of its sites, "
            f"{', '.join(sites)}, has a model of its own, and there is none for all that could be "
            f"released. Release a site's own, as {own}@champion, where that site agrees."
        )
    return load_model(found.path, found.site)


def _identity(folder: RunFolder, experiment: Experiment) -> Identity:
    """The coordinator of a run, who signs.

    Raises:
        ConsiliumError: its key is not here.
    """
    if isinstance(experiment.runner, Parties):
        return CoordinatorHome.default().identity()
    if not (folder.coordinator_path / "identity.key").is_file():
        raise ConsiliumError(
            f"The key of the coordinator of run {folder.run_id} is not in "
            f"{folder.coordinator_path}, so nobody can sign its dossier. Put the file "
            "identity.key back, or run the experiment again."
        )
    return coordinator_identity(folder)


def _form(
    path: str, what: str, make: Callable[[], bytes], compare: Callable[[bytes], Comparison]
) -> _Form:
    """A form of the model, compared with torch's; or why it is left out.

    Args:
        path: its file in the dossier.
        what: it is, in words.
        make: makes its content.
        compare: compares a content with torch's.
    """
    try:
        content = make()
        compared = compare(content)
    except ConsiliumError as error:
        return _Form(path, what, None, None, without_places(str(error)))
    if compared.equal:
        return _Form(path, what, content, compared)
    return _Form(
        path,
        what,
        None,
        compared,
        f"Its outputs differ from torch's by {compared.largest:.1e}, and what it predicts by "
        f"{compared.predicted:.1e}, which is more than the {TOLERANCE:g} that rounding may make.",
    )


def _told(
    found: RegisteredWeights,
    header: ModelHeader,
    network: nn.Module,
    licence: str | None,
    attacks: Path | None,
    forms: list[_Form],
    identity: Identity,
) -> ReleasedModel:
    """What the card says of the model.

    Args:
        found: the model in the registry.
        header: its header.
        network: with its weights.
        licence: of the weights.
        attacks: a text of what attacks have found.
        forms: other than safetensors.
        identity: who signs.
    """
    formats = [
        (WEIGHTS, "the weights, and in its metadata the network's description; exact"),
        *(form.told() for form in forms),
        (BUNDLE, "a MONAI bundle: monai.bundle.load gives the network with these weights"),
        (MATERIALS, "what is installed where this was made, as CycloneDX 1.6"),
        (REPORT, "the report of the run, without pictures of cases"),
        ("summary.json, config.json", "the run's numbers and its settings, for programs"),
        (CHECKS, "the comparisons above, for programs"),
    ]
    return ReleasedModel(
        str(found.name),
        str(found.version),
        found.aliases,
        found.site,
        header,
        sum(tensor.numel() for tensor in network.parameters()),
        licence,
        None if attacks is None else _attacks(attacks),
        formats,
        identity.public.fingerprint,
    )


def _attacks(path: Path) -> str:
    try:
        content = path.read_bytes()
        if len(content) > LONGEST_ATTACKS:
            raise ConsiliumError(
                f"The file {path} has {len(content)} bytes; a text of at most {LONGEST_ATTACKS} is "
                "taken into the card. Shorten it."
            )
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _write_model(
    place: Path, network: nn.Module, header: ModelHeader, forms: list[_Form], told: ReleasedModel
) -> None:
    """Write the weights in each form, and how they compare.

    Args:
        place: the dossier's folder.
        network: with its weights.
        header: its header.
        forms: other than safetensors.
        told: of the model.
    """
    save_model(place / WEIGHTS, network, header)
    for form in forms:
        if form.content is not None:
            _write(place / form.path, form.content)
    compared = {
        form.path: {"left_out": form.refused or None}
        | (asdict(form.compared) if form.compared else {})
        for form in forms
    }
    checks = {"model": told.name, "version": told.version, "tolerance": TOLERANCE}
    _write_json(place / CHECKS, checks | {"compared_with_torch": compared})


def _write_bundle(
    place: Path, network: nn.Module, header: ModelHeader, told: ReleasedModel, values: RunValues
) -> None:
    """Write the MONAI bundle, but for its metadata and its TorchScript file.

    Args:
        place: the bundle's folder.
        network: with its weights.
        header: its header.
        told: of the model.
        values: of its run.
    """
    _write(place / bundle.WEIGHTS, bundle.state_file(network))
    run = bundle.inference(header, told.name, told.version)
    _write(place / bundle.INFERENCE, bundle.as_json(run))
    _write(
        place / "LICENSE",
        f"{told.licence or 'Not stated: ask who has released this model.'}\n\n"
        f"Licence of the data that the model was trained on: {values.info.licence}\n",
    )


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _write_json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value, indent=2) + "\n")


def _register(found: RegisteredWeights, out: Path, card: Card) -> str:
    """Keep the dossier in MLflow: the card as the version's description, the folder in its run."""
    name, version = str(found.name), str(found.version)
    try:
        registry = client()
        text = card_markdown(card, LONGEST_DESCRIPTION)
        registry.update_model_version(name, version, description=text)
        # A second dossier of a version is not mixed with the first.
        made = hashlib.sha256((out / MANIFEST).read_bytes()).hexdigest()[:12]
        place = f"dossier/{name}-{version}-{made}"
        registry.log_artifacts(str(found.mlflow_run_id), str(out), artifact_path=place)
    except unusable_errors() as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        return f"MLflow has not taken all of the dossier ({said}); the folder is whole."
    return ""
