"""Partitions as JSON files: those of a prepared folder, of a run, and of one site."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from federated.data.dataset import SPLITS, Split
from federated.data.partition import CaseCounts, Partition
from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json, write_json
from federated.settings.names import refuse_site_name


def write_partition(path: Path, partition: Partition, header: Mapping[str, Any]) -> None:
    """Write a partition as JSON, with ``header`` saying what it was made from."""
    write_json(
        path,
        {
            **header,
            "draws": partition.draws,
            "moved": partition.moved,
            "sites": {site: dict(splits) for site, splits in partition.sites.items()},
        },
    )


def parse_cases(splits: Mapping[str, Any]) -> dict[Split, tuple[int, ...]]:
    """The indices of the cases of one site, as they stand in a file.

    Raises:
        KeyError: a split is missing.
        ValueError: something is not the number of a case.
    """
    result: dict[Split, tuple[int, ...]] = {}
    for split in SPLITS:
        cases = tuple(splits[split])
        if not all(type(case) is int and case >= 0 for case in cases):
            raise ValueError(f"{split} holds what is not a case's number")
        result[split] = cases
    return result


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConsiliumError(
            f"The partition {path} cannot be read ({why_unreadable(error)}). Put the file back; "
            "that of a prepared folder is made by `consilium prepare` and the experiment's name."
        ) from error


def read_partition(path: Path) -> Partition:
    """Read a partition written by :func:`write_partition`.

    Raises:
        ConsiliumError: the file is missing or not such a file, or no site can have such a name.
    """
    value = read_partition_file(path)
    with _readable(path):
        sites = {
            refuse_site_name(site, f" (in {path})"): parse_cases(splits)
            for site, splits in value["sites"].items()
        }
        return Partition(sites, value["draws"], value["moved"])


def read_partition_file(path: Path) -> dict[str, Any]:
    """The file of a partition as plain values, with its header.

    Raises:
        ConsiliumError: the file is missing or not such a file.
    """
    with _readable(path):
        value = read_json(path)
        return {**value, "draws": value["draws"], "moved": value["moved"]}


def read_case_counts(path: Path, cases: Mapping[str, Any]) -> CaseCounts:
    """How many cases each site has in each split, from ``cases`` of the file ``path``.

    Raises:
        ConsiliumError: it is something else, or no site can have such a name.
    """
    with _readable(path):
        sites = {
            refuse_site_name(site, f" (in {path})"): {split: splits[split] for split in SPLITS}
            for site, splits in cases.items()
        }
        numbers = [number for splits in sites.values() for number in splits.values()]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("cases are not counts")
        return CaseCounts(sites)
