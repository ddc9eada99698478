"""validate: Great Expectations suites over each site's cases, with Data Docs."""

import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.configuration.experiment import Experiment
from federated.data.dataset import LocatedFile, Split
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset
from federated.errors import ConsiliumError, unreadable
from federated.files import PRIVATE, make_folders, write_text
from federated.run.validation_report import shared_part, write_report
from federated.secrets.home import consilium_home
from tasks.suites import BrokenRule, begin_judging, broken_rules, end_judging
from tasks.validated import digest_of, is_anything_kept, keep, recall

if TYPE_CHECKING:
    import pandas as pd

# The number of cases of a broken rule that a message names; the report names all.
NAMED = 5
# Beside the sites' own report: why there is none.
ERROR = "error.txt"
DESCRIBED = ", or the description of them (dataset.yaml) where it says what they are not"
Dropped = dict[str, dict[Split, list[int]]]


@dataclass(frozen=True)
class Validation:
    """Which rules failed at which site, who is excluded, and which cases are dropped.

    ``failures`` has an empty list for a site where no rule failed. ``before`` is when this was
    found, where it was not found now.
    """

    failures: dict[str, list[str]]
    excluded: tuple[str, ...]
    dropped: Dropped
    before: str | None = None

    def line(self) -> str:
        """What a person should know of when this was found; ``""`` where that is now."""
        if self.before is None:
            return ""
        return (
            f"validation: as found on {self.before} for the same data and rules "
            f"({consilium_home()}/validated)"
        )


@dataclass(frozen=True)
class Found:
    """What the rules find, and what is found again once the faulty cases are left out.

    ``again`` is empty where nothing is left out; ``dropped`` are the cases that are.
    """

    broken: dict[str, list[BrokenRule]]
    again: dict[str, list[BrokenRule]]
    dropped: Dropped


def begin_validation(experiment: Experiment) -> None:
    """Start what will judge the cases, where it is certain before they are read that it must.

    That is where nothing was ever judged here: for a first run, which has most to wait for.
    """
    if not is_anything_kept():
        begin_judging(experiment)


@task(name="validate", task_run_name="validate {experiment.name}", cache_policy=NO_CACHE)
def validate(
    experiment: Experiment,
    dataset: AnyDataset,
    partition: Partition,
    folder: Path,
    own: Path | None = None,
    data: LocatedFile | None = None,
) -> Validation:
    """Check every site's cases; write ``validation.json`` and ``data_docs/`` into ``folder``.

    For a private run they are written into the folder ``own`` of the sites instead. ``folder`` gets
    a ``validation.json`` that tells nothing of single cases, and neither does what is raised: why
    the cases cannot be validated stands in ``error.txt`` of ``own``.

    Where cases are dropped, ``data_docs/after_dropping/`` tells of those that are left. Files that
    belong to no case are named too; where the run goes on, it does without them.

    Args:
        experiment: whose rules are checked.
        dataset: the data set.
        partition: the cases of each site.
        folder: the run's folder.
        own: the sites' own folder; ``folder`` where it is left out.
        data: where the data set was read from. With it, what was found before for the same data
            and rules is not looked for again.

    Raises:
        ConsiliumError: a site fails and ``validate.on_failure`` is ``abort``, or all sites do. The
            report and the Data Docs are written all the same. Or ``data`` cannot be read.
    """
    private = own is not None and own != folder
    own = own or folder
    if private:
        make_folders(own, private=True)
    try:
        found, before = _found(experiment, dataset, partition, own / "data_docs", data)
    except Exception as error:
        # Whatever it is, it may name a file, and a file its patient.
        if not private:
            raise
        write_text(own / ERROR, "".join(traceback.format_exception(error)), PRIVATE)
        raise ConsiliumError(
            "The cases of the sites could not be validated. The run is private, so the reason "
            f"stays with the sites, in {own / ERROR}."
        ) from None
    broken, dropped = dict(found.broken), found.dropped
    failing = [site for site in partition.sites if broken[site]]
    excluded = tuple(failing)
    if found.again:
        excluded = tuple(site for site in failing if found.again[site])
        for site in excluded:
            broken[site] = [*broken[site], *found.again[site]]
    failures = {site: [_text(rule) for rule in rules] for site, rules in broken.items()}
    report: dict[str, Any] = {
        "on_failure": experiment.validation.on_failure,
        "failures": {site: rules for site, rules in failures.items() if rules},
        "broken": {s: [asdict(rule) for rule in rules] for s, rules in broken.items() if rules},
        "excluded_sites": list(excluded),
        "dropped_cases": dropped,
        "sites": list(partition.sites),
    }
    if before:
        report["found_before"] = before
    write_report(report, folder, own)
    if private:
        failures = shared_part(report)["failures"]
    if any(failures.values()) and experiment.validation.on_failure == "abort":
        which = (
            f"The data of {len(failing)} of {len(partition.sites)} sites fail validation:\n"
            if failing
            else "The data fail validation, though not those of any site:\n"
        )
        raise ConsiliumError(
            which
            + "".join(f"  {site}: {rule}\n" for site, rules in failures.items() for rule in rules)
            + f"Mend the data{DESCRIBED if experiment.data.described else ''}, or go on without "
            "these sites with validate.on_failure=exclude-site, "
            "or without these cases with validate.on_failure=drop-case. The full report is "
            f"{own}/data_docs/index.html."
        )
    if len(excluded) == len(partition.sites):
        raise ConsiliumError(
            "The data of every site fail validation, so no site is left to train. The report is "
            f"{own}/data_docs/index.html."
        )
    return Validation(failures, excluded, dropped, before)


def _found(
    experiment: Experiment,
    dataset: AnyDataset,
    partition: Partition,
    docs: Path,
    data: LocatedFile | None,
) -> tuple[Found, str | None]:
    """What the rules find, and when that was, if it was not now; its pages are in ``docs``."""
    if data is None:
        return _look(experiment, dataset, partition, docs), None
    try:
        digest = digest_of(experiment, dataset, partition, data.path)
    except OSError as error:
        raise unreadable(data.path, error) from error
    if kept := recall(digest, docs):
        end_judging()
        broken, again = (
            {
                site: [BrokenRule(**rule) for rule in rules]
                for site, rules in kept.value[key].items()
            }
            for key in ("broken", "again")
        )
        return Found(broken, again, kept.value["dropped"]), kept.when
    found = _look(experiment, dataset, partition, docs)
    keep(digest, asdict(found), docs)
    return found, None


def _look(experiment: Experiment, dataset: AnyDataset, partition: Partition, docs: Path) -> Found:
    from federated.data.tables import site_tables

    tables = site_tables(dataset, partition)
    broken = broken_rules(experiment, dataset.info, tables, docs)
    failing = [site for site in partition.sites if broken[site]]
    if not failing or experiment.validation.on_failure != "drop-case":
        return Found(broken, {}, {})
    rows = {site: _broken_rows(broken[site]) for site in partition.sites}
    dropped = {site: _cases(tables[site], rows[site]) for site in failing}
    left = {site: tables[site].drop(index=rows[site]) for site in partition.sites}
    again = broken_rules(experiment, dataset.info, left, docs / "after_dropping")
    return Found(broken, again, dropped)


def _broken_rows(rules: Sequence[BrokenRule]) -> list[int]:
    return sorted({row for rule in rules for row in rule.rows})


def _cases(table: "pd.DataFrame", rows: Sequence[int]) -> dict[Split, list[int]]:
    """The cases of some rows, by split."""
    result: dict[Split, list[int]] = {}
    for split, index in table.loc[list(rows), ["split", "index"]].itertuples(index=False):
        result.setdefault(split, []).append(int(index))
    return result


def _text(broken: BrokenRule) -> str:
    """The text of a broken rule for a person."""
    named = ", ".join(broken.where[:NAMED])
    more = len(broken.where) - NAMED
    if not named:
        return f"{broken.rule}: {broken.said}"
    return f"{broken.rule}: {broken.said} ({named}{f' and {more} more' if more > 0 else ''})"
