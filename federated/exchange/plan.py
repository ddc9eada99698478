"""Plans: what the coordinator signs at the start of a run, and at the start of each round.

A site does what the plans say and nothing else, and only after it has checked them against its own
policy (``policy.py``), its own data and its own arithmetic.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError
from federated.exchange.identity import PublicIdentity
from federated.privacy.accounting import Release
from federated.settings.names import refuse_site_name

# In bytes, of a plan of a thousand sites.
MOST_PLAN = 4 * 2**20


@dataclass(frozen=True)
class RunPlan:
    """What a run is, as its coordinator signs it.

    Attributes:
        experiment: the resolved configuration.
        code: the digest of the program that the coordinator runs.
        participants: the sites that take part, with their public keys, by name.
        counts: how many cases each site says that it has.
        releases: what each site has said that it releases in a round, before the schedule of the
            noise is applied; empty without privacy.
        quorum: how many sites have to respond in a round.
        deadline: how many seconds after its beginning a round ends without those who have not
            responded; ``None`` where nobody is left behind.
    """

    experiment: Experiment
    code: str
    participants: Mapping[str, PublicIdentity]
    counts: CaseCounts
    releases: Mapping[str, Release]
    quorum: int
    deadline: float | None = None

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that take part, in order."""
        return tuple(self.participants)

    def to_bytes(self) -> bytes:
        """The plan as the body of a message."""
        value = {
            "experiment": self.experiment.to_json(),
            "code": self.code,
            "participants": {name: who.key.hex() for name, who in self.participants.items()},
            "counts": {site: dict(counts) for site, counts in self.counts.sites.items()},
            "releases": {site: asdict(release) for site, release in self.releases.items()},
            "quorum": self.quorum,
            "deadline": self.deadline,
        }
        return json.dumps(value).encode()

    @staticmethod
    def from_bytes(content: bytes) -> "RunPlan":
        """The plan from the bytes that :meth:`to_bytes` gave.

        Raises:
            ConsiliumError: they are something else, or the experiment is one that is refused.
        """
        value = _object(content, {field.name for field in fields(RunPlan)}, "run")
        try:
            experiment = dict(value["experiment"])
            name = str(experiment.pop("name"))
            participants = {
                refuse_site_name(site): PublicIdentity(site, bytes.fromhex(key))
                for site, key in value["participants"].items()
            }
            counts = {
                site: {str(split): _count(n) for split, n in counts.items()}
                for site, counts in value["counts"].items()
            }
            if not participants.keys() <= counts.keys():
                raise ValueError("a participant has no number of cases")
            releases = {site: _release(own) for site, own in value["releases"].items()}
            deadline = value["deadline"]
            plan = RunPlan(
                resolve(name, experiment, "the plan of the run"),
                str(value["code"]),
                participants,
                CaseCounts(counts),  # type: ignore[arg-type]
                releases,
                _count(value["quorum"]),
                None if deadline is None else float(deadline),
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise _no_plan("run", error) from error
        if len({who.key for who in participants.values()}) != len(participants):
            raise ConsiliumError(
                "The plan of the run is refused: two of its sites have the same key, so that one "
                "party would count as two."
            )
        return plan


@dataclass(frozen=True)
class RoundPlan:
    """What a round is, as its coordinator signs it.

    Attributes:
        run_plan: the digest of the plan of the run.
        round: the round's number, from 1.
        selected: the sites that train in it, in order.
        state: the SHA-256 of the state that it starts from.
    """

    run_plan: str
    round: int
    selected: tuple[str, ...]
    state: str

    def to_bytes(self) -> bytes:
        """The plan as the body of a message."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(content: bytes) -> "RoundPlan":
        """The plan from the bytes that :meth:`to_bytes` gave.

        Raises:
            ConsiliumError: they are something else.
        """
        value = _object(content, {field.name for field in fields(RoundPlan)}, "round")
        try:
            selected = value["selected"]
            if not isinstance(selected, list) or not all(type(s) is str for s in selected):
                raise ValueError("it selects no sites")
            if type(value["run_plan"]) is not str or type(value["state"]) is not str:
                raise ValueError("a digest is none")
            return RoundPlan(
                value["run_plan"], _count(value["round"]), tuple(selected), value["state"]
            )
        except (TypeError, ValueError) as error:
            raise _no_plan("round", error) from error


def _object(content: bytes, names: set[str], what: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _no_plan(what, error) from error
    if not isinstance(value, dict) or value.keys() != names:
        raise _no_plan(what, ValueError("it has other fields"))
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is no number of anything")
    return value


def _release(value: Mapping[str, Any]) -> Release:
    if value.keys() != {field.name for field in fields(Release)}:
        raise ValueError("a release has other fields")
    noise, rate = value["noise_multiplier"], value["sampling_rate"]
    if not (type(noise) in (int, float) and noise >= 0 and 0 < rate <= 1):
        raise ValueError("a release is out of range")
    return Release(float(noise), float(rate), _count(value["steps"]))


def _no_plan(what: str, error: Exception) -> ConsiliumError:
    return ConsiliumError(
        f"The plan of the {what} is refused: it is none ({error!r:.200}). The coordinator has "
        "another version of the program, or something else has written it."
    )
