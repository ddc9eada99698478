"""tag-verdict: at the coordinator, whose payload has no tags, or others than its own."""

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.protection.homomorphic import data_primes, residue_forms, residues
from federated.protection.keys import PublicContext
from federated.protection.tag_proofs import ROWS, Proof, fits
from federated.protection.tags import sealed_size
from federated.stages.coordinator import Coordinator
from federated.update import Payload

# A proof is two vectors of words of 64 bits, some numbers for each site, and a header.
WORD_BYTES = 8
# The primes of a payload's parts and how many words each has.
Forms = list[tuple[int, int]]


def refuse_untagged(
    coordinator: Coordinator, topic: Topic, site: str, public: PublicContext
) -> None:
    """Refuse a payload whose site has sent the others no tags of it, or none of their size.

    Raises:
        ConsiliumError: it has not; with its payload in it, nobody would open the sum.
    """
    size = sealed_size(len(data_primes(public.parameters)), ROWS)
    body = coordinator.mailbox.receive(topic, kinds.TAG, site, size, for_all=True).body
    if len(body) != size:
        raise ConsiliumError(
            f"The payload of {site} in round {topic.round} is refused: the tags that it has sent "
            f"have {len(body)} bytes, and {size} are expected, so no site would open the sum."
        )


def ask_proofs(coordinator: Coordinator, topic: Topic) -> None:
    """Tell all sites the challenge of a sum, to which the plan has committed the coordinator."""
    coordinator.mailbox.send(topic, kinds.CHALLENGE, coordinator.challenges[topic.round, topic.sum])


def wrong_tags(
    coordinator: Coordinator,
    topic: Topic,
    responded: Sequence[str],
    read: Callable[[str], Payload],
    length: int,
    public: PublicContext,
) -> dict[str, str]:
    """The sites whose tags are not those of their payloads, and why; by what sites have proven.

    All sites that follow the protocol have proven the same; the answer of most counts, and who
    gives another one is named too.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages have in common.
        responded: the sites whose payloads are in the sum.
        read: gives the payload of a site; each is read once, and one is in memory at a time.
        length: how many numbers each has.
        public: the public half of the sites' key.

    Raises:
        ConsiliumError: no answer is that of most sites, so that nobody can be named.
    """
    sites, wrong, gone = sorted(responded), dict[str, str](), dict[str, str]()
    forms = residue_forms(public.parameters, length)
    answers = _answers(coordinator, topic, sites, forms)
    most, count = next(iter(Counter(answers.values()).most_common(1)), (b"", 0))
    proof = None
    if 2 * count > len(sites):
        answered = next(site for site in sites if answers.get(site) == most)
        proof = _proof(coordinator, topic, answered, sites, forms)
    for site, answer in answers.items():
        if answer != most:
            wrong[site] = "it has proven something else of the tags than most sites"
    for site in sites:
        try:
            payload = read(site)
        except ConsiliumError as error:
            gone[site] = f"its payload counts no more since it was added ({error})"
            continue
        if proof is not None and not fits(proof, site, residues(payload, public.parameters)):
            wrong[site] = "the tags that it has sent are not those of its payload"
    if gone:
        # By these alone the sum is not that of the payloads, whatever the tags are.
        return gone
    if proof is None:
        raise ConsiliumError(
            f"The sum of round {topic.round} was not opened, and of {len(sites)} sites no majority "
            f"says the same of the tags of its payloads ({len(answers)} have answered). Ask the "
            f"sites; resuming the run begins the round anew."
        )
    return wrong


def _answers(
    coordinator: Coordinator, topic: Topic, sites: list[str], forms: Forms
) -> dict[str, bytes]:
    """By site, the SHA-256 of what those have answered that have answered with a proof."""
    answers: dict[str, bytes] = {}
    for site in sites:
        try:
            proof = _proof(coordinator, topic, site, sites, forms)
        except ConsiliumError as error:
            coordinator.note_left_out(topic, site, str(error))
        else:
            answers[site] = sha256(proof.to_bytes(sites)).digest()
    return answers


def _proof(
    coordinator: Coordinator, topic: Topic, site: str, sites: list[str], forms: Forms
) -> Proof:
    """What a site has proven.

    Raises:
        ConsiliumError: it has not arrived, or is something else.
    """
    primes, words = len({prime for prime, _ in forms}), sum(count for _, count in forms)
    most = (2 * words + ROWS * primes * len(sites)) * WORD_BYTES + kinds.MOST_SMALL
    body = coordinator.mailbox.receive(topic, kinds.PROOF, site, most).body
    return Proof.from_bytes(body, sites, primes, words)
