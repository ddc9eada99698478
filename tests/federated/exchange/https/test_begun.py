"""Of what an enrolled site sends, the coordinator takes only what belongs to a run that goes on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from federated.exchange import kinds, sent_kinds
from federated.exchange.folder import EVERYONE
from federated.exchange.https.begun import BegunRuns
from federated.exchange.https.office import MOST_FRAME, Limits
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Message, Topic, sign
from federated.stages.named_sums import NAMED_SUMS
from tests.federated.exchange.https.world import Attacker, World, make_world, serving
from tests.federated.exchange.parties import SITES

SITE, BAD, ABSENT = SITES
# Those of kinds.py that the coordinator sends, or that begin what has more behind it.
OF_COORDINATOR = {
    "PROPOSAL", "RUN_PLAN", "ROUND_PLAN", "EVALUATION_PLAN", "FINAL_PLAN", "FINAL_SUM_PLAN",
    "STATISTICS_PLAN", "COUNTED", "STATE", "ROSTER", "SHARING", "RESPONDED", "AGREED", "CHALLENGE",
    "KEY_ROSTER", "OFFER", "STYLES", "INBOX", "SUM", "ASK", "ENDED",
}  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> World:
    """A coordinator that has proposed run-1 to two of three sites, and has begun its round 3."""
    world = make_world(tmp_path)
    begin(world, "run-1", (SITE, BAD))
    plan = Topic(world.consortium, "run-1", 1, 3)
    world.exchange.post(sign(world.parties[COORDINATOR], plan, kinds.ROUND_PLAN, EVERYONE, b"3"))
    ask(world, 17)
    accepts = BegunRuns(world.exchange, world.parties[COORDINATOR].public)
    world.office = replace(world.office, accepts=accepts)
    return world


def ask(
    world: World, number: int, site: str = BAD, signer: str = COORDINATOR, round_number: int = 0
) -> None:
    """What a site is asked, as the coordinator asks it or as somebody does in its name."""
    topic = Topic(world.consortium, "run-1", 1, round_number)
    message = sign(world.parties[signer], topic, f"ask-{number}", site, signer.encode())
    header = replace(message.header, sender=COORDINATOR)
    world.exchange.post(replace(message, signed=replace(message.signed, header=header)))


def end(world: World, run: str = "run-1", attempt: int = 1, signer: str = COORDINATOR) -> None:
    topic = Topic(world.consortium, run, attempt)
    message = sign(world.parties[signer], topic, kinds.ENDED, EVERYONE, signer.encode())
    header = replace(message.header, sender=COORDINATOR)
    world.exchange.post(replace(message, signed=replace(message.signed, header=header)))


def begin(
    world: World, run: str, sites: tuple[str, ...], signer: str = COORDINATOR, attempt: int = 1
) -> None:
    body = json.dumps({"participants": dict.fromkeys(sites, "")}).encode()
    topic = Topic(world.consortium, run, attempt)
    message = sign(world.parties[signer], topic, kinds.PROPOSAL, EVERYONE, body)
    header = replace(message.header, sender=COORDINATOR)
    world.exchange.post(replace(message, signed=replace(message.signed, header=header)))


def message(
    world: World, kind: str, to: str = COORDINATOR, sender: str = BAD, **of: int
) -> Message:
    topic = Topic(world.consortium, "run-1", of.get("attempt", 1), of.get("round", 3))
    return sign(world.parties[sender], topic, kind, to, b"x")


WANTED = {
    "its payload": ("payload", COORDINATOR, 3),
    "of a named sum": ("evaluation.payload", COORDINATOR, 3),
    "what it tells all": ("tag", EVERYONE, 3), "its word": ("done-17", COORDINATOR, 0),
    "its report": ("statistics.report-protect", COORDINATOR, 3), "a key": ("sealed-key", SITE, 0),
    "a key that it holds": ("held-1", COORDINATOR, 0), "its style": ("style", EVERYONE, 0),
}  # fmt: skip
UNWANTED = {
    "a round that is to come": ("payload", COORDINATOR, 4, "not begun round"),
    "a payload of a round that is done": ("payload", COORDINATOR, 2, "Round 2 of run run-1"),
    "what helps to open its evaluation": ("evaluation.payload", COORDINATOR, 2, "is done"),
    "a report of it": ("report-protect", COORDINATOR, 1, "is done"),
    "a tag of it for all": ("tag", EVERYONE, 1, "is done"),
    "a round of a million": ("tag", EVERYONE, 10**6, "not begun round"),
    "a payload for all": ("payload", EVERYONE, 3, "No site sends"),
    "a payload for a site": ("payload", SITE, 3, "No site sends"),
    "a key for who does not take part": ("sealed-key", ABSENT, 0, "Not all"),
    "a key for itself": ("sealed-key", BAD, 0, "No site sends"),
    "a style in each round": ("style", EVERYONE, 3, "not begun round"),
    "a plan": ("run-plan", EVERYONE, 0, "No site sends"),
    "junk": ("junk1", EVERYONE, 0, "No site sends"),
}  # fmt: skip


@pytest.mark.parametrize("what", WANTED)
def test_what_sites_send_in_a_run_is_wanted(made: World, what: str) -> None:
    kind, to, number = WANTED[what]
    assert made.office.accepts(message(made, kind, to, round=number).header) == ""


@pytest.mark.parametrize("what", UNWANTED)
def test_what_no_site_sends_or_not_yet_is_not_wanted(made: World, what: str) -> None:
    kind, to, number, why = UNWANTED[what]
    assert why in made.office.accepts(message(made, kind, to, round=number).header)


def test_nothing_is_wanted_of_a_run_or_attempt_that_is_not_begun(made: World) -> None:
    accepts = made.office.accepts
    header = message(made, "payload").header
    assert "begun no attempt 2" in accepts(replace(header, attempt=2))
    assert "no attempt 1 at a run no-such-run" in accepts(replace(header, run="no-such-run"))
    # Nor of one that a site has proposed in the coordinator's name.
    begin(made, "run-2", (SITE, BAD), signer=BAD)
    assert "begun no attempt" in accepts(replace(header, run="run-2", round=0))
    begin(made, "run-3", (SITE, BAD))
    assert accepts(replace(header, run="run-3", round=0)) == ""


def test_nothing_is_wanted_of_who_does_not_take_part(made: World) -> None:
    assert "Not all" in made.office.accepts(message(made, "tag", EVERYONE, ABSENT).header)


def test_a_round_is_done_once_the_coordinator_itself_begins_another_in_that_attempt(
    made: World,
) -> None:
    accepts, late = made.office.accepts, message(made, "payload", round=3).header
    for signer, attempt in ((BAD, 1), (COORDINATOR, 2)):
        topic = Topic(made.consortium, "run-1", attempt, 4)
        plan = sign(made.parties[signer], topic, kinds.ROUND_PLAN, EVERYONE, signer.encode())
        header = replace(plan.header, sender=COORDINATOR)
        made.exchange.post(replace(plan, signed=replace(plan.signed, header=header)))
        assert accepts(late) == ""
    topic = Topic(made.consortium, "run-1", 1, 4)
    coordinator = made.parties[COORDINATOR]
    made.exchange.post(sign(coordinator, topic, kinds.ROUND_PLAN, EVERYONE, b"4"))
    assert accepts(late) == "Round 3 of run run-1 is done."
    assert accepts(replace(late, round=4)) == ""
    # What is said before all rounds, and a word on what was asked, has its own rules.
    assert accepts(message(made, "sealed-key", SITE, round=0).header) == ""
    ask(made, 19, round_number=3)
    assert accepts(message(made, "done-19", round=3).header) == ""


def test_what_other_sites_send_begins_no_round(made: World) -> None:
    made.exchange.post(message(made, "tag", EVERYONE, SITE, round=4))
    assert "not begun round 4" in made.office.accepts(
        message(made, "tag", EVERYONE, round=4).header
    )


def test_a_word_is_of_what_the_coordinator_has_asked_that_site(made: World) -> None:
    """Of a stage that it was never asked, in another round, or that another was, no word counts."""
    accepts = made.office.accepts
    word = message(made, "done-17", COORDINATOR, round=0).header
    assert accepts(word) == ""
    for number in (1, 16, 18, 10**14):
        assert "has not asked" in accepts(replace(word, kind=f"done-{number}"))
    assert "has not asked" in accepts(replace(word, round=3))
    assert "has not asked" in accepts(message(made, "done-17", COORDINATOR, SITE, round=0).header)
    # Nor of what a site asks in the coordinator's name.
    ask(made, 18, signer=BAD)
    assert "has not asked" in accepts(replace(word, kind="done-18"))
    ask(made, 18, round_number=3)
    assert accepts(replace(word, kind="done-18", round=3)) == ""


def test_a_site_that_sends_words_of_stages_never_asked_is_refused_and_written_down(
    made: World,
) -> None:
    with serving(made):
        attacker = Attacker(made)
        for number in range(1, 6):
            topic = Topic(made.consortium, "run-1", 1, 3)
            word = sign(made.parties[BAD], topic, f"done-{number}", COORDINATOR, b"{}")
            answer = attacker.upload(word.to_bytes(), word.signed.digest, f"done-{number}")
            assert (answer.status_code, answer.json()["reason"]) == (422, "not wanted")
    assert made.refused(BAD) == ["not wanted"] * 5
    assert not list(made.exchange.root.rglob("done-*/*/*.message"))


@pytest.mark.parametrize("what", sorted(set(WANTED) - {"its word"}))
def test_an_attempt_that_has_ended_wants_nothing_but_the_words_on_what_it_asked(
    made: World, what: str
) -> None:
    kind, to, number = WANTED[what]
    end(made, signer=BAD)  # which ends nothing
    assert made.office.accepts(message(made, kind, to, round=number).header) == ""
    end(made)
    assert "has ended" in made.office.accepts(message(made, kind, to, round=number).header)
    assert made.office.accepts(message(made, "done-17", COORDINATOR, round=0).header) == ""


def test_what_is_sent_of_an_ended_run_is_refused_and_written_down(made: World) -> None:
    end(made)
    with serving(made):
        attacker = Attacker(made)
        late = message(made, "payload")
        answer = attacker.upload(late.to_bytes(), late.signed.digest)
        assert (answer.status_code, answer.json()["reason"]) == (422, "not wanted")
    (line,) = [x for x in made.office.audit.lines() if x.get("sender") == BAD]
    assert (line["event"], line["reason"]) == ("request refused", "not wanted")
    assert "run run-1 has ended" in line["said"]
    assert not made.exchange.path(late.signed).exists()


def test_an_attempt_that_another_has_followed_wants_nothing(made: World) -> None:
    begin(made, "run-1", (SITE, BAD), signer=BAD, attempt=4)  # which is no proposal
    assert made.office.accepts(message(made, "payload").header) == ""
    # Of the second nothing was proposed: the process was killed before that.
    begin(made, "run-1", (SITE, BAD), attempt=3)
    assert "Attempt 3 at run run-1 has begun" in made.office.accepts(
        message(made, "payload").header
    )
    end(made, attempt=1)
    assert made.office.accepts(message(made, "joining", attempt=3, round=0).header) == ""


def test_a_site_cannot_fill_another_sites_disk(made: World) -> None:
    """Neither with runs that do not exist nor with any number of messages in one place."""
    with serving(made):
        attacker = Attacker(made)
        for number in range(3):
            topic = Topic(made.consortium, "no-such-run", 1, 10**6 + number)
            junk = sign(made.parties[BAD], topic, "tag", EVERYONE, bytes(60_000))
            answer = attacker.upload(junk.to_bytes(), junk.signed.digest, "tag")
            assert (answer.status_code, answer.json()["reason"]) == (422, "not wanted")
        for number in range(5):
            tag = sign(
                made.parties[BAD], Topic(made.consortium, "run-1", 1, 3), "tag", EVERYONE,
                bytes([number]),
            )  # fmt: skip
            attacker.upload(tag.to_bytes(), tag.signed.digest, "tag")
        with made.link(SITE) as link:
            # The proposal, the plan, and the two by which it is seen that the site lies.
            assert link.pull() == 4


def test_each_kind_that_a_site_sends_has_its_bound_and_no_other_has_one() -> None:
    limits = Limits()
    for name, kind in vars(kinds).items():
        if not name.isupper() or not isinstance(kind, str):
            continue
        known = limits.most(
            {"DONE": "done-1", "HELD": "held-0", "REPORT": "report-vouch"}.get(name, kind)
        )
        assert (known is None) == (name in OF_COORDINATOR), name
    unbounded = {kind for kind, known in sent_kinds._KINDS.items() if known.most is None}
    assert unbounded == {kinds.PAYLOAD, kinds.OPENED, kinds.PROOF, kinds.OWN_MODEL}
    assert limits.most("done-1") == kinds.MOST_DONE + MOST_FRAME
    assert limits.most("evaluation.tag") == kinds.MOST_TAG + MOST_FRAME


@pytest.mark.parametrize(
    "kind", ["done-", "done-01", "done-x", "held-", "held-10000", "report-", "report-../x",
             "evaluation.style", "evaluation.", "statistics.done-1", "x.payload",
             "payload.evaluation", "", "..", "ask-1"],
)  # fmt: skip
def test_a_kind_that_is_nearly_one_is_none(kind: str) -> None:
    assert Limits().most(kind) is None


def test_the_sums_that_messages_may_be_of_are_those_that_there_are() -> None:
    assert set(sent_kinds.SUMS) == set(NAMED_SUMS)
