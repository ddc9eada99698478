"""begun-sums: at the coordinator, of which sites each sum is that sites were asked to help to open.

A site helps to one sum alone of each data and start state, in whatever attempt. A coordinator that
ends while sites give their word or their shares does not know which of them have. So it writes down
of which sites a sum is before it asks any of them to help; an attempt that begins the round anew
from the same state has the same sites in it, and those that were not are left out of it again. So
the run comes to the weights that it would have come to. Where one of them is missing now, no sum of
the others is tried, with which the rest would have helped to two.

The sum at the end of a run tells of the same test cases by the same model as that of the evaluation
after the round that the run keeps. So it has the same sites in it too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from federated.errors import ConsiliumError, TooFewSitesError, why_unreadable
from federated.exchange.message import Topic
from federated.files import PRIVATE, read_json, write_json
from federated.stages.coordinator import Coordinator
from federated.stages.named_sums import EVALUATION, FINAL

# What stands before the number of a round of whose evaluation a sum was begun.
_EVALUATED = "evaluated in round "


@dataclass(frozen=True)
class _Begun:
    """Of which ``sites`` a sum of a round from a state is that sites were asked to help to open."""

    round: int
    state: str
    sites: tuple[str, ...]


def note_begun(coordinator: Coordinator, topic: Topic, responded: Sequence[str]) -> None:
    """Write down that the sites in a sum are asked to help to open it, before any of them is.

    What is noted of rounds before this one is forgotten: they have their records. That of their
    evaluations is kept, since the run may keep the model of any of them.

    Raises:
        ConsiliumError: what is noted cannot be read or written.
    """
    known = _read(coordinator)
    kept = {
        name: own
        for name, own in known.items()
        if own.round == topic.round or name.startswith(_EVALUATED)
    }
    begun = _Begun(topic.round, topic.state, tuple(responded))
    kept[topic.sum] = begun
    if topic.sum == EVALUATION.name and coordinator.run.experiment.evaluation.evaluates_at_end:
        kept[f"{_EVALUATED}{topic.round}"] = begun
    if kept != known:
        value = {name: asdict(own) for name, own in kept.items()}
        write_json(coordinator.folder.begun_sums_path, value, PRIVATE)


def _begun(coordinator: Coordinator, topic: Topic) -> tuple[tuple[str, ...], str]:
    """The sites of which a sum has to be, since some may have helped to it, and why.

    There are none where it may be of any. There are some of a sum of the same name and round that
    starts from the same state, and of the one at the end of a run as :func:`evaluated_with` says.

    Raises:
        ConsiliumError: what is noted cannot be read.
    """
    known = _read(coordinator)
    own = known.get(topic.sum)
    if own is not None and (own.round, own.state) == (topic.round, topic.state):
        helping = "were helping to open their sum, and these help to no other"
        return own.sites, f"round {topic.round} broke off as {', '.join(own.sites)} {helping}"
    evaluated = _evaluated(known, topic)
    if evaluated is None:
        return (), ""
    return evaluated.sites, (
        f"the same model was evaluated after round {evaluated.round} in a sum of "
        f"{', '.join(evaluated.sites)}, and these help to no sum of others of the same cases"
    )


def evaluated_with(coordinator: Coordinator, topic: Topic) -> tuple[str, ...]:
    """The sites in the sum of the evaluation of the model that a sum at the end of a run is of.

    There are none where there was no such sum; these have to be in the one at the end.

    Raises:
        ConsiliumError: what is noted cannot be read.
    """
    evaluated = _evaluated(_read(coordinator), topic)
    return evaluated.sites if evaluated else ()


def _evaluated(known: Mapping[str, _Begun], topic: Topic) -> _Begun | None:
    """The sum of the evaluation of the model that a sum at the end of a run is of."""
    if topic.sum != FINAL.name:
        return None
    of_rounds = [own for name, own in known.items() if name.startswith(_EVALUATED)]
    return next((own for own in of_rounds if own.state == topic.state), None)


def left_out_before(coordinator: Coordinator, topic: Topic, sites: Iterable[str]) -> dict[str, str]:
    """Which of ``sites`` cannot be in a sum, since others may have helped to it without; and why.

    Raises:
        ConsiliumError: what is noted cannot be read.
    """
    begun, why = _begun(coordinator, topic)
    if not begun:
        return {}
    return {site: f"{site} is left out: {why}" for site in sites if site not in begun}


def refuse_other_than_begun(
    coordinator: Coordinator, topic: Topic, responded: Sequence[str]
) -> None:
    """Refuse a sum that is not of the sites that may have helped to it before.

    Raises:
        TooFewSitesError: one of them is missing.
        ConsiliumError: what is noted cannot be read.
    """
    begun, why = _begun(coordinator, topic)
    missing = [site for site in begun if site not in responded]
    if missing:
        what = f"The sum {topic.sum}" if topic.sum else "The sum"
        raise TooFewSitesError(
            f"{what} of round {topic.round} is opened of {', '.join(begun)} alone: {why}. Missing: "
            f"{', '.join(missing)}. Nothing of any update was revealed. Resume when they are back."
        )


def _read(coordinator: Coordinator) -> dict[str, _Begun]:
    """What is noted, by the name of the sum.

    Raises:
        ConsiliumError: it cannot be read.
    """
    path = coordinator.folder.begun_sums_path
    if not path.is_file():
        return {}
    try:
        return {
            str(name): _Begun(int(own["round"]), str(own["state"]), tuple(map(str, own["sites"])))
            for name, own in dict(read_json(path)).items()
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConsiliumError(
            f"Of which sites the sums were that sites have begun to help to open, {path}, cannot "
            f"be read ({why_unreadable(error)}). Put the file back; or remove it, and sites that "
            "have helped to a sum of others may refuse the next one."
        ) from error
