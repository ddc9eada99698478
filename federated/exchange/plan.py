"""Plans: what the coordinator signs at the start of a run, and at the start of each round.

A site does what the plans say and nothing else, and only after it has checked them against its own
policy (``policy.py``), its own data and its own arithmetic.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, get_args

from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.data.dataset import SPLITS, DataSource, Split
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError, printable
from federated.exchange.identity import PublicIdentity
from federated.privacy.accounting import Release
from federated.rounds.context import Purpose
from federated.rounds.participation import POOLED
from federated.settings.names import refuse_name, refuse_site_name

# What a site wants a person to know of its privacy, in texts and in characters of each.
MOST_WARNINGS, LONGEST_WARNING = 32, 1000
# Of a release: its noise multiplier, and its steps.
LARGEST = 10**9
# Of the digest of a program, in characters.
LONGEST_CODE = 128


@dataclass(frozen=True)
class RunPlan:
    """What a run is, as its coordinator signs it.

    Attributes:
        experiment: the resolved configuration.
        code: the digest of the program that the coordinator runs.
        participants: the sites that take part, with their public keys, by name; and who trains on
            the cases of all, where the strategy pools them.
        counts: how many cases each site says that it has; none at all in a proposal to sites that
            have yet to say it.
        releases: what each site has said that it releases in a round, before the schedule of the
            noise is applied; empty without privacy, and in a proposal.
        quorum: how many sites have to respond in a round.
        deadline: how many seconds a site has for a stage, once it is asked, before a round goes on
            without it; ``None`` where nobody is left behind.
        purpose: what the run is for; nothing is trained or evaluated in one for statistics, and
            nothing is counted for them in another.
    """

    experiment: Experiment
    code: str
    participants: Mapping[str, PublicIdentity]
    counts: CaseCounts
    releases: Mapping[str, Release]
    quorum: int
    deadline: float | None = None
    purpose: Purpose = "training"

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites that take part, in order."""
        return tuple(site for site in self.participants if site != POOLED)

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
            "purpose": self.purpose,
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
                site if site == POOLED else refuse_site_name(site): PublicIdentity(
                    site, bytes.fromhex(key)
                )
                for site, key in value["participants"].items()
            }
            counts = {site: _counts(own) for site, own in value["counts"].items()}
            if counts and participants.keys() - {POOLED} != counts.keys():
                raise ValueError("its numbers of cases are not those of its participants")
            releases = {site: _release(own) for site, own in value["releases"].items()}
            deadline = value["deadline"]
            plan = RunPlan(
                resolve(refuse_name(name, "an experiment's name"), experiment, "the run's plan"),
                _code(value["code"]),
                participants,
                CaseCounts(counts),
                releases,
                _count(value["quorum"]),
                None if deadline is None else float(deadline),
                _purpose(value["purpose"]),
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise _no_plan("run", error) from error
        if plan.purpose == "training" and plan.experiment.planning.auto:
            raise ConsiliumError(
                f"The plan of the run is refused: {', '.join(plan.experiment.planning.auto)} are "
                "still to be planned, and nothing may be trained with what stands there until then."
            )
        if len({who.key for who in participants.values()}) != len(participants):
            raise ConsiliumError(
                "The plan of the run is refused: two of its sites have the same key, so that one "
                "party would count as two."
            )
        return plan


@dataclass(frozen=True)
class RoundPlan:
    """What a round is, or an evaluation after it, as its coordinator signs it.

    Attributes:
        run_plan: the digest of the plan of the run.
        round: the round's number, from 1.
        selected: the sites that train in it, or are evaluated after it, in order.
        state: the SHA-256 of the state that it starts from.
        responded: for each site, the last round that is done in whose sum its update is; a site of
            no sum is left out.
        kept: the round whose model the run keeps so far; 0 for none yet.
        challenge: by which the coordinator has committed itself to what it may ask of the tags of
            encrypted payloads; empty where there are none. See ``protection/tag_proofs.py``.
    """

    run_plan: str
    round: int
    selected: tuple[str, ...]
    state: str
    responded: Mapping[str, int]
    kept: int
    challenge: str = ""

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
            if not all(type(value[name]) is str for name in ("run_plan", "state", "challenge")):
                raise ValueError("a digest is none")
            return RoundPlan(
                value["run_plan"],
                _count(value["round"]),
                _names(value["selected"]),
                value["state"],
                {str(site): _count(number) for site, number in value["responded"].items()},
                _count(value["kept"]),
                value["challenge"],
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise _no_plan("round", error) from error


def _purpose(value: object) -> Purpose:
    known: dict[object, Purpose] = {name: name for name in get_args(Purpose)}
    if not isinstance(value, str) or value not in known:
        raise ValueError("what it is for is not known")
    return known[value]


def _code(value: object) -> str:
    if type(value) is not str or not value.isprintable() or len(value) > LONGEST_CODE:
        raise ValueError("the digest of its program is none")
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(type(name) is str for name in value):
        raise ValueError("a list of sites is none")
    return tuple(value)


@dataclass(frozen=True)
class Joining:
    """What a site answers to the proposal of a run.

    Attributes:
        counts: how many cases it has in each split.
        release: what it releases in a round, before the schedule of the noise is applied; ``None``
            without privacy.
        source: where its data come from: ``phantom`` for generated ones.
        warnings: what a person should know of its privacy.
    """

    counts: Mapping[Split, int]
    release: Release | None
    source: DataSource
    warnings: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The answer as the body of a message."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(content: bytes) -> "Joining":
        """The answer from the bytes that :meth:`to_bytes` gave.

        Raises:
            ConsiliumError: they are something else.
        """
        value = _object(content, {field.name for field in fields(Joining)}, "site")
        try:
            told, warnings = value["release"], _names(value["warnings"])
            if len(warnings) > MOST_WARNINGS:
                raise ValueError(f"it has {len(warnings)} warnings")
            return Joining(
                _counts(value["counts"]),
                None if told is None else _release(told),
                _source(value["source"]),
                tuple(printable(warning, LONGEST_WARNING) for warning in warnings),
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise _no_plan("site", error) from error


def _source(value: object) -> DataSource:
    known: dict[object, DataSource] = {name: name for name in get_args(DataSource)}
    if not isinstance(value, str) or value not in known:
        raise ValueError("where its data come from is not known")
    return known[value]


def _counts(value: Mapping[str, Any]) -> dict[Split, int]:
    if value.keys() != set(SPLITS):
        raise ValueError("numbers of cases are not those of the splits")
    return {split: _count(value[split]) for split in SPLITS}


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
    steps = _count(value["steps"])
    # No site adds more noise than this, nor does more steps; a larger number would be everyone's.
    if not (type(noise) in (int, float) and 0 <= noise <= LARGEST and 0 < rate <= 1):
        raise ValueError("a release is out of range")
    if steps > LARGEST:
        raise ValueError("a release is out of range")
    return Release(float(noise), float(rate), steps)


def _no_plan(what: str, error: Exception) -> ConsiliumError:
    return ConsiliumError(
        f"The plan of the {what} is refused: it is none ({error!r:.200}). The coordinator has "
        "another version of the program, or something else has written it."
    )
