"""A site's home: the folder that holds all that is the site's own, and nothing of anybody else's.

``identity.key`` is the private half of its key, ``coordinator.json`` the public half of the
coordinator's, ``site-policy.yaml`` what the site takes part in, ``audit.jsonl`` what it was sent,
has sent and has refused, and ``runs/<run id>/`` what it keeps of a run. The folder is open to its
owner alone, and so is everything in it. A simulated site's home lies below the run's folder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from federated.data.dataset import LocatedFile, Split
from federated.data.partition_file import parse_cases
from federated.errors import ConsiliumError, unreadable
from federated.exchange.audit import AuditLog
from federated.exchange.enrolment import Enrolment
from federated.exchange.identity import COORDINATOR, Identity, PublicIdentity, own_identity
from federated.exchange.policy import Policy, read_policy
from federated.files import PRIVATE, append_line, read_json, write_json, write_text
from federated.secrets.home import consilium_home
from federated.settings.names import refuse_name

# What a site keeps between rounds: the memory of its strategy, and that of its compression.
MemoryKind = Literal["memory", "residual"]
MEMORY_KINDS: tuple[MemoryKind, ...] = get_args(MemoryKind)
# What a site has made of a round, on its way to what is sent.
WorkKind = Literal["update", "compressed"]
WORK_KINDS: tuple[WorkKind, ...] = get_args(WorkKind)

# The cases of each part of what a site holds; a site has one part, of its own name.
Parts = dict[str, dict[Split, tuple[int, ...]]]


@dataclass(frozen=True)
class SiteHome:
    """The paths of a home; the folder's name is the site's."""

    root: Path

    @property
    def name(self) -> str:
        """The site's name."""
        return self.root.name

    @property
    def policy_path(self) -> Path:
        """The file that says what the site takes part in."""
        return self.root / "site-policy.yaml"

    @property
    def coordinator_path(self) -> Path:
        """The file of the coordinator's public key."""
        return self.root / "coordinator.json"

    @property
    def kit_path(self) -> Path:
        """The file by which a site of a consortium reaches its coordinator."""
        return self.root / "kit.json"

    @property
    def settings_path(self) -> Path:
        """The file of where the data of a site of a consortium lie."""
        return self.root / "site.json"

    def settings(self) -> dict[str, Any]:
        """What that file says; nothing where there is none.

        Raises:
            ConsiliumError: it cannot be read.
        """
        try:
            return dict(read_json(self.settings_path))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise unreadable(self.settings_path, error) from error

    @property
    def exchange_path(self) -> Path:
        """The copy that a site of a consortium has of what is for it in the exchange."""
        return self.root / "exchange"

    @property
    def status_path(self) -> Path:
        """The file of what the process at a site of a consortium does now."""
        return self.root / "status.json"

    @property
    def paused_path(self) -> Path:
        """The file that is there as long as a site of a consortium is to do nothing."""
        return self.root / "paused"

    @property
    def audit(self) -> AuditLog:
        """The log of what the site was sent, has sent and has refused."""
        return AuditLog(self.root / "audit.jsonl")

    @property
    def answered_path(self) -> Path:
        """The file of the sums that the site has helped to open, in all runs.

        As the ledger it belongs to who holds the data: a simulated site's home ends with its run.
        """
        return consilium_home() / "answered" / f"{self.name}.json"

    @property
    def compared_path(self) -> Path:
        """The file of which counts the site has compared its own with, and told how far they are.

        It belongs to who holds the data, as :attr:`answered_path` does.
        """
        return consilium_home() / "compared" / f"{self.name}.json"

    @property
    def subgroups_path(self) -> Path:
        """The file of which subgroups the site has told of, of each data set, in all runs.

        It belongs to who holds the data, as :attr:`answered_path` does.
        """
        return consilium_home() / "subgroups" / f"{self.name}.json"

    def identity(self) -> Identity:
        """The site with its private key, which is made if it is not there.

        Raises:
            ConsiliumError: others can open the home, or the key is damaged.
        """
        return own_identity(self.name, self.root / "identity.key", self.root)

    def policy(self) -> Policy:
        """What the site takes part in.

        Raises:
            ConsiliumError: there is no policy, or it is none.
        """
        return read_policy(self.policy_path)

    def write_policy(self, text: str) -> None:
        """Write the policy's file."""
        write_text(self.policy_path, text, PRIVATE)

    def know(self, coordinator: PublicIdentity) -> None:
        """Write down the coordinator's public key, which the site trusts from then on."""
        write_json(self.coordinator_path, coordinator.to_json(), PRIVATE)

    def coordinator(self) -> PublicIdentity:
        """The coordinator as the site knows it.

        Raises:
            ConsiliumError: the site knows none.
        """
        try:
            value = read_json(self.coordinator_path)
        except (OSError, ValueError) as error:
            raise ConsiliumError(
                f"{self.name} knows no coordinator: {self.coordinator_path} cannot be read "
                f"({error}). Put the file of the coordinator's public key there."
            ) from error
        found = PublicIdentity.from_json(value, str(self.coordinator_path))
        if found.name != COORDINATOR:
            raise ConsiliumError(
                f"{self.coordinator_path} is the public key of {found.name}, and not of a "
                "coordinator. Put the coordinator's there."
            )
        return found

    def members(self) -> Enrolment:
        """Whom the site knows before it has seen a plan: the coordinator alone."""
        return Enrolment().enrol(self.coordinator())

    def run(self, run_id: str) -> "SiteRun":
        """What the site keeps of a run."""
        return SiteRun(self.root / "runs" / refuse_name(run_id, "a run's id"))


@dataclass(frozen=True)
class SiteRun:
    """The paths of what a site keeps of one run, in its home."""

    root: Path

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.root.name

    @property
    def data_path(self) -> Path:
        """The file that says where the site's data are, and which cases are its own."""
        return self.root / "data.json"

    @property
    def plan_path(self) -> Path:
        """The file of the plan that the site has accepted, as the coordinator has signed it."""
        return self.root / "plan.message"

    @property
    def proposal_path(self) -> Path:
        """The file of what is proposed to the site, for a person to approve or refuse."""
        return self.root / "proposal.json"

    @property
    def decision_path(self) -> Path:
        """The file of what a person has decided of a proposal."""
        return self.root / "decision.json"

    @property
    def shown_path(self) -> Path:
        """The file of which proposal was last shown to a person."""
        return self.root / "shown.json"

    def asked_path(self, attempt: int) -> Path:
        """The file of what the site was asked in an attempt at the run and has begun."""
        return self.root / "asked" / f"attempt-{attempt}.jsonl"

    def count_sent(self, size: int, *, durable: bool = True) -> int:
        """Note that so many bytes are sent in this run, and return how many they are in all."""
        path = self.root / "sent.txt"
        append_line(path, str(size), durable=durable)
        return sum(map(int, path.read_text(encoding="ascii").split()))

    @property
    def untold_path(self) -> Path:
        """The file of stages that are done and of which the coordinator is yet to be told."""
        return self.root / "untold.jsonl"

    @property
    def error_path(self) -> Path:
        """The file of the last error, which for a private run the site alone is told."""
        return self.root / "error.txt"

    @property
    def releases(self) -> Path:
        """The folder of stored releases."""
        return self.root / "releases"

    @property
    def secrets(self) -> Path:
        """The folder of what is secret of a round of SecAgg+."""
        return self.root / "secagg"

    @property
    def told_path(self) -> Path:
        """The file of what the coordinator has said of the rounds that are done."""
        return self.root / "told.json"

    @property
    def entered_path(self) -> Path:
        """The file of the rounds of which a private release was entered in the ledger."""
        return self.root / "entered.json"

    def rounds_entered(self) -> list[int]:
        """The rounds of this run of which a private release was entered in the site's ledger."""
        path = self.entered_path
        return [int(number) for number in read_json(path)] if path.is_file() else []

    def note_entered(self, round_number: int) -> None:
        """Write down that a private release of a round was entered."""
        numbers = sorted({*self.rounds_entered(), round_number})
        write_json(self.entered_path, numbers, PRIVATE)

    def style_path(self, site: str) -> Path:
        """The file of the style of another site, or of the site's own."""
        return self.root / "styles" / f"{refuse_name(site, 'a site')}.safetensors"

    def work_path(self, round_number: int, kind: WorkKind) -> Path:
        """The file of what the site has made of a round before it is protected."""
        return self.root / f"round-{round_number:03d}.{kind}.safetensors"

    def evaluation_path(self, round_number: int) -> Path:
        """The file of the site's own metrics after a round, whatever it tells others of them."""
        return self.root / "evaluations" / f"round-{round_number:03d}.json"

    @property
    def final_path(self) -> Path:
        """The file of which model of the run the site has told by at its end."""
        return self.root / "final.json"

    @property
    def statistics_path(self) -> Path:
        """The file of how far the site's own cases are from those of all sites."""
        return self.root / "statistics.json"

    @property
    def pictures_path(self) -> Path:
        """Which cases the site has drawn for others, by the pseudonyms on these pictures."""
        return self.root / "pictures.json"

    @property
    def features_path(self) -> Path:
        """The table of the site's own derived features, without what the site adds to them."""
        return self.root / "features.csv"

    def memory_path(self, round_number: int, kind: MemoryKind = "memory") -> Path:
        """The file of what the site keeps after a round, for its strategy or its compression."""
        return self.root / "memory" / f"round-{round_number:03d}.{kind}.safetensors"

    def memory_paths(self, kind: MemoryKind = "memory") -> list[Path]:
        """The files of all that the site has kept, oldest first."""
        folder = self.memory_path(0, kind).parent
        return sorted(folder.glob(f"round-*.{kind}.safetensors"), key=memory_round)

    def latest_memory(self, round_number: int, kind: MemoryKind = "memory") -> Path | None:
        """The newest file that the site has kept of rounds up to this one; ``None`` without any."""
        paths = [p for p in self.memory_paths(kind) if memory_round(p) <= round_number]
        return paths[-1] if paths else None

    def write_data(self, data: LocatedFile, parts: Parts) -> None:
        """Write where the site's data are, and which cases are its own."""
        value = {"path": str(data.path.resolve()), "source": data.source, "md5": data.md5}
        write_json(self.data_path, value | {"parts": parts}, PRIVATE)

    def data(self) -> tuple[LocatedFile, Parts]:
        """What :meth:`write_data` wrote.

        Raises:
            ConsiliumError: the file is missing, damaged or something else.
        """
        try:
            value = read_json(self.data_path)
            texts = [value[key] for key in ("path", "source", "md5")]
            if not all(type(text) is str for text in texts):
                raise ValueError("it names no file")
            parts = {site: parse_cases(splits) for site, splits in value["parts"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConsiliumError(
                f"What the site knows of its data, {self.data_path}, cannot be read ({error!r}). "
                "Put the file back, or start a new run."
            ) from error
        return LocatedFile(Path(texts[0]), texts[1], texts[2]), parts


def memory_round(path: Path) -> int:
    """The round of a memory's file, by its name."""
    return int(path.name.split(".")[0].removeprefix("round-"))
