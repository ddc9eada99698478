"""The rules that Great Expectations checks, for the tables of every task.

A rule's name is what a person reads; it stands in the expectation's ``notes``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import great_expectations.expectations as gxe

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo, TaskName

# The columns whose faults lie in a case's mask and not in its image.
OF_MASKS = ("labels", "foreground")
DIGEST = "digest"
# In tables of many sites: a case's site with its digest, and how many cases a site has.
AT_SITE, CASES = "digest at the site", "training cases"
# Rules that judge each row by itself.
OF_ROWS = (
    gxe.ExpectColumnValuesToBeBetween,
    gxe.ExpectColumnValuesToBeInSet,
    gxe.ExpectColumnValuesToNotBeInSet,
    gxe.ExpectColumnValuesToNotBeNull,
)
IN_TRAIN = {"row_condition": 'split == "train"', "condition_parser": "pandas"}


def expectations(experiment: Experiment, info: DatasetInfo, *, of_a_site: bool) -> list[Any]:
    """The rules for one site's table of cases, or for files that belong to no site."""
    if of_a_site or info.task == "segmentation":
        rules = RULES[info.task](experiment, info)
    else:
        rules = {"no file that belongs to no case": _never_in("split", "none")}
    if of_a_site:
        rules |= _enough_for_training(
            experiment,
            gxe.ExpectTableRowCountToBeBetween(min_value=experiment.sites.min_cases, **IN_TRAIN),
        )
    return _named(rules)


def expectations_of_many(
    experiment: Experiment, info: DatasetInfo
) -> tuple[list[Any], list[Any]] | None:
    """The rules for one site's table as they are asked of many sites at once.

    Returns:
        Those for one table of the cases of all, with a column :data:`AT_SITE` that has a case's
        site and its digest; and those for a table with a row for each site, and a column
        :data:`CASES` with how many training cases it has. ``None`` where there is a rule that does
        not judge each row by itself, so that it can be asked of one site alone.
    """
    rules = RULES[info.task](experiment, info)
    for name, rule in rules.items():
        if isinstance(rule, gxe.ExpectColumnValuesToBeUnique) and rule.column == DIGEST:
            rules[name] = gxe.ExpectColumnValuesToBeUnique(column=AT_SITE)
        elif not isinstance(rule, OF_ROWS):
            return None
    enough = gxe.ExpectColumnValuesToBeBetween(column=CASES, min_value=experiment.sites.min_cases)
    return _named(rules), _named(_enough_for_training(experiment, enough))


def _enough_for_training(experiment: Experiment, rule: Any) -> dict[str, Any]:
    return {f"at least {experiment.sites.min_cases} training cases (sites.min_cases)": rule}


def _named(rules: dict[str, Any]) -> list[Any]:
    for name, rule in rules.items():
        rule.notes = name
    return list(rules.values())


def _of_classes(experiment: Experiment, info: DatasetInfo) -> dict[str, Any]:
    known = gxe.ExpectColumnValuesToBeInSet(
        column="label", value_set=list(range(len(info.classes)))
    )
    return (
        _of_images(experiment, info)
        | {"known label": known}
        | _without_copies()
        | _enough_of_each("class", experiment)
    )


def _of_labels(experiment: Experiment, info: DatasetInfo) -> dict[str, Any]:
    known = gxe.ExpectColumnValuesToBeInSet(column="unknown_labels", value_set=[0])
    return (
        _of_images(experiment, info)
        | {"labels that are 0 or 1": known}
        | _without_copies()
        | _enough_of_each("label", experiment)
    )


def _of_numbers(experiment: Experiment, info: DatasetInfo) -> dict[str, Any]:
    target = info.target
    assert target is not None
    within = gxe.ExpectColumnValuesToBeBetween(
        column="label", min_value=target.low, max_value=target.high
    )
    return (
        _of_images(experiment, info)
        | {
            f"a {info.classes[0]} for each case": gxe.ExpectColumnValuesToNotBeNull(column="label"),
            f"a {info.classes[0]} within {target.low:g}..{target.high:g}": within,
        }
        | _without_copies()
    )


def _of_images(experiment: Experiment, info: DatasetInfo) -> dict[str, Any]:
    sides = info.shape or (experiment.data.size,) * info.dims
    shape = "x".join(map(str, (info.channels, *sides)))
    return {
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
            column="std", min_value=0, strict_min=True
        ),
    }


def _without_copies() -> dict[str, Any]:
    return {
        "no duplicate volume at the site": gxe.ExpectColumnValuesToBeUnique(column=DIGEST),
        "no volume in both training and evaluation": gxe.ExpectColumnValuesToBeInSet(
            column="in_train", value_set=[0]
        ),
    }


def _enough_of_each(what: str, experiment: Experiment) -> dict[str, Any]:
    least = experiment.validation.min_cases_per_class
    return {
        f"at least {least} training cases of each {what} it has": (
            gxe.ExpectColumnValuesToBeBetween(column="class_cases", min_value=least, **IN_TRAIN)
        ),
    }


def _of_folders(experiment: Experiment, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG001
    most = experiment.validation.outlier
    far = f"{most:g} robust standard deviations from the site's median (validate.outlier)"
    return {
        "an image for each mask, with all modalities, and no file that belongs to no case": (
            _never_empty("path")
        ),
        "a mask for each image": _never_empty("mask_path"),
        "readable files": gxe.ExpectColumnValuesToBeInSet(column="unreadable", value_set=[""]),
        "one shape for all files of a case": gxe.ExpectColumnValuesToBeInSet(
            column="shapes", value_set=["same"]
        ),
        "one affine for all files of a case": gxe.ExpectColumnValuesToBeInSet(
            column="affines", value_set=["same"]
        ),
        "known labels": gxe.ExpectColumnValuesToBeInSet(column="labels", value_set=[""]),
        "a mask that is not empty": gxe.ExpectColumnValuesToBeBetween(
            column="foreground", min_value=1
        ),
        "no NaN": gxe.ExpectColumnValuesToBeInSet(column="missing", value_set=[0]),
        "images that can be prepared for the network": gxe.ExpectColumnValuesToBeInSet(
            column="unprepared", value_set=[""]
        ),
        "all labelled voxels left in what the network sees": gxe.ExpectColumnValuesToBeInSet(
            column="lost", value_set=[""]
        ),
        "a patient for each image, where a table is to name them": _never_empty("patient"),
        f"a size like the others, at most {far}": gxe.ExpectColumnValuesToBeBetween(
            column="size", max_value=most
        ),
        f"intensities like the others, at most {far}": gxe.ExpectColumnValuesToBeBetween(
            column="intensity", max_value=most
        ),
        "no copy of another case": gxe.ExpectColumnValuesToBeInSet(
            column="copy_of", value_set=[""]
        ),
    }


def _never_empty(column: str) -> Any:
    return _never_in(column, "")


def _never_in(column: str, value: str) -> Any:
    return gxe.ExpectColumnValuesToNotBeInSet(column=column, value_set=[value])


RULES: Mapping[TaskName, Callable[[Experiment, DatasetInfo], dict[str, Any]]] = {
    "classification": _of_classes,
    "multilabel": _of_labels,
    "regression": _of_numbers,
    "segmentation": _of_folders,
}
