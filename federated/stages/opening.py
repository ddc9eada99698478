"""opening: at the coordinator, what becomes of a sum that its sites do not open.

One site that sends wrong tags, or does not help to open a sum, makes it one that nobody opens,
since every site in a sum has to have sent its tags and its word. It is found and named. The round
is lost then: its sum is opened by nobody, and the next round starts from the same model. A second
sum of the others in the same round is not tried: sites have given their word for the first one, and
never give it for another of the same data and state. A sum of masks is lost in the same way where
what a site has dealt, or masked, keeps it from being opened; and so is one that no training gives.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.protection import Protection
from federated.rounds.plausible import ImplausibleError
from federated.run.key import public_context
from federated.run.update_files import read_memory, read_state, write_outcome
from federated.site.releases import arrays_digest
from federated.stages.aggregate import apply_sum, payload_of, received_sum, update_length, vouched
from federated.stages.coordinator import Coordinator
from federated.stages.named_sums import senders
from federated.stages.tag_verdict import wrong_tags
from federated.update import Doubles


@dataclass
class Openings:
    """What sites have opened a sum as, one after the other, until enough of them agree.

    A site that opens it otherwise than it is, within the bounds of such sums, is noticed where
    another one opens it too: so many would have to lie together as have to agree, or more than half
    of those in the sum.

    Attributes:
        needed: how many sites have to open it as the same numbers.
        failed: the sites that have not opened it, or otherwise than the others, and why.
        opened: by the SHA-256 of the numbers, which sites have opened it as them.
        impossible: by the SHA-256 of numbers that no such sum has, which sites have.
    """

    needed: int
    failed: dict[str, str] = field(default_factory=dict)
    opened: dict[str, tuple[str, ...]] = field(default_factory=dict)
    impossible: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def agree(self, site: str, numbers: Doubles) -> tuple[str, ...]:
        """The sites that have opened it as the same numbers as ``site``, once they are enough."""
        digest = arrays_digest({"": numbers})
        self.opened[digest] = same = (*self.opened.get(digest, ()), site)
        return same if len(same) >= self.needed else ()

    def majority(self, sites: int) -> tuple[str, ...]:
        """Those who have opened it as the same numbers, once all were asked to, if they are most.

        So one that does not open it, or otherwise, keeps nobody from having it where ``openers`` is
        the number of all ``sites`` in it.
        """
        return next((same for same in self.opened.values() if 2 * len(same) > sites), ())

    def agree_on_impossible(self, site: str, numbers: Doubles, sites: int) -> bool:
        """Whether it is the sum that is impossible, and not who has opened it.

        That is so where two of them, or all ``sites`` in it, have opened it so.
        """
        digest = arrays_digest({"": numbers})
        self.impossible[digest] = same = (*self.impossible.get(digest, ()), site)
        return len(same) > 1 or sum(map(len, self.impossible.values())) == sites

    def false(self, openers: Sequence[str]) -> set[str]:
        """The sites that have opened it otherwise than ``openers``, in whatever way."""
        told = [*self.opened.values(), *self.impossible.values()]
        return {site for same in told for site in same} - {*openers}

    def differing(self, openers: Sequence[str]) -> dict[str, str]:
        """The sites that have opened it otherwise than ``openers``; they are among the failed."""
        others = [site for same in self.opened.values() for site in same if site not in openers]
        found = {
            site: f"it has opened the sum as other numbers than {' and '.join(openers)}"
            for site in others
        }
        self.failed |= found
        return found

    def told(self) -> dict[str, str]:
        """What each site has said or done that was to open it, where they do not agree."""
        alone = f"it has opened the sum, and {self.needed} have to as the same numbers"
        return self.failed | {site: alone for same in self.opened.values() for site in same}


def unvouched(coordinator: Coordinator, topic: Topic, responded: Sequence[str]) -> dict[str, str]:
    """Which of the sites in a sum have not said that they help to open this very one, and why.

    While there is one, no site opens the sum, and nobody is handed it.
    """
    most = kinds.most_view(len(senders(coordinator.run, topic)))
    wrong: dict[str, str] = {}
    for site in responded:
        try:
            message = coordinator.mailbox.receive(
                topic, kinds.CONSISTENCY, site, most, for_all=True
            )
        except ConsiliumError as error:
            wrong[site] = f"it has not said that it helps to open the sum ({error})"
            continue
        if message.body != vouched(responded):
            wrong[site] = "it has signed that it helps to open another sum than that of the round"
    return wrong


def find_wrong_tags(
    coordinator: Coordinator, topic: Topic, responded: Sequence[str], length: int | None = None
) -> dict[str, str]:
    """The sites in a sum whose tags are not those of their payloads, by what the sites have proven.

    ``length`` is that of the payloads of a named sum.

    Raises:
        ConsiliumError: the sites do not say the same, so that nobody can be named; or the key's
            public half cannot be read.
    """
    public = public_context(coordinator.folder, coordinator.run.experiment)
    assert public is not None, "tags without a key"

    if length is None:
        length = update_length(coordinator, topic)
    read = partial(payload_of, coordinator, topic, length=length)
    return wrong_tags(coordinator, topic, responded, read, length, public)


def apply_or_lose(
    coordinator: Coordinator, topic: Topic, responded: Sequence[str], opener: str | None = None
) -> str | None:
    """Make the round's state of its opened sum; or lose the round, where no training gives it.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages have in common.
        responded: the sites whose payloads are in the sum.
        opener: the site that has opened the sum; ``None`` where there is no key.

    Returns:
        Why the round is lost, if it is; whose payload has made it so nobody can tell.

    Raises:
        ConsiliumError: a file is missing or damaged, or the server has made weights of the sum that
            are no numbers.
    """
    try:
        apply_sum(coordinator, topic, responded, received_sum(coordinator, topic, opener))
    except ImplausibleError as error:
        lose_sum(coordinator, topic, {})
        return str(error)
    return None


def is_enough_without(coordinator: Coordinator, topic: Topic, faulty: Collection[str]) -> bool:
    """Whether enough sites would be left for another sum, if what these send counted no more."""
    run, out = coordinator.run, {*coordinator.faulty, *faulty}
    left = [site for site in run.sites if site not in out]
    protection: Protection = run.experiment.protection
    try:
        protection.refuse_too_few(left[0] if left else "", topic.round, run.sites, left)
    except ConsiliumError:
        return False
    return bool(left)


def lose_sum(coordinator: Coordinator, topic: Topic, faulty: Mapping[str, str]) -> None:
    """Go on without a sum that nobody opens: of updates, the model stays as it is.

    What ``faulty`` sites send counts no more in this attempt at the run; there may be none that can
    be named.

    Raises:
        ConsiliumError: too few sites are left for another sum.
    """
    run, folder, number = coordinator.run, coordinator.folder, topic.round
    for site, reason in faulty.items():
        coordinator.faulty[site] = reason
        coordinator.mailbox.audit.add(
            "faulty", run=run.run_id, round=number, sender=site, said=reason
        )
    protection: Protection = run.experiment.protection
    left = [site for site in run.sites if site not in coordinator.faulty]
    said = "; ".join(f"{site}: {reason}" for site, reason in faulty.items())
    try:
        protection.refuse_too_few(left[0] if left else "", number, run.sites, left)
    except ConsiliumError as error:
        raise ConsiliumError(
            f"The sum of round {number} is opened by nobody, because of {said}. Without that, "
            f"too few sites are left to go on: {error}"
        ) from error
    if topic.sum:
        return
    state = replace(read_state(folder.state_path(number - 1), number - 1), round_number=number)
    memory = read_memory(folder.server_path(number - 1))
    write_outcome(folder.state_path(number), state, folder.server_path(number), memory)
