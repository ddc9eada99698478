"""validate: Great Expectations suites over each site's cases, with Data Docs."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.config import Experiment
from federated.data.case_table import case_tables
from federated.data.dataset import Dataset
from federated.data.partition import Partition
from federated.errors import ConsiliumError
from federated.files import write_json


@dataclass(frozen=True)
class Validation:
    """Which rules failed at which site (empty: none), and who is excluded for it."""

    failures: dict[str, list[str]]
    excluded: tuple[str, ...]


@task(name="validate", task_run_name="validate {experiment.name}", cache_policy=NO_CACHE)
def validate(
    experiment: Experiment, dataset: Dataset, partition: Partition, folder: Path
) -> Validation:
    """Check every site's cases; write ``validation.json`` and ``data_docs/`` into ``folder``.

    Raises:
        ConsiliumError: a site fails and ``validate.on_failure`` is ``abort``, or all sites do.
            The report and the Data Docs are written all the same.
    """
    failures = _run_suites(experiment, dataset, partition, folder / "data_docs")
    excluded = tuple(site for site, rules in failures.items() if rules)
    write_json(
        folder / "validation.json",
        {
            "on_failure": experiment.validation.on_failure,
            "failures": {site: rules for site, rules in failures.items() if rules},
            "excluded_sites": list(excluded),
            "sites": list(partition.sites),
        },
    )
    if excluded and experiment.validation.on_failure == "abort":
        raise ConsiliumError(
            f"The data of {len(excluded)} of {len(failures)} sites fail validation: "
            + " ".join(f"{site}: {'; '.join(failures[site])}." for site in excluded)
            + f" Mend the data, or go on without these sites with "
            f"validate.on_failure=exclude-site. The full report is {folder}/data_docs/index.html."
        )
    if len(excluded) == len(failures):
        raise ConsiliumError(
            "The data of every site fail validation, so no site is left to train. The report is "
            f"{folder}/data_docs/index.html."
        )
    return Validation(failures, excluded)


def preload() -> None:
    """Import Great Expectations, which takes seconds, while something else is waited for."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations.expectations  # noqa: F401


def _expectations(experiment: Experiment, dataset: Dataset) -> list[Any]:
    import great_expectations.expectations as gxe

    info = dataset.info
    shape = "x".join(map(str, (info.channels, *(experiment.data.size,) * info.dims)))
    least = experiment.validation.min_cases_per_class
    in_train = {"row_condition": 'split == "train"', "condition_parser": "pandas"}
    rules = {
        "shape": gxe.ExpectColumnValuesToBeInSet(column="shape", value_set=[shape]),
        "type": gxe.ExpectColumnValuesToBeInSet(column="dtype", value_set=["uint8"]),
        "intensity from 0": gxe.ExpectColumnValuesToBeBetween(
            column="minimum", min_value=0, max_value=255
        ),
        "intensity up to 255": gxe.ExpectColumnValuesToBeBetween(
            column="maximum", min_value=0, max_value=255
        ),
        "no NaN": gxe.ExpectColumnValuesToBeInSet(column="missing", value_set=[0]),
        "not constant": gxe.ExpectColumnValuesToBeBetween(
            column="spread", min_value=0, strict_min=True
        ),
        "known label": gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=list(range(len(info.classes)))
        ),
        "no duplicate volume at the site": gxe.ExpectColumnValuesToBeUnique(column="digest"),
        "no volume in both training and evaluation": gxe.ExpectColumnValuesToBeInSet(
            column="in_train", value_set=[0]
        ),
        f"at least {least} training cases of each class it has": (
            gxe.ExpectColumnValuesToBeBetween(column="class_cases", min_value=least, **in_train)
        ),
        f"at least {experiment.sites.min_cases} training cases": (
            gxe.ExpectTableRowCountToBeBetween(min_value=experiment.sites.min_cases, **in_train)
        ),
    }
    for name, rule in rules.items():
        rule.notes = name
    return list(rules.values())


def _run_suites(
    experiment: Experiment, dataset: Dataset, partition: Partition, docs: Path
) -> dict[str, list[str]]:
    preload()
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir(parents=True)
    context.add_data_docs_site(
        site_name="consilium",
        site_config={
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.resolve()),
            },
        },
    )
    source = context.data_sources.add_pandas("cases")
    failures: dict[str, list[str]] = {}
    for site, table in case_tables(dataset, partition).items():
        batch = source.add_dataframe_asset(site).add_batch_definition_whole_dataframe("all")
        suite = gx.ExpectationSuite(name=site, expectations=_expectations(experiment, dataset))
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=site, data=batch, suite=context.suites.add(suite))
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(name=site, validation_definitions=[definition])
        )
        (result,) = checkpoint.run(batch_parameters={"dataframe": table}).run_results.values()
        failures[site] = [_describe(r) for r in result.results if not r.success]
    context.build_data_docs(site_names=["consilium"])
    return failures


def _describe(result: Any) -> str:
    """The rule and how many cases break it, with an example."""
    rule = result.expectation_config.notes
    if result.exception_info.get("raised_exception"):
        return f"{rule}: {result.exception_info['exception_message']}"
    count = result.result.get("unexpected_count")
    if count is None:
        return f"{rule}: there are {result.result.get('observed_value')}"
    examples = result.result.get("partial_unexpected_list") or []
    return f"{rule}: {count} cases break it, for example {examples[0] if examples else '?'}"
