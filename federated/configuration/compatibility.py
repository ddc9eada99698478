"""Which settings go together: what is refused when the configuration is read, and why."""

from collections.abc import Iterable, Iterator
from math import prod

from federated.compression import COMPRESSIONS
from federated.configuration.dask_access import reasons_of_dask
from federated.configuration.experiment import Experiment
from federated.configuration.explain import closest
from federated.configuration.subgroups import reasons_of_final_evaluation
from federated.data.family_of import family_of, task_name
from federated.data.folders.families import FAMILIES, Family
from federated.data.folders.families.base import MULTIPLE
from federated.data.folders.harmonised_family import harmonise_fault
from federated.data.medmnist.files import DATASETS
from federated.errors import ConsiliumError
from federated.learning import TASKS, LearningTask, overall_metrics
from federated.learning.suppression import LEAST_MINIMUM
from federated.privacy import NoPrivacy
from federated.protection import PROTECTIONS
from federated.settings.base import Settings
from federated.settings.networks import NETWORKS, NNUNet
from federated.settings.sections import Dask, Parties, Processes
from federated.strategies import STRATEGIES, FineTune, ResFIM


def refuse(experiment: Experiment, where: str) -> None:
    """Refuse an experiment whose sections do not go together.

    ``where`` says where the configuration comes from, as ``params.yaml``.

    Raises:
        ConsiliumError: they do not; the message names the first reason, with the settings that it
            is about and what to change.
    """
    for reason in _reasons(experiment):
        raise ConsiliumError(f"Experiment {experiment.name} of {where} cannot be used: {reason}")
    try:
        # The second is of all sites, where sums of their evaluation are told.
        for cohort in dict.fromkeys((experiment.cohort(), experiment.largest_cohort())):
            experiment.protection.check(cohort)
    except ConsiliumError as error:
        raise ConsiliumError(
            f"Experiment {experiment.name} of {where} cannot be used: {error}"
        ) from error


def _reasons(experiment: Experiment) -> Iterator[str]:
    dataset, model = experiment.data.dataset, experiment.model
    strategy, compression = experiment.strategy, experiment.compression
    protection = experiment.protection
    yield from _reasons_of_data(experiment)
    yield from _reasons_of_harmonisation(experiment)
    yield from _reasons_of_planning(experiment)
    yield from _reasons_of_task(experiment)
    yield from _reasons_of_metric(experiment)
    yield from _reasons_of_evaluation(experiment)
    if isinstance(experiment.runner, Dask):
        yield from reasons_of_dask(experiment.runner)
    if isinstance(experiment.runner, Processes) and experiment.runner.stacked_sites > 1:
        yield from _reasons_of_stacking(experiment, experiment.runner.stacked_sites)
    if isinstance(experiment.runner, Parties) and strategy.pools_cases:
        yield (
            f"strategy.name={strategy.name} trains on the cases of all sites together, and with "
            "runner.name=sites these never leave their sites. Use it with another runner, on one "
            "machine."
        )
    pictures = experiment.data.described and experiment.data.described.kind == "pictures"
    if model.dims == {3} and (pictures or (dataset in DATASETS and not dataset.endswith("3d"))):
        yield (
            f"model.name={model.name!r} takes volumes, but data.dataset={dataset!r} holds 2D "
            "images. Use model.name=small_cnn, shallow_cnn or dp_resnet."
        )
    if strategy.name in ("local", "central"):
        plain = compression.name == "none" and compression.bits is None
        if protection.name != "plain" or not plain:
            yield (
                f"strategy.name={strategy.name} is a baseline in which no site sends an update, so "
                "there is nothing to compress or protect. Set compression.name=none, without bits, "
                "and protection.name=plain."
            )
    yield from _reasons_of_personalisation(experiment)
    yield from _reasons_of_privacy(experiment)
    yield from _reasons_of_protection(experiment)
    if (protection.keyed or protection.masked) and experiment.runner.name == "serial":
        yield (
            f"runner.name=serial runs sites and coordinator in one process, which would hold the "
            f"sites' keys; protection.name={protection.name} needs runner.name=processes or dask."
        )


def _reasons_of_stacking(experiment: Experiment, sites: int) -> Iterator[str]:
    """Refuse several sites in one call where each has to be computed alone."""
    privacy, model = experiment.privacy, experiment.model
    remedy = f"or leave out runner.stacked_sites={sites}, which trains several in one call."
    if privacy.unit is not None:
        yield (
            f"privacy.name={privacy.name} clips and noises what a site learns by itself, and a "
            f"private site trains alone. Set privacy.name=none, {remedy}"
        )
    if experiment.training.precision != "float32":
        yield (
            f"training.precision={experiment.training.precision} is for sites that train one after "
            f"the other. Set training.precision=float32, {remedy}"
        )
    if not model.stated("stacks"):
        stacking = (network for network in NETWORKS if network.stated("stacks"))
        yield (
            f"model.name={model.name} does not state that networks of several sites can be "
            f"computed together. Set model.name={_listed(stacking)}, {remedy}"
        )


def _reasons_of_data(experiment: Experiment) -> Iterator[str]:
    """Refuse a data set that nobody knows, or a description that is not that set's."""
    dataset, described = experiment.data.dataset, experiment.data.described
    known = (*DATASETS, *FAMILIES)
    if described is None and dataset not in known:
        yield (
            f"data.dataset={dataset!r} is not known.{closest(dataset, known)} Known data sets: "
            f"{', '.join(known)}. A set of your own is a folder of that name below data.root or "
            "CONSILIUM_DATA with a dataset.yaml, which `consilium data init` proposes."
        )
    if described is None:
        return
    if dataset in known:
        yield (
            f"data.described describes {dataset}, which the project knows already. Give the "
            "folder of your own data another name."
        )
    if not described.settled:
        yield (
            "data.described leaves shape or spacing to the images (`auto`), and was taken over "
            "without them. Name the experiment by params.yaml, so that its dataset.yaml is read."
        )


def _reasons_of_harmonisation(experiment: Experiment) -> Iterator[str]:
    """Refuse a standard scale for intensities that have a unit, or one that is not the set's."""
    data = experiment.data
    if data.described and data.described.features and data.source == "phantom":
        yield (
            f"the dataset.yaml of {data.dataset} has features, which are numbers derived from its "
            "real images, and data.source=phantom generates others. Set data.source=files, or "
            "leave features out."
        )
    planned = LANDMARKS in experiment.planning.auto
    if data.harmonise == "none" and data.landmarks is None and not planned:
        return
    family = family_of(data.dataset, data.described)
    # Until they are planned the way without any has to be possible.
    way = "percentiles" if planned and data.harmonise == "nyul" else data.harmonise
    if fault := harmonise_fault(family, way, data.landmarks):
        yield fault.replace("data.harmonise=percentiles", f"data.harmonise={data.harmonise}")
    elif planned and data.harmonise != "nyul":
        yield (
            f"data.landmarks=auto is a standard scale, and data.harmonise={data.harmonise} uses "
            "none. Set data.harmonise=nyul, or leave data.landmarks out."
        )
    elif planned and experiment.statistics.epsilon is not None:
        yield (
            "data.landmarks=auto are sums of landmarks, which are not told with noise, and "
            f"statistics.epsilon={experiment.statistics.epsilon:g} asks for it. Leave it out, "
            "state data.landmarks, or set data.harmonise=percentiles."
        )


def _reasons_of_protection(experiment: Experiment) -> Iterator[str]:
    protection, compression = experiment.protection, experiment.compression
    if not (protection.keyed or protection.masked):
        return
    name = f"protection.name={protection.name}"
    if not (compression.same_positions and compression.stated("form_is_public")):
        public = (c for c in COMPRESSIONS if c.stated("form_is_public"))
        yield (
            f"compression.name={compression.name} lets every site choose its own positions, or "
            f"does not state otherwise: they would travel in the clear, and sums under {name} add "
            f"position by position. Use compression.name={_listed(reversed([*public]))}."
        )
    if not protection.stated("hides_updates_from"):
        yield (
            f"{name} has keys or masks and does not state from whom it hides an update, so nobody "
            "can rely on it. Set protection.name=plain, or one that does."
        )


def _listed(sections: Iterable[type[Settings]]) -> str:
    """The names of sections, as a person reads them: ``fedavg, fedprox or fedbn``."""
    names = [section.model_fields["name"].default for section in sections]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _reasons_of_personalisation(experiment: Experiment) -> Iterator[str]:
    strategy = experiment.strategy
    name = f"strategy.name={strategy.name}"
    if isinstance(strategy, FineTune) and strategy.tuning_rounds >= experiment.rounds:
        yield (
            f"strategy.tuning_rounds={strategy.tuning_rounds} leaves none of {experiment.rounds} "
            "rounds to train together. Lower it, or raise rounds."
        )
    if isinstance(strategy, ResFIM):
        if experiment.sites.count < 2:
            yield f"{name} compares styles of sites, and sites.count=1. Raise it."
        if experiment.model.norm in ("batch", "batch_fixed"):
            yield (
                f"{name} needs gradients of single cases, which model.norm="
                f"{experiment.model.norm} mixes. Set model.norm=group or instance."
            )
        if experiment.compression.name != "none":
            yield (
                f"compression.name={experiment.compression.name} sends some positions, but {name} "
                "sends with every value for how many sites it holds, and the two have to arrive "
                "together. Set compression.name=none, with compression.bits to send less."
            )


def _reasons_of_metric(experiment: Experiment) -> Iterator[str]:
    """Refuse a metric to choose models by that the task does not have."""
    data, metric = experiment.data, experiment.selection.metric
    task = task_of_experiment(experiment)
    chosen = [f"val/{name}" for name in task.metrics_in("selects")]
    if metric not in chosen:
        yield (
            f"selection.metric={metric!r}, and data.dataset={data.dataset} is for {task.goal}, "
            f"where a model is chosen by one of {', '.join(chosen)}.{closest(metric, chosen)}"
        )


def task_of_experiment(experiment: Experiment) -> LearningTask:
    """What the experiment's data are for; classification where they are not known."""
    return TASKS[task_name(experiment.data.dataset, experiment.data.described)]


def _reasons_of_evaluation(experiment: Experiment) -> Iterator[str]:
    """Refuse a metric to choose models by that what sites send of evaluation does not give."""
    evaluation, metric = experiment.evaluation, experiment.selection.metric
    minimum = evaluation.min_count
    if 0 < minimum < LEAST_MINIMUM:
        yield (
            f"evaluation.min_count={minimum} hides no count: what is withheld for being below 2 is "
            f"known to be 1. Set evaluation.min_count={LEAST_MINIMUM} or more, or 0 to hide none."
        )
    if minimum and evaluation.share == "predictions":
        yield (
            f"evaluation.min_count={minimum} withholds small counts, and evaluation.share="
            "predictions sends every case. Set evaluation.share=statistics or metrics, or leave "
            "evaluation.min_count out."
        )
    if evaluation.calibrates:
        yield from _reasons_of_calibration(experiment)
    yield from reasons_of_final_evaluation(experiment)
    if evaluation.share == "predictions":
        return
    if evaluation.share == "sums":
        yield from _reasons_of_sums(experiment)
    task = task_of_experiment(experiment)
    given = overall_metrics(task, evaluation)
    chosen = [f"val/{name}" for name in task.metrics_in("selects") if name in given]
    if metric not in chosen:
        setting = (
            "evaluation.share=metrics sends each site's own value, of which none over all cases "
            "follows"
            if evaluation.share == "metrics"
            else f"evaluation.min_count={minimum} withholds the histograms that it follows from, "
            "which nearly always have small counts"
        )
        yield (
            f"selection.metric={metric!r} would have no value: {setting}. Set selection.metric="
            f"{' or '.join(chosen)}, or change evaluation."
        )


def _reasons_of_calibration(experiment: Experiment) -> Iterator[str]:
    """Refuse a calibration of what has no classes of images, or that would never be known."""
    evaluation, task = experiment.evaluation, task_of_experiment(experiment)
    asked = "evaluation.conformal" if evaluation.conformal else "evaluation.calibration"
    if evaluation.calibration != "none":
        asked = f"evaluation.calibration={evaluation.calibration}"
    if task.goal != "classification":
        yield (
            f"{asked} is for one class of an image, and data.dataset={experiment.data.dataset} is "
            f"for {task.goal}. Leave it out."
        )
    if evaluation.share == "metrics":
        yield (
            f"{asked} follows from counts and sums over cases, and evaluation.share=metrics sends "
            "none. Set evaluation.share=statistics, or sums with a protection that adds them."
        )
    if evaluation.min_count:
        yield (
            f"{asked} follows from histograms, which evaluation.min_count={evaluation.min_count} "
            "withholds, since they nearly always have small counts. Leave evaluation.min_count "
            "out; with evaluation.share=sums small counts are told in sums over all sites alone."
        )


def _reasons_of_sums(experiment: Experiment) -> Iterator[str]:
    """Refuse sums over sites that a protection does not add exactly, or that tables are not in."""
    minimum, protection = experiment.evaluation.min_count, experiment.protection
    if minimum:
        yield (
            f"evaluation.min_count={minimum} lets a site withhold a table, and with evaluation."
            "share=sums the sum of that table would be of the other sites alone, and so perhaps of "
            "one. Leave evaluation.min_count out, or set evaluation.share=statistics or metrics."
        )
    if not protection.stated("sums_integers"):
        exact = (p for p in PROTECTIONS if p.stated("sums_integers"))
        yield (
            f"evaluation.share=sums opens a sum of whole numbers beside that of the updates, which "
            f"protection.name={protection.name} is not made for. Set protection.name="
            f"{_listed(exact)}, or evaluation.share=statistics."
        )


def _reasons_of_task(experiment: Experiment) -> Iterator[str]:
    """Refuse settings that belong to another task than that of the data."""
    data, training, sites = experiment.data, experiment.training, experiment.sites
    model = experiment.model
    family, described = family_of(data.dataset, data.described), data.described
    task = task_of_experiment(experiment)
    purpose = f"data.dataset={data.dataset} is for {task.goal}"
    for setting in ("class_weights", "sampling"):
        if getattr(training, setting) == "balanced" and setting not in task.balances:
            yield f"{purpose}, but training.{setting}=balanced is for classes of images."
    if sites.partition in ("dirichlet", "pathological") and not task.groups:
        yield (
            f"{purpose}, where cases have no class to share out by, but sites.partition="
            f"{sites.partition}. Use iid, quantity or natural."
        )
    spaced = family.spacing if family else described and described.kind == "volumes"
    if data.spacing is not None and not spaced:
        yield (
            f"data.spacing={_sides(data.spacing)} is the side of a voxel in mm, which images of "
            f"data.dataset={data.dataset} do not have. Leave it out."
        )
    if family is None:
        wrong = {
            f"model.name={model.name}": model.segments,
            "sites.overlays=true": sites.overlays,
            f"training.augment={training.augment}": training.augment == "nnunet",
        }
        for setting, given in wrong.items():
            if given:
                yield (
                    f"{setting} is for segmentation, and {purpose}. Leave it out, or use one of "
                    f"{', '.join(FAMILIES)}."
                )
        if described is not None and data.source == "medmnist":
            yield (
                f"data.dataset={data.dataset} is described by a dataset.yaml and not of MedMNIST. "
                "Set data.source=files or phantom."
            )
        if sites.partition == "natural" and described is None:
            yield (
                f"data.dataset={data.dataset} does not say which hospital a case comes from. Use "
                "another sites.partition than natural."
            )
        if training.patches_per_case != 1:
            yield (
                f"training.patches_per_case={training.patches_per_case} is for images too large "
                f"for the network; those of data.dataset={data.dataset} pass whole. Leave it out."
            )
        return
    if not model.segments:
        yield f"{purpose}, but model.name={model.name!r} classifies. Set model.name=unet."
    if data.patch is not None and len(data.patch) != family.dims:
        yield f"data.patch has {len(data.patch)} sides, and images of {family.name} {family.dims}."
        return
    family = family.with_spacing(data.spacing).with_patch(data.patch)
    planned = experiment.planning.auto
    if isinstance(model, NNUNet):
        if "model.levels" not in planned:
            yield from _reasons_of_levels(model, family)
    elif data.patch is not None and any(side % MULTIPLE for side in data.patch):
        yield (
            f"data.patch={'x'.join(map(str, data.patch))} has a side that is no multiple of "
            f"{MULTIPLE}, and model.name={model.name} halves it three times."
        )
    if data.source == "medmnist":
        yield (
            f"{purpose} and not of MedMNIST. Set data.source=files, phantom, or auto for a "
            "phantom where there are no files."
        )
    if family.whole and "data.patch" not in planned and training.patches_per_case != 1:
        yield (
            f"training.patches_per_case={training.patches_per_case}, but cases of {data.dataset} "
            "pass whole. Leave it out."
        )


def _sides(spacing: float | tuple[float, ...]) -> str:
    """The sides of a voxel as a person writes them."""
    return "x".join(f"{side:g}" for side in (spacing if isinstance(spacing, tuple) else (spacing,)))


# What of a description may be planned, whatever is learned.
LANDMARKS = "data.landmarks"
DESCRIBED = ("data.described.spacing", "data.described.shape")


def _reasons_of_planning(experiment: Experiment) -> Iterator[str]:
    """Refuse what nothing that is counted of cases would say."""
    auto, data = experiment.planning.auto, experiment.data
    if not auto:
        return
    family = family_of(data.dataset, data.described)
    others = [key for key in auto if key not in (*DESCRIBED, LANDMARKS)]
    if family is None and others:
        yield (
            f"{others[0]}=auto is planned for segmentation, and data.dataset={data.dataset} is for "
            "classification. State a number."
        )
        return
    if family is not None and family.spacing is None and "data.spacing" in auto:
        yield (
            f"data.spacing=auto is in mm, which images of {data.dataset} do not have. Leave it out."
        )
    network = {"data.patch", "training.batch_size", "model.levels"} & set(auto)
    if network and not isinstance(experiment.model, NNUNet):
        yield (
            f"{sorted(network)[0]}=auto follows from a network that is planned with it. Set "
            "model.name=nnunet, or state a number."
        )
    if "data.patch" in auto and "model.levels" not in auto:
        yield (
            "data.patch=auto is planned together with the levels that divide it, which are stated. "
            "Set model.levels=auto, or state data.patch."
        )
    if isinstance(experiment.model, NNUNet) and experiment.model.planner == "nnunet":
        given = {"data.spacing", "data.patch", "training.batch_size", "model.levels"} - set(auto)
        if given:
            yield (
                f"model.planner=nnunet plans everything by itself, and {sorted(given)[0]} is "
                "stated. Set it to auto, or model.planner=consilium."
            )


def _reasons_of_levels(model: NNUNet, family: Family) -> Iterator[str]:
    """Refuse a network of a plan whose levels are not stated, or do not fit what it is to see."""
    if model.levels == "auto":
        yield (
            "model.name=nnunet has no levels, and nothing says that they are to be planned. Name "
            "the experiment by params.yaml with model.levels=auto, so that its sites' cases are "
            "counted; or state them, each with features, kernel and stride."
        )
        return
    sides = [prod(level.stride[axis] for level in model.levels) for axis in range(family.dims)]
    if any(len(level.stride) != family.dims for level in model.levels):
        yield f"model.levels are not those of images with {family.dims} dimensions."
    elif any(n % side for n, side in zip(family.shape, sides, strict=True)):
        yield (
            f"model.levels divide an image by {'x'.join(map(str, sides))}, and the network sees "
            f"{'x'.join(map(str, family.shape))} of {family.name} at once, which is no multiple. "
            "Take fewer levels, or other strides."
        )


def _reasons_of_privacy(experiment: Experiment) -> Iterator[str]:
    privacy, training = experiment.privacy, experiment.training
    if isinstance(privacy, NoPrivacy):
        return
    name = f"privacy.name={privacy.name}"
    if privacy.unit is None:
        yield f"{name} does not state whom it protects, a record or a site. Set privacy.name=none."
        return
    if experiment.strategy.name in ("local", "central"):
        yield (
            f"strategy.name={experiment.strategy.name} is a baseline in which no site sends an "
            f"update, and {name} is about what is sent. Set privacy.name=none."
        )
    strategy, compression = experiment.strategy, experiment.compression
    if privacy.unit not in (strategy.stated("covered_by_privacy") or ()):
        covered = (s for s in STRATEGIES if privacy.unit in (s.stated("covered_by_privacy") or ()))
        yield (
            f"strategy.name={strategy.name} trains or looks at the cases beside the update that "
            f"{name} accounts for, or keeps layers that have none of its noise, and what comes of "
            f"it is evaluated. Covered for each {privacy.unit} are strategy.name="
            f"{_listed(covered)}; or take privacy.name=none."
        )
    if not compression.stated("form_is_public"):
        public = (c for c in COMPRESSIONS if c.stated("form_is_public"))
        yield (
            f"compression.name={compression.name} sends and remembers which are the site's own "
            f"largest values, or does not state otherwise, and {name} does not account for that. "
            f"Use compression.name={_listed(public)}."
        )
    if experiment.protection.stated("hides_updates_from") is None:
        yield (
            f"protection.name={experiment.protection.name} does not state from whom it hides an "
            f"update, so {name} cannot rest on it. Set protection.name=plain."
        )
    if privacy.noise_in_sum:
        yield from _reasons_of_distributed_noise(experiment)
    if privacy.unit == "record":
        if experiment.model.norm == "batch":
            yield (
                "model.norm=batch mixes the cases of a batch, so that no case has a gradient of "
                f"its own to clip, which {name} needs. Set model.norm=group or instance, or "
                "batch_fixed, for BatchNorm as Opacus' fixer replaces it."
            )
        label_counts = {
            f"training.class_weights={training.class_weights}": training.class_weights != "none",
            f"training.sampling={training.sampling}": training.sampling != "shuffle",
        }
        for setting, given in label_counts.items():
            if given:
                yield (
                    f"{setting} uses a site's number of cases of each class, which {name} does not "
                    "account for. Leave it out."
                )
        if training.precision != "float32":
            yield (
                f"training.precision={training.precision} is not supported with {name}. Set "
                "training.precision=float32."
            )


def _reasons_of_distributed_noise(experiment: Experiment) -> Iterator[str]:
    privacy, selected = experiment.privacy, experiment.sites.selected
    name = f"privacy.name={privacy.name}"
    if "coordinator" not in (experiment.protection.stated("hides_updates_from") or ()):
        yield (
            f"{name} leaves each update with a share of the noise, so nobody may see it alone. Use "
            "protection.name=secagg_plus or rlwe_secagg, or packed_bfv or ckks where sites trust "
            "each other, or privacy.name=site_level."
        )
    if experiment.compression.bits is None:
        yield f"{name} adds integer noise to quantised updates. Set compression.bits, best to 16."
    if privacy.allowed_missing >= selected:
        yield (
            f"privacy.missing={privacy.allowed_missing} leaves none of the {selected} sites "
            "of a round to add noise. Lower it, or raise sites.count."
        )
