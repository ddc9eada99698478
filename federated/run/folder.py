"""The folder of one run: what lies where, and which rounds are complete.

A round counts as done once its ``round.json`` is there; everything else in its folder can be made
again. So a run that was killed is resumed by starting the first round without that file.

On one machine the folder also holds what a site writes for itself, such as its update before it is
protected; so it is open to its owner alone, whatever lies in it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from federated.configuration.experiment import Experiment
from federated.configuration.load import read_experiment
from federated.data.dataset import LocatedFile
from federated.data.partition import CaseCounts, Partition
from federated.data.partition_file import (
    read_case_counts,
    read_partition,
    read_partition_file,
    read_site_cases,
)
from federated.errors import ConsiliumError, why_unreadable
from federated.files import make_folders, read_json, write_json
from federated.settings.names import refuse_name

# What a site keeps between rounds: the memory of its strategy, and that of its compression.
MemoryKind = Literal["memory", "residual"]
MessageKind = Literal["advertised", "shares", "inbox", "answer"]
MESSAGE_KINDS: tuple[MessageKind, ...] = get_args(MessageKind)
MEMORY_KINDS: tuple[MemoryKind, ...] = get_args(MemoryKind)


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run; ``root`` is ``runs/<experiment>/<run id>``."""

    root: Path

    @property
    def run_id(self) -> str:
        """The run's id, which is the folder's own name."""
        return self.root.name

    @property
    def config_path(self) -> Path:
        """The file of the resolved configuration."""
        return self.root / "config.json"

    @property
    def inputs_path(self) -> Path:
        """The file that says what the run is made from: the data, and which sites take part."""
        return self.root / "inputs.json"

    @property
    def partition_path(self) -> Path:
        """The file that says how many cases each site has."""
        return self.root / "partition.json"

    def cases_path(self, site: str) -> Path:
        """The file that says which cases a site has, for the site alone."""
        return self.root / "sites" / _checked(site) / "cases.json"

    @property
    def own_reports(self) -> Path:
        """The folder of what validation finds in a private run's cases, for the sites alone."""
        # No site can have that name.
        return self.root / "sites" / ".validation"

    @property
    def summary_path(self) -> Path:
        """The file of the machine-readable result."""
        return self.root / "summary.json"

    @property
    def transfer_path(self) -> Path:
        """The file that says what became of the tensors of pretrained weights, if there are any."""
        return self.root / "transfer.json"

    @property
    def model_path(self) -> Path:
        """The file of the final weights."""
        return self.root / "model.safetensors"

    def round_path(self, round_number: int) -> Path:
        """The folder of a round; round 0 holds the initial weights."""
        return self.root / f"round-{round_number:03d}"

    def state_path(self, round_number: int) -> Path:
        """The file of the state after a round."""
        return self.round_path(round_number) / "state.safetensors"

    def site_path(self, round_number: int, site: str, kind: str) -> Path:
        """The file of a site's ``update``, ``compressed``, ``payload`` or ``evaluation``."""
        return self.round_path(round_number) / f"{_checked(site)}.{kind}.safetensors"

    def style_path(self, site: str) -> Path:
        """The file of the style of a site's images, as all sites know it."""
        return self.root / "styles" / f"{_checked(site)}.safetensors"

    def sum_path(self, round_number: int) -> Path:
        """The file of the sum of a round's payloads, as every site gets it."""
        return self.round_path(round_number) / "sum.safetensors"

    @property
    def privacy_path(self) -> Path:
        """The file that says what each site releases in a round, where there is privacy."""
        return self.root / "privacy.json"

    def ledger_path(self, site: str) -> Path:
        """The file of what a site's ledger says of this run."""
        return self.root / "ledger" / f"{_checked(site)}.json"

    def message_path(self, round_number: int, site: str, kind: MessageKind) -> Path:
        """The file of a small message from a site, or of its ``inbox``, in a round."""
        return self.round_path(round_number) / f"{_checked(site)}.{kind}.json"

    def roster_path(self, round_number: int) -> Path:
        """The file of what the coordinator tells all sites of a round in which they mask."""
        return self.round_path(round_number) / "roster.json"

    @property
    def context_path(self) -> Path:
        """The file of what the coordinator knows of the sites' key, where they have one."""
        return self.root / "context.json"

    def server_path(self, round_number: int) -> Path:
        """The file of what the server keeps to itself after a round."""
        return self.round_path(round_number) / "server.safetensors"

    def memory_path(self, round_number: int, site: str, kind: MemoryKind = "memory") -> Path:
        """The file of what a site keeps after a round, for its strategy or its compression."""
        name = f"round-{round_number:03d}.{kind}.safetensors"
        return self.root / "sites" / _checked(site) / name

    def own_error_path(self, site: str) -> Path:
        """The file of the last error at a site of a private run, for the site alone."""
        return self.root / "sites" / _checked(site) / "error.txt"

    def memory_paths(self, site: str, kind: MemoryKind = "memory") -> list[Path]:
        """The files of all that a site has kept, oldest first."""
        folder = self.memory_path(0, site).parent
        return sorted(folder.glob(f"round-*.{kind}.safetensors"), key=memory_round)

    def latest_memory(
        self, site: str, round_number: int, kind: MemoryKind = "memory"
    ) -> Path | None:
        """The newest file that a site has kept of rounds up to this one; ``None`` without any."""
        paths = [p for p in self.memory_paths(site, kind) if memory_round(p) <= round_number]
        return paths[-1] if paths else None

    def record_path(self, round_number: int) -> Path:
        """The record that marks a round as done."""
        return self.round_path(round_number) / "round.json"

    def experiment(self) -> Experiment:
        """The resolved configuration of this run.

        Raises:
            ConsiliumError: the file is missing, damaged, or not an experiment.
        """
        return read_experiment(self.config_path)

    def write_inputs(
        self, experiment: Experiment, data: LocatedFile, excluded: tuple[str, ...]
    ) -> None:
        """Record what the run is made from; the partition is written on its own."""
        write_json(self.config_path, experiment.to_json())
        write_json(
            self.inputs_path,
            {**asdict(data), "path": str(data.path.resolve()), "excluded_sites": list(excluded)},
        )

    def begun(self) -> bool:
        """Whether a round may have been started.

        What the run is made from is recorded before that.
        """
        return self.inputs_path.is_file()

    def data(self) -> LocatedFile:
        """The data file of this run.

        Raises:
            ConsiliumError: the record of it is missing or damaged.
        """
        value = self._inputs()
        return LocatedFile(Path(value["path"]), value["source"], value["md5"])

    def _inputs(self) -> dict[str, Any]:
        """What :meth:`write_inputs` wrote.

        Raises:
            ConsiliumError: the file is missing, damaged or something else.
        """
        path = self.inputs_path
        try:
            value = dict(read_json(path))
            kinds = (*((key, str) for key in ("path", "source", "md5")), ("excluded_sites", list))
            wrong = [key for key, kind in kinds if not isinstance(value.get(key), kind)]
            if wrong:
                raise ValueError(f"it has no {wrong[0]}")
        except (OSError, ValueError, TypeError) as error:
            raise ConsiliumError(
                f"The run's {path} cannot be read ({why_unreadable(error)}). Put the file back, or "
                "start a new run."
            ) from error
        return value

    def write_partition(self, partition: Partition, header: Mapping[str, Any]) -> None:
        """Keep how many cases each site has where all can read it, and which ones at each site.

        The cases of a site, and how many it has of a class, are the site's own: neither privacy nor
        encryption accounts for them.
        """
        make_folders(self.root / "sites", private=True)
        for site, splits in partition.sites.items():
            write_json(self.cases_path(site), dict(splits), 0o600)
        counts = partition.counts().sites
        rest = {"draws": partition.draws, "moved": partition.moved}
        write_json(self.partition_path, {**header, **rest, "cases": counts})

    def case_counts(self) -> CaseCounts:
        """How many cases each site has, which is all that the coordinator knows of them.

        Raises:
            ConsiliumError: the file is missing or not such a file.
        """
        value = read_partition_file(self.partition_path)
        if "cases" not in value:  # of an older version
            return read_partition(self.partition_path).counts()
        return read_case_counts(self.partition_path, value["cases"])

    def partition(self) -> Partition:
        """The cases of each site, from the files that the sites keep for themselves.

        This is possible on one machine; a hospital has its own file alone.

        Raises:
            ConsiliumError: a file is missing or not such a file.
        """
        value = read_partition_file(self.partition_path)
        if "cases" not in value:  # of an older version
            return read_partition(self.partition_path)
        sites = {site: read_site_cases(self.cases_path(site)) for site in self.case_counts().sites}
        return Partition(sites, value["draws"], value["moved"])

    def sites(self) -> list[str]:
        """The sites that take part: all those of the partition that validation did not exclude."""
        excluded = set(self._inputs()["excluded_sites"])
        return [site for site in self.case_counts().sites if site not in excluded]

    def done_rounds(self) -> int:
        """The number of complete rounds, counted without a gap."""
        done = 0
        while self.record_path(done + 1).is_file():
            done += 1
        return done

    def records(self) -> list[dict[str, Any]]:
        """The records of the complete rounds, in order."""
        return [read_json(self.record_path(n)) for n in range(1, self.done_rounds() + 1)]


def _checked(site: str) -> str:
    return refuse_name(site, "a site's name")


def memory_round(path: Path) -> int:
    """The round of a site's memory file, by its name."""
    return int(path.name.split(".")[0].removeprefix("round-"))
