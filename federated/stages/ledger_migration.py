"""Taking over ledgers of older versions into the holder's one ledger; nothing is lost.

The records that an old ledger is of follow from its name where a partition that gives that name is
at hand: the partitions of runs that are still there, and those dealt anew for the experiments of
the parameter file. If a ledger cannot be matched, its entries count for every record of the holder.

Entries of ``site_level`` with adaptive clipping are taken over with the noise multiplier that they
really had (:func:`federated.privacy.spending.before_sites_bit`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

from federated.configuration.cases import experiment_cases
from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.configuration.params_file import PRETRAIN, experiment_names, read_params
from federated.data.dataset import LocatedFile
from federated.data.load import load, locate_local
from federated.data.partition import Partition
from federated.data.partition_file import read_partition
from federated.data.partitioning import AnyDataset, partition_dataset
from federated.errors import ConsiliumError
from federated.files import read_json
from federated.privacy.ledger import Ledger, ledger_root
from federated.privacy.old_ledger import OldLedger, old_files, old_name, put_aside, read_old
from federated.privacy.spending import Budget, Spending, before_sites_bit

# The seeds that experiments are commonly run with, beside their own.
SEEDS = range(10)


def take_over(
    experiment: Experiment, located: LocatedFile, dataset: AnyDataset, runs: Path, params: Path
) -> str | None:
    """Take over the old ledgers of an experiment's data set; return a line about it, or ``None``.

    Args:
        experiment: on whose data set they are.
        located: its data file.
        dataset: what that holds.
        runs: the folder that holds all runs, whose partitions say which records were meant.
        params: the parameter file.

    Raises:
        ConsiliumError: one of them, or the holder's own ledger, is not whole.
    """
    files = old_files(experiment.data.dataset)
    if not files:
        return None
    olds = [read_old(path) for path in files]
    wanted = {old.path.stem for old in olds}
    known = _known_records(wanted, experiment, located, dataset, runs, params)
    ledger = Ledger(ledger_root() / f"{experiment.data.dataset}.jsonl")
    # Of budgets for a record the last one holds: those for unknown records come first, and of
    # these the strictest last.
    for old in sorted(olds, key=lambda old: (old.path.stem in known, -_strictest(old))):
        records = known.get(old.path.stem)
        entries = _converted(old, ledger.keep_set(records) if records else None, runs)
        ledger.take_over(str(old.path), old.head.hash, entries)
        put_aside(old.path)
    count = sum(len(old.entries) for old in olds)
    matched = len(wanted & known.keys())
    said = (
        f"{count} entries of {len(olds)} ledgers of an older version were taken over into "
        f"{ledger.path}; {matched} of them were matched with their records"
    )
    if matched < len(wanted):
        said += (
            f", and those of the other {len(wanted) - matched} count for every record of "
            f"{experiment.data.dataset}"
        )
    return said


def _strictest(old: OldLedger) -> float:
    return min((e["epsilon"] for e in old.entries if e["kind"] == "budget"), default=inf)


def _converted(old: OldLedger, records: str | None, runs: Path) -> list[dict[str, Any]]:
    """The entries in today's form, in their order; budgets of unknown records strictest last."""
    spendings = [entry for entry in old.entries if entry["kind"] == "spending"]
    budgets = [entry for entry in old.entries if entry["kind"] == "budget"]
    in_force = {entry["unit"]: entry for entry in budgets}
    noises = _true_noises(spendings, runs)
    converted = [
        {
            "kind": "spending",
            **{name: entry.get(name) for name in Spending.__dataclass_fields__},
            "noise_multiplier": noise,
            "records": records,
            "time": entry["time"],
            "entered_noise_multiplier": entry["noise_multiplier"],
        }
        for entry, noise in zip(spendings, noises, strict=True)
    ]
    return converted + [
        {
            "kind": "budget",
            **{name: entry.get(name) for name in Budget.__dataclass_fields__},
            "records": records,
            "site": old.site,
            "evaluation": "untrained",
            "time": entry["time"],
        }
        for entry in in_force.values()
    ]


def _true_noises(spendings: Sequence[Mapping[str, Any]], runs: Path) -> list[float]:
    """The noise multipliers that entries really had."""
    clips: dict[str, list[float]] = {}
    for entry in spendings:
        if _may_be_adaptive(entry):
            clips.setdefault(entry["run"], []).append(entry["clip"])
    return [
        _true_noise(entry, clips[entry["run"]], runs)
        if _may_be_adaptive(entry)
        else entry["noise_multiplier"]
        for entry in spendings
    ]


def _may_be_adaptive(entry: Mapping[str, Any]) -> bool:
    return (entry["mechanism"], entry["unit"]) == ("gaussian", "site")


def _true_noise(entry: Mapping[str, Any], clips: Sequence[float], runs: Path) -> float:
    """The noise of the run's own configuration if that is there, else the least it may have been.

    Without the configuration, a run of several rounds whose norm stood still was not adaptive: the
    noised share of norms moves it in every round.
    """
    noise = float(entry["noise_multiplier"])
    try:
        config = read_json(runs / entry["experiment"] / entry["run"] / "config.json")
        adaptive = config["privacy"].get("adaptive")
    except (OSError, ValueError, KeyError, AttributeError):
        stood_still = len(clips) > 1 and len(set(clips)) == 1
        return noise if stood_still or noise == 0 else before_sites_bit(noise, None)
    if adaptive is None or noise == 0:
        return noise
    configured = adaptive.get("count_noise")
    # What that version took where none was given.
    return before_sites_bit(noise, max(0.05, 2 * noise) if configured is None else configured)


def _known_records(
    wanted: set[str],
    experiment: Experiment,
    located: LocatedFile,
    dataset: AnyDataset,
    runs: Path,
    params: Path,
) -> dict[str, tuple[str, ...]]:
    """The training records of those ``wanted`` names that a partition at hand gives."""
    found: dict[str, tuple[str, ...]] = {}
    others = [experiment, *_others(experiment.data.dataset, params)]
    for one, place, cases in _data_at_hand(others, located, dataset):
        for partition in _partitions(one, place, cases, others, runs):
            site_cases = experiment_cases(one, cases, partition)
            for site in partition.sites:
                name = old_name(place.md5, site, partition.sites[site]["train"])
                if name in wanted and name not in found:
                    found[name] = site_cases.records([site], "train")
            if wanted <= found.keys():
                return found
    return found


def _others(dataset: str, params: Path) -> Iterator[Experiment]:
    """The other experiments on a data set that the parameter file has."""
    if not params.is_file():
        return
    backbones = read_params(params).get("pretraining") or {}
    for name in [*experiment_names(params), *(PRETRAIN + key for key in backbones)]:
        with suppress(ConsiliumError):
            found = load_experiment(name, (), params)
            if found.data.dataset == dataset:
                yield found


def _data_at_hand(
    experiments: Iterable[Experiment], located: LocatedFile, dataset: AnyDataset
) -> Iterator[tuple[Experiment, LocatedFile, AnyDataset]]:
    """The data that are loaded, then what is on this machine of the same set in other forms."""
    seen = {located.md5}
    for number, one in enumerate(experiments):
        if number == 0:
            yield one, located, dataset
            continue
        with suppress(ConsiliumError):
            place = locate_local(one.data)
            if place and place.md5 not in seen:
                seen.add(place.md5)
                yield one, place, load(place, one.data)


def _partitions(
    experiment: Experiment,
    located: LocatedFile,
    dataset: AnyDataset,
    others: Iterable[Experiment],
    runs: Path,
) -> Iterator[Partition]:
    """The partitions of runs on the same file, and those that the experiments deal."""
    for path in sorted(runs.glob("*/*/partition.json")):
        with suppress(ConsiliumError, OSError, ValueError, KeyError, TypeError):
            header = read_json(path)
            if (header["dataset"], header["data_md5"]) == (experiment.data.dataset, located.md5):
                yield read_partition(path)
    seen = set()
    for other in others:
        for seed in (other.seed, *SEEDS):
            key = (other.sites.model_dump_json(), seed)
            if key not in seen:
                seen.add(key)
                with suppress(ConsiliumError):
                    yield partition_dataset(dataset, other.sites, seed)
