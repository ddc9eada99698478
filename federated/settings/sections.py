"""The sections of an experiment in params.yaml that do not depend on one another.

The sections ``model``, ``strategy``, ``privacy``, ``compression`` and ``protection`` are instead
the classes that do the work.
"""

from math import ceil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from federated.settings.base import Settings
from federated.settings.description import Description
from federated.settings.harmonisation import Harmonise, Landmarks
from federated.settings.subgroups import Subgroups

Millimetres = Annotated[float, Field(gt=0)]
ThreeSides = Annotated[tuple[Millimetres, ...], Field(min_length=3, max_length=3)]
# What may be `auto`: planned from what sites count of their cases, before anything is trained.
Planned = Literal[
    "data.spacing",
    "data.patch",
    "training.batch_size",
    "model.levels",
    "data.landmarks",
    "data.described.spacing",
    "data.described.shape",
]


# How training images are changed, and which cases an epoch draws.
Augment = Literal["none", "flips", "torchio", "nnunet"]
Sampling = Literal["shuffle", "balanced"]
# Whether a classifier's probabilities are made neither too sure nor too shy.
Scaling = Literal["none", "temperature"]
# What the coordinator is told of the evaluation of each site's cases, from least to most.
Share = Literal["sums", "metrics", "statistics", "predictions"]
# What is told of training cases, from least to most: counts with noise, exact sums over sites that
# the protection hides, or each site's own counts.
Told = Literal["noised", "sums", "clear"]
# Of one run. A plan names them all, with their keys: ``exchange/kinds.py`` has how long it may be.
MOST_SITES = 5000
# The largest alpha of prediction sets; beyond it no case would have to be covered.
MOST_MISSED = 0.999999


class DataSettings(Settings):
    """Which images an experiment uses, where they come from, and on which scale of intensities.

    ``size`` is the side in pixels or voxels of a MedMNIST set's images; those of a folder have
    their own. ``spacing`` are the sides of a voxel in mm that volumes of a folder are resampled to,
    if not the set's own: one for all axes, or one each, to the right, anterior and superior.
    ``patch`` are the sides in voxels of what a network sees of a segmentation set's cases at once,
    if not the set's own. ``phantom_seed`` is what generated images are drawn from.

    ``harmonise`` brings volumes without a physical unit, as of MRI, to one scale: by two
    ``percentiles`` of each image, or to the ``landmarks`` of each modality after Nyúl, which
    `consilium statistics` learns from the sites. Nothing else of a case is then used to scale it.
    """

    dataset: str = "organmnist3d"
    source: Literal["medmnist", "files", "phantom", "auto"] = "medmnist"
    root: Path = Path("data")
    size: Literal[28, 64] = 28
    spacing: Millimetres | ThreeSides | None = None
    patch: tuple[Annotated[int, Field(ge=8, le=2048)], ...] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    phantom_seed: int = Field(default=0, ge=0)
    # What the set's dataset.yaml says, where it has one; it is read with the configuration.
    described: Description | None = Field(default=None, exclude_if=lambda value: value is None)
    # Left out where there is none, so that plans and runs of before stay what they were.
    harmonise: Harmonise = Field(default="none", exclude_if=lambda value: value == "none")
    landmarks: Landmarks | None = Field(default=None, exclude_if=lambda value: value is None)

    def __hash__(self) -> int:
        """By what it says: a mapping has no hash of its own."""
        return hash(self.model_dump_json())


class SitesSettings(Settings):
    """How cases are dealt to simulated sites, and how these take part.

    A site that fails in a round, or refuses to send what it trained, stops the run or, with
    ``on_dropout: continue``, is left out of that round's mean. ``natural`` sites are those that the
    data name, or those divided evenly by patient where ``count`` is a multiple of theirs.
    ``overlays`` keeps pictures of test cases with their masks in the run's folder and in MLflow:
    images of patients leave the site for it.
    """

    count: int = Field(default=10, ge=1, le=MOST_SITES)
    partition: Literal["iid", "dirichlet", "pathological", "quantity", "natural"] = "dirichlet"
    beta: float = Field(default=0.5, gt=0)
    classes_per_site: int = Field(default=2, ge=1)
    min_cases: int = Field(default=10, ge=1)
    participation: float = Field(default=1.0, gt=0, le=1)
    on_dropout: Literal["abort", "continue"] = "abort"
    scanner_shift: bool = False
    overlays: bool = False

    @property
    def selected(self) -> int:
        """How many sites are selected in a round, where validation has excluded none."""
        return self.selected_of(self.count)

    def selected_of(self, sites: int) -> int:
        """How many of ``sites`` are selected in a round: the share of them, at least one."""
        return ceil(self.participation * sites)


class ValidationSettings(Settings):
    """What is checked of a site's data, and what happens where it fails.

    ``drop-case`` leaves out the cases that break a rule, and a site that fails all the same.
    ``outlier`` is how many robust standard deviations a volume's size or intensity may be from the
    median of its site's.
    """

    on_failure: Literal["abort", "exclude-site", "drop-case"] = "abort"
    min_cases_per_class: int = Field(default=1, ge=1)
    outlier: float = Field(default=6.0, gt=0)


class TrainingSettings(Settings):
    """The local loop at a site.

    The backbone, which is everything but the head, is frozen for ``freeze_rounds`` rounds and then
    trained with ``backbone_lr`` times the learning rate of the head. With ``trainable`` only the
    layers that it names are trained: ``norm`` for all normalisation layers, ``head``, or others by
    the beginning of their tensors' names, as ``down.0``. In an epoch, each case that is too large
    for the network gives ``patches_per_case`` patches. A round has ``local_epochs`` epochs, or
    ``local_steps`` steps where that is set.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=3e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    batch_size: int = Field(default=32, ge=1)
    patches_per_case: int = Field(default=1, ge=1)
    local_epochs: int = Field(default=1, ge=1)
    local_steps: Annotated[int, Field(ge=1)] | None = None
    augment: Augment = "flips"
    sampling: Sampling = "shuffle"
    class_weights: Literal["none", "balanced"] = "none"
    freeze_rounds: int = Field(default=0, ge=0)
    backbone_lr: float = Field(default=1.0, ge=0)
    trainable: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def drawn(self, cases: int) -> int:
        """How many cases, or patches of them, an epoch over so many cases draws."""
        return cases * self.patches_per_case


class SelectionSettings(Settings):
    """Which round's model a run keeps, when it stops early, and what makes a champion.

    Models are evaluated after every ``every`` rounds, and after the last. ``keep`` is the best of
    these by ``metric``, or the last one. With ``patience`` a run ends once the best model is that
    many rounds old.
    """

    metric: str = "val/auc"
    keep: Literal["best", "last"] = "best"
    every: int = Field(default=1, ge=1)
    patience: Annotated[int, Field(ge=1)] | None = None


class Conformal(Settings):
    """Split conformal prediction sets of a classifier, which miss the true class in ``alpha``.

    A set has every class whose probability is at least a threshold, which follows from validation
    cases; a case whose set misses its true class is one of a share of at most ``alpha`` in the
    mean over draws of cases, if those of validation and new ones are exchangeable.
    """

    alpha: float = Field(default=0.1, gt=0, le=MOST_MISSED)


class EvaluationSettings(Settings):
    """What sites send of how good a model is at their validation and test cases.

    ``share`` is ``statistics``, counts and sums that add up over sites; ``sums``, of which the
    coordinator learns those over all sites alone, by the run's protection; ``predictions`` of every
    case, from which all metrics are exact; or ``metrics``, each site's own alone, of which those
    that are means over cases have an overall value and no others. With ``min_count`` a site
    withholds tables of counts from which a number of cases between 0 and that could be read, and
    what follows from them has no value; 0 withholds nothing.

    ``calibration`` is ``temperature`` for a classifier whose probabilities are scaled by one
    temperature, fitted on the validation cases of all sites by statistics that they send beside the
    others, and kept with the model. ``conformal`` asks for prediction sets, whose thresholds are
    kept with the model too.

    ``subgroups`` names attributes of cases, as a table has them, with their values or with numbers
    between which groups lie, as ``{sex: [F, M], age: [40, 60]}``; a case of which something else is
    said, or nothing, is in a last group. ``uncertainty: flips`` measures how far a segmentation
    changes with the image turned over. Both are told once, at the end of a run, of test cases by
    the model that it keeps.
    """

    share: Share = "statistics"
    min_count: int = Field(default=0, ge=0)
    # Left out where there is none, so that plans and runs of before stay what they were.
    calibration: Scaling = Field(default="none", exclude_if=lambda value: value == "none")
    conformal: Conformal | None = Field(default=None, exclude_if=lambda value: value is None)
    subgroups: Subgroups | None = Field(default=None, exclude_if=lambda value: value is None)
    uncertainty: Literal["none", "flips"] = Field(
        default="none", exclude_if=lambda value: value == "none"
    )

    def __hash__(self) -> int:
        """By what it says: a mapping has no hash of its own."""
        return hash(self.model_dump_json())

    @property
    def calibrates(self) -> bool:
        """Whether something that follows from validation cases is kept with the model."""
        return self.calibration != "none" or self.conformal is not None

    @property
    def evaluates_at_end(self) -> bool:
        """Whether something is told of test cases once, after the last round."""
        return self.subgroups is not None or self.uncertainty != "none"


class StatisticsSettings(Settings):
    """What sites let be counted of their training cases, before there is a model.

    With ``epsilon`` each site adds discrete Gaussian noise to its own counts, for (ε, δ) of one
    patient, of whom at most ``cases_per_patient`` cases are counted; without it counts are exact
    and have no bound. Counts of fewer cases than ``min_count`` are not told: by the report, and
    where nothing hides a site's counts by the site; 0 tells all.
    """

    epsilon: Annotated[float, Field(gt=0)] | None = None
    delta: float = Field(default=1e-5, gt=0, lt=1)
    cases_per_patient: int = Field(default=1, ge=1)
    min_count: int = Field(default=0, ge=0)


class PlanningSettings(Settings):
    """Which values of an experiment are `auto` and still to be planned; none once they are.

    What stands in their place until then is nobody's choice: an experiment with any of them is
    refused wherever something would be trained.
    """

    auto: tuple[Planned, ...] = ()


class Serial(Settings):
    """Everything runs in the process of the flow, one site after another."""

    name: Literal["serial"] = "serial"


class Processes(Settings):
    """A pool of worker processes on this machine, with one torch thread each.

    Up to ``stacked_sites`` sites train in one call of a worker, for small networks on a GPU; with 1
    each trains by itself.
    """

    name: Literal["processes"] = "processes"
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    # Left out where it says nothing, so that plans and runs of before stay what they were.
    stacked_sites: int = Field(default=1, ge=1, exclude_if=lambda value: value == 1)


class Parties(Settings):
    """The sites of a consortium: each does its part itself, at home, and tells the coordinator.

    A site is waited for until ``deadline`` seconds after it was asked for a stage, or ``joining``
    seconds where it is asked to take part; and no longer than until it has not said hello for
    ``silence`` seconds. Who is late is left out of the round, and comes back in a later one; one
    that was late in ``patience`` rounds, without as many good ones in succession in between, is not
    asked again before it has said hello.
    A round in whose sum fewer than ``quorum`` sites would be, or fewer than ``min_cases`` training
    cases, is lost: the model stays as it is.
    """

    name: Literal["sites"] = "sites"
    deadline: float = Field(default=3600, gt=0)
    joining: float = Field(default=120, gt=0)
    silence: float = Field(default=120, gt=0)
    quorum: int = Field(default=1, ge=1)
    min_cases: int = Field(default=1, ge=1)
    patience: int = Field(default=2, ge=1)


class Dask(Settings):
    """Workers of a Dask cluster that share this folder; it needs the extra ``dask``.

    ``address`` is ``tls://HOST:PORT``, with three PEM files: the authority that signed the
    certificates of scheduler and workers, and a certificate and a key of the same authority for the
    run. Or it is a loopback address, without them. If it is left out, the run makes a cluster of
    its own on this machine, which it alone can reach, with ``workers`` processes.

    Where workers of the cluster offer the resource ``GPU``, stages that use one go to these alone.
    """

    name: Literal["dask"] = "dask"
    address: str | None = None
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
