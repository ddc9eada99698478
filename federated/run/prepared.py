"""The prepared folder of an experiment: data file, partition and validation, for DVC."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federated.configuration.experiment import Experiment
from federated.data.dataset import LocatedFile
from federated.data.folders.families.file_names import is_data
from federated.data.partition import Partition, leave_out
from federated.data.partition_file import read_partition, write_partition
from federated.data.partitioning import AnyDataset, case_counts
from federated.errors import ConsiliumError, why_unreadable
from federated.files import atomic_path, read_json, write_json


def partition_header(experiment: Experiment) -> dict[str, Any]:
    """The settings that a partition depends on."""
    described = experiment.data.described
    return {
        **({"dataset.yaml": described.digest} if described else {}),
        "dataset": experiment.data.dataset,
        "size": experiment.data.size,
        "seed": experiment.seed,
        "settings": experiment.sites.model_dump(
            mode="json", exclude={"participation", "on_dropout", "scanner_shift"}
        ),
    }


def partition_inputs(experiment: Experiment, data: LocatedFile, md5: str | None) -> dict[str, Any]:
    """The settings and the data that a partition was made from."""
    return {**partition_header(experiment), "data_source": data.source, "data_md5": md5}


def write_prepared_partition(
    path: Path, experiment: Experiment, data: LocatedFile, dataset: AnyDataset, partition: Partition
) -> None:
    """Write a partition with what it was made from, and how many cases each site has of each class.

    It is for a prepared folder, which is its holder's own; a run's folder is shared, see
    :meth:`federated.run.folder.RunFolder.write_partition`.

    Args:
        path: where it is written.
        experiment: whose settings it was made with.
        data: the data file, with its MD5.
        dataset: what that holds.
        partition: the cases of each site.
    """
    counts = {"class_counts": case_counts(dataset, partition)}
    write_partition(path, partition, partition_inputs(experiment, data, data.md5) | counts)


@dataclass(frozen=True)
class PreparedFolder:
    """A folder with ``dataset/``, ``partition.json``, ``validation.json`` and ``data_docs/``."""

    root: Path

    @property
    def partition_path(self) -> Path:
        """The file of the cases of each site."""
        return self.root / "partition.json"

    def store_dataset(self, located: LocatedFile) -> LocatedFile:
        """Keep the data in this folder, by hard links where possible; return where they are."""
        target = self.root / "dataset" / located.path.name
        if located.path.is_dir():
            shutil.rmtree(target.parent, ignore_errors=True)
            shutil.copytree(located.path, target, copy_function=_link, ignore=_no_data)
        else:
            with atomic_path(target) as temporary:
                temporary.unlink()
                _link(located.path, temporary)
        for other in target.parent.glob("*.npz"):
            if other != target:
                other.unlink()
        header = {"file": target.name, "source": located.source, "md5": located.md5}
        write_json(target.parent / "dataset.json", header)
        return LocatedFile(target, located.source, located.md5)

    def data(self) -> LocatedFile:
        """The data file that :meth:`store_dataset` kept.

        Raises:
            ConsiliumError: there is none, or what is said of it names a file elsewhere.
        """
        value = self._read("dataset/dataset.json")
        file = str(value.get("file", ""))
        inside = Path(file).name == file and file not in ("", "..")
        if not inside or not (self.root / "dataset" / file).exists():
            raise ConsiliumError(
                f"The prepared folder {self.root} has no data file {file!r:.120} in dataset/, "
                f"which its dataset.json names. Make it with `consilium prepare {self.root.name}`."
            )
        return LocatedFile(self.root / "dataset" / file, value["source"], value["md5"])

    def full_partition(self) -> Partition:
        """The cases of each site, before validation."""
        return read_partition(self.partition_path)

    def partition(self) -> Partition:
        """The cases of each site, without those that validation has dropped."""
        # Folders of older versions have dropped none, and do not say so.
        return leave_out(self.full_partition(), self.report().get("dropped_cases", {}))

    def check_fits(self, experiment: Experiment) -> None:
        """Refuse an experiment whose data, sites or seed are not those this folder was made with.

        Raises:
            ConsiliumError: something differs; the message names it.
        """
        made = _flat(self._read("partition.json"))
        differing = [
            f"{key} was {made.get(key)!r} and is {value!r} now"
            for key, value in _flat(partition_header(experiment)).items()
            if made.get(key) != value
        ]
        if differing:
            raise ConsiliumError(
                f"The prepared folder {self.root} does not fit this run: {'; '.join(differing)}. "
                "Prepare it again with `consilium prepare` and the same settings, or leave out "
                "--prepared."
            )

    def report(self) -> dict[str, Any]:
        """What validation has found.

        Raises:
            ConsiliumError: the report is missing or not such a file.
        """
        return self._read("validation.json")

    def excluded_sites(self) -> tuple[str, ...]:
        """The sites that validation excluded.

        Raises:
            ConsiliumError: validation failed and was set to end the preparation, not to exclude.
        """
        report = self.report()
        if report["failures"] and report["on_failure"] == "abort":
            raise ConsiliumError(
                f"The data in the prepared folder {self.root} failed validation "
                f"({', '.join(report['failures'])}), and validate.on_failure was abort. Mend the "
                "data and prepare it again, or prepare it without these sites or cases, with "
                "validate.on_failure=exclude-site or drop-case. The report is "
                f"{self.root}/data_docs/index.html."
            )
        return tuple(report["excluded_sites"])

    def _read(self, name: str) -> dict[str, Any]:
        try:
            value: dict[str, Any] = read_json(self.root / name)
        except (OSError, ValueError) as error:
            named = self.root.name if self.root.parent.name == "prepared" else "NAME"
            raise ConsiliumError(
                f"The prepared folder {self.root} has no usable {name}: {why_unreadable(error)}. "
                f"Make it with `consilium prepare {named}`."
            ) from error
        return value


def _no_data(_folder: str, names: list[str]) -> list[str]:
    """Those names in a folder that are not data, and are not copied."""
    return [name for name in names if not is_data(name)]


def _link(source: Path | str, target: Path | str) -> None:
    """A hard link to a file, or to what a link leads to; a copy where file systems differ."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def _flat(header: dict[str, Any]) -> dict[str, Any]:
    sites = {f"sites.{key}": value for key, value in header["settings"].items()}
    return {key: value for key, value in header.items() if key != "settings"} | sites
