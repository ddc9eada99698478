"""The folder of one run: what lies where, and which rounds are complete.

A round counts as done once its ``round.json`` is there; everything else in its folder can be made
again. So a run that was killed is resumed by starting the first round without that file.

The coordinator reads and writes what this module has paths for, and nothing else. In a simulation
the homes of the sites lie below the folder too, and so does the exchange by which they and the
coordinator send each other messages; so the folder is open to its owner alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from federated.configuration.experiment import Experiment
from federated.configuration.load import read_experiment
from federated.data.dataset import DataSource, LocatedFile
from federated.data.partition import CaseCounts, Partition
from federated.data.partition_file import (
    read_case_counts,
    read_partition,
    read_partition_file,
)
from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json, write_json
from federated.run.record_file import read_record
from federated.settings.names import refuse_name

# In place of the path of the data, where no party but the sites has them.
AT_THE_SITES = "at the sites"


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

    @property
    def coordinator_path(self) -> Path:
        """The folder of what is the coordinator's own: its key, its members, its audit log."""
        return self.root / "coordinator"

    @property
    def exchange_path(self) -> Path:
        """The folder by which the parties of the run send each other messages."""
        return self.root / "exchange"

    def home_path(self, site: str) -> Path:
        """The home of a simulated site."""
        return self.root / "sites" / _checked(site)

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
    def paused_path(self) -> Path:
        """The file that is there as long as a run is to wait before its next round."""
        return self.root / "paused"

    @property
    def planned_path(self) -> Path:
        """The file that says what was asked for, and what of it was planned, if anything was."""
        return self.root / "planned.json"

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

    def style_path(self, site: str) -> Path:
        """The file of the style of a site's images, as all sites know it."""
        return self.root / "styles" / f"{_checked(site)}.safetensors"

    def sum_path(self, round_number: int, name: str = "") -> Path:
        """The file of a sum of a round's payloads: of the updates, or of what ``name`` says."""
        stem = f"sum.{refuse_name(name, 'the name of a sum')}" if name else "sum"
        return self.round_path(round_number) / f"{stem}.safetensors"

    @property
    def privacy_path(self) -> Path:
        """The file that says what each site releases in a round, where there is privacy."""
        return self.root / "privacy.json"

    def ledger_path(self, site: str) -> Path:
        """The file of what a site's ledger says of this run."""
        return self.root / "ledger" / f"{_checked(site)}.json"

    @property
    def largest_weight_path(self) -> Path:
        """The file of the largest value of the model that the run begins with, without a sign."""
        return self.coordinator_path / "largest-weight.json"

    @property
    def begun_sums_path(self) -> Path:
        """The file that says of which sites the sums are that sites were asked to help to open."""
        return self.coordinator_path / "begun-sums.json"

    @property
    def context_path(self) -> Path:
        """The file of what the coordinator knows of the sites' key, where they have one."""
        return self.root / "context.json"

    def server_path(self, round_number: int) -> Path:
        """The file of what the server keeps to itself after a round."""
        return self.round_path(round_number) / "server.safetensors"

    def statistics_path(self, round_number: int) -> Path:
        """The file of what sites have told of their test cases after a round, summed over sites."""
        return self.round_path(round_number) / "evaluation.safetensors"

    @property
    def groups_path(self) -> Path:
        """The file of what sites have told of subgroups at the end, summed over sites."""
        return self.root / "subgroups.safetensors"

    def summed_path(self, round_number: int) -> Path:
        """The file of what became of a round's sum, as long as the round has no record."""
        return self.round_path(round_number) / "summed.json"

    def record_path(self, round_number: int) -> Path:
        """The record that marks a round as done."""
        return self.round_path(round_number) / "round.json"

    def experiment(self) -> Experiment:
        """The resolved configuration of this run.

        Raises:
            ConsiliumError: the file is missing, damaged, or not an experiment.
        """
        return read_experiment(self.config_path)

    def asked(self) -> dict[str, Any]:
        """The configuration that was asked for, as plain values.

        That is the run's own, but for what its sites have planned: there it says what was to be.

        Raises:
            ConsiliumError: the file is missing, damaged, or not an experiment.
        """
        own = self.experiment().to_json()
        if not self.planned_path.is_file():
            return own
        try:
            # Those of older versions say what was planned, and not what was asked for.
            asked = dict(dict(read_json(self.planned_path)).get("asked", own))
        except (OSError, ValueError, TypeError) as error:
            raise ConsiliumError(
                f"The run's {self.planned_path} cannot be read ({why_unreadable(error)}). Put the "
                "file back, or start a new run."
            ) from error
        # The number of rounds is what `consilium resume --rounds` has made of it.
        return {**asked, "rounds": own["rounds"]}

    def write_inputs(
        self, experiment: Experiment, data: LocatedFile, excluded: tuple[str, ...]
    ) -> None:
        """Record what the run is made from; the partition is written on its own."""
        write_json(self.config_path, experiment.to_json())
        write_json(
            self.inputs_path,
            {**asdict(data), "path": str(data.path.resolve()), "excluded_sites": list(excluded)},
        )

    def write_configuration(self, experiment: Experiment) -> None:
        """Record the configuration, before it is known what the run is made from."""
        write_json(self.config_path, experiment.to_json())

    def write_told(self, source: DataSource, counts: CaseCounts) -> LocatedFile:
        """Record what sites that are parties of their own say that the run is made from.

        Args:
            source: where their data come from.
            counts: how many cases each has.

        Returns:
            Their data, of which the coordinator knows no file.
        """
        told = {"path": AT_THE_SITES, "source": source, "md5": "", "excluded_sites": []}
        write_json(self.partition_path, {"draws": 0, "moved": 0, "cases": counts.sites})
        write_json(self.inputs_path, told)
        return LocatedFile(Path(AT_THE_SITES), source, "")

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
        """Keep how many cases each site has.

        Which cases these are, and how many there are of a class, is the site's own: neither privacy
        nor encryption accounts for it.
        """
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

    def records(self, sites: Collection[str] | None = None) -> list[dict[str, Any]]:
        """The records of the complete rounds, in order.

        Args:
            sites: those of which they keep what is of a single site; all, if left out. Of many
                rounds of many sites that does not fit into memory.

        Raises:
            ConsiliumError: one of them is damaged or something else.
        """
        numbers = range(1, self.done_rounds() + 1)
        return [read_record(self.record_path(number), number, sites) for number in numbers]


def _checked(site: str) -> str:
    return refuse_name(site, "a site's name")
