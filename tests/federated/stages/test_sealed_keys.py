"""How the sites of a run come to one key by messages, and who notices which lie.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange.
"""

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tasks.keys
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.folder import EVERYONE, Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Message
from federated.protection.keys import RunKey, new_run_key
from federated.protection.parameters import Parameters
from federated.secrets.sealing import new_sealing_key, seal_to, sealing_public
from federated.site.key_store import KeyStore
from federated.stages.aggregate import add_payloads, decrypt_site, hand_sum, vouch_site
from federated.stages.checkpoint import commit_round
from federated.stages.compress import compress_site
from federated.stages.coordinator import begin_round, plan_run, propose, publish_state
from federated.stages.key_verdict import KeySearch, hear, relay_held
from federated.stages.key_words import held_kind, pack_roster, refusal, told_of
from federated.stages.keys import (
    NoKeyTakenError,
    _label,
    _own_parameters,
    erase_key,
    held_key,
    make_key,
    site_key,
    take_key,
)
from federated.stages.local_train import train_site
from federated.stages.protect import protect_site
from federated.stages.site import SiteCall, candidate
from federated.stages.take_part import take_part
from tasks.keys import key as agree
from tests.federated.exchange.parties import identity
from tests.federated.staged_run import Staged, agree_on_key, begin, small_experiment, train_round
from tests.federated.stages.lies import BFV, OTHER, SITE, refusals, sign_plan

THIRD = "site-02"
# Of a site on the key of the first.
WORD = held_kind([SITE], SITE)
FOUR = BFV | {"sites": {"count": 4, "partition": "iid", "min_cases": 2, "on_dropout": "continue"}}


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Staged:
    """A run of three sites that has no key yet; all have sent to what they can be sealed to."""
    started = begin(small_experiment(data, **BFV), tmp_path / "runs")
    publish_state(started.coordinator, 0)
    return started


def store(run: Staged, site: str) -> KeyStore:
    return KeyStore.of(run.home(site), run.folder.run_id)


def place(run: Staged, kind: str, sender: str, to: str = EVERYONE) -> Path:
    """The folder of a message of the present attempt, before the first round."""
    start = run.coordinator.start
    found = Place(start.run, 0, start.attempt, to, kind, sender)
    return run.coordinator.mailbox.exchange.folder(found)


def forged(run: Staged, signer: Any, kind: str, body: bytes, to: str = EVERYONE) -> Message:
    """A message that ``signer`` has signed, where those of the run's plan belong."""
    box = replace(run.coordinator.mailbox, me=signer)
    return box.send(run.coordinator.topic(0), kind, body, to)


def lacks(run: Staged, site: str) -> bool:
    return not (store(run, site).folder / "secret.key").exists()


def test_every_site_has_the_makers_key_in_its_own_home_alone(run: Staged) -> None:
    held = agree_on_key(run)
    assert held.sites == set(run.sites)
    keys = [store(run, site).read(held.public) for site in run.sites]
    assert len({key.to_bytes() for key in keys}) == 1
    for site in run.sites:
        for path in (
            store(run, site).folder / "secret.key",
            store(run, site).place / "sealing.key",
        ):
            assert path.stat().st_mode & 0o777 == 0o600


def test_the_key_is_erased_everywhere_at_the_end_and_the_count_of_openings_is_not(
    run: Staged,
) -> None:
    held = agree_on_key(run)
    assert store(run, SITE).count_opening(held.public) == 1
    for site in run.sites:
        erase_key(run.call(site))
    for site in run.sites:
        left = {path.name for path in store(run, site).place.rglob("*")}
        assert not {name for name in left if name.endswith((".key", ".sealed"))}
    assert store(run, SITE).count_opening(held.public) == 2
    with pytest.raises(ConsiliumError, match="has no key of run"):
        site_key(run.site(SITE))


def test_a_run_that_goes_on_has_the_key_that_it_had_also_at_a_site_that_lost_it(
    run: Staged,
) -> None:
    before = agree_on_key(run).public
    shutil.rmtree(store(run, OTHER).folder)
    run.resume()
    assert agree_on_key(run).public == before
    assert store(run, OTHER).read(before).public == before


def test_where_the_holder_has_lost_its_key_all_have_another(run: Staged) -> None:
    before = agree_on_key(run).public
    shutil.rmtree(store(run, SITE).folder)
    run.resume()
    after = agree_on_key(run).public
    assert after != before
    assert {store(run, site).read(after).public for site in run.sites} == {after}


def test_a_stage_that_is_done_twice_sends_the_same_messages(run: Staged) -> None:
    """Sealing draws anew each time, and two different messages count for nothing."""
    for _ in range(2):
        make_key(run.call(SITE), 0)
    for _ in range(2):
        take_key(run.call(OTHER), SITE, 0)
    assert not lacks(run, OTHER)


def test_after_the_first_round_the_sites_have_the_key_and_no_sealed_one_is_left_to_record(
    run: Staged,
) -> None:
    held = agree_on_key(run)
    commit_round(run.coordinator, 1, {"round": 1, "sites": run.sites, "metrics": {}})
    for site in run.sites:
        assert held_key(run.site(site)) == held
        assert site_key(run.site(site)) is not None
    left = run.folder.exchange_path.rglob("*.message")
    assert not {path.parent.parent.name for path in left} & {kinds.SEALED_KEY, kinds.SEALING}


# --- A coordinator that wants the key.


@pytest.mark.parametrize("name", [COORDINATOR, OTHER])
def test_a_coordinator_that_sends_a_key_of_its_own_for_a_site_is_not_sealed_to(
    run: Staged, name: str
) -> None:
    """The classic one: it puts its own public key where that of a site was.

    It signs that with its own name, or with a key that it has made up for the site's.
    """
    there = place(run, kinds.SEALING, OTHER)
    (honest,) = there.iterdir()
    honest.unlink()
    before = candidate(run.call(OTHER))[0].start
    me = run.coordinator.mailbox.me if name == COORDINATOR else identity(OTHER)
    body = sealing_public(new_sealing_key())
    sent = replace(run.coordinator.mailbox, me=me).send(before, kinds.SEALING, body)
    (there / "own.message").write_bytes(sent.to_bytes())
    refused = make_key(run.call(SITE), 0)
    assert set(refused) == {OTHER}
    assert "no message sealing from site-01" in refused[OTHER]
    assert refusals(run, SITE)[-1] in {"other sender", "bad signature"}
    assert not place(run, kinds.SEALED_KEY, SITE, OTHER).exists()
    assert place(run, kinds.SEALED_KEY, SITE, THIRD).exists()


def test_sealed_keys_that_are_swapped_open_for_nobody(run: Staged) -> None:
    make_key(run.call(SITE), 0)
    one, two = (place(run, kinds.SEALED_KEY, SITE, site) for site in (OTHER, THIRD))
    (first,), (second,) = one.iterdir(), two.iterdir()
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    for site in (OTHER, THIRD):
        with pytest.raises(RefusalError, match="its recipient is"):
            take_key(run.call(site), SITE, 0)
        assert lacks(run, site)
        assert "other recipient" in refusals(run, site)


def test_what_is_sealed_to_one_site_opens_under_no_other_name_run_attempt_or_key(
    run: Staged,
) -> None:
    """Where the maker itself were made to send it on: the label is part of the cipher."""
    public = sealing_public(store(run, OTHER).sealing_key())
    topic = run.coordinator.topic(0)
    own = new_run_key(small_parameters(run))
    labels = {
        "another site's": _label(topic, SITE, THIRD, own.public),
        "another maker's": _label(topic, THIRD, OTHER, own.public),
        "another run's": _label(replace(topic, run="other"), SITE, OTHER, own.public),
        "another attempt's": _label(replace(topic, attempt=7), SITE, OTHER, own.public),
        "another plan's": _label(replace(topic, plan="0"), SITE, OTHER, own.public),
        "another key's": _label(topic, SITE, OTHER, new_run_key(own.parameters).public),
    }
    maker = run.home(SITE).identity()
    forged(run, maker, kinds.KEY, told_of(own.public))
    for label in labels.values():
        there = place(run, kinds.SEALED_KEY, SITE, OTHER)
        shutil.rmtree(there, ignore_errors=True)
        forged(run, maker, kinds.SEALED_KEY, seal_to(public, own.to_bytes(), label), OTHER)
        with pytest.raises(RefusalError, match="was changed, or is sealed to another"):
            take_key(run.call(OTHER), SITE, 0)
    assert lacks(run, OTHER)


def small_parameters(run: Staged) -> Any:
    return _own_parameters(run.site(SITE), 0)


def test_the_key_of_an_old_run_or_attempt_is_not_taken_again(
    run: Staged, tmp_path: Path, data: Path
) -> None:
    agree_on_key(run)
    old = [place(run, kinds.KEY, SITE), place(run, kinds.SEALED_KEY, SITE, OTHER)]
    again = begin(small_experiment(data, **BFV), tmp_path / "runs")
    publish_state(again.coordinator, 0)
    run.resume()
    publish_state(run.coordinator, 0)
    shutil.rmtree(store(run, OTHER).folder)
    for goal, reason in ((again, "other consortium"), (run, "other attempt")):
        new = [place(goal, kinds.KEY, SITE), place(goal, kinds.SEALED_KEY, SITE, OTHER)]
        for source, target in zip(old, new, strict=True):
            shutil.copytree(source, target)
        with pytest.raises(RefusalError, match="no message key from site-00"):
            take_key(goal.call(OTHER), SITE, 0)
        assert lacks(goal, OTHER)
        assert reason in refusals(goal, OTHER)


def know_only(run: Staged, sites: list[str]) -> None:
    """Let the maker's policy name the fingerprints of these sites."""
    home = run.home(SITE)
    known = [run.home(site).identity().public.fingerprint.replace(" ", "") for site in sites]
    lines = [
        line for line in home.policy_path.read_text().splitlines() if "participants" not in line
    ]
    home.write_policy("\n".join([*lines, f"participants: {known}", ""]))


def test_a_site_that_the_coordinator_has_made_up_is_not_sealed_to(run: Staged) -> None:
    """It enrols a key of its own as a site; whoever names the sites that it knows takes no part."""
    know_only(run, [OTHER, THIRD])
    ghost = identity(THIRD).public
    sign_plan(run, lambda plan: replace(plan, participants={**plan.participants, THIRD: ghost}))
    publish_state(run.coordinator, 0)
    with pytest.raises(RefusalError, match=r"does not know site-02 .*\(participants\)"):
        make_key(run.call(SITE), 0)
    assert not place(run, kinds.SEALED_KEY, SITE, THIRD).exists()


def test_a_site_that_the_holder_does_not_know_any_more_is_not_sealed_to(run: Staged) -> None:
    """The plan is accepted already, and its owner has taken a name out of the policy since."""
    run.site(SITE)
    know_only(run, [THIRD])
    refused = make_key(run.call(SITE), 0)
    assert set(refused) == {OTHER}
    assert "(participants)" in refused[OTHER]
    assert not place(run, kinds.SEALED_KEY, SITE, OTHER).exists()


def test_with_participants_any_a_site_that_nobody_has_compared_gets_the_key(run: Staged) -> None:
    """Not stopped, and docs/parties.md says so: the coordinator may have made any of them up."""
    assert run.site(SITE).home.policy().settings.participants == "any"
    assert make_key(run.call(SITE), 0) == {}
    assert place(run, kinds.SEALED_KEY, SITE, THIRD).exists()


def test_the_exchange_and_the_coordinators_folder_have_no_byte_of_a_key(run: Staged) -> None:
    held = agree_on_key(run)
    key = store(run, SITE).read(held.public)
    parts = [key.tags, key.secret[40:72], store(run, OTHER).sealing_key()]
    forms = {form for part in parts for form in (part, part.hex().encode())}
    paths = [path for path in run.folder.root.rglob("*") if path.is_file()]
    told = [path for path in paths if not path.is_relative_to(run.folder.root / "sites")]
    assert len(told) > 20
    assert not [path for path in told if any(form in path.read_bytes() for form in forms)]
    # What is looked for is what is there.
    assert any(key.tags in path.read_bytes() for path in paths)


# --- A maker that lies.


def lie(run: Staged, told: RunKey, sealed: bytes) -> None:
    """The maker tells all of one key, and seals something else to a site."""
    maker, public = run.home(SITE).identity(), sealing_public(store(run, OTHER).sealing_key())
    label = _label(run.coordinator.topic(0), SITE, OTHER, told.public)
    forged(run, maker, kinds.KEY, told_of(told.public))
    forged(run, maker, kinds.SEALED_KEY, seal_to(public, sealed, label), OTHER)


def test_a_site_that_is_sealed_another_key_than_all_were_told_of_says_so(run: Staged) -> None:
    parameters = small_parameters(run)
    lie(run, new_run_key(parameters), new_run_key(parameters).to_bytes())
    with pytest.raises(RefusalError, match=r"site-00 has sealed to site-01.*another one than"):
        take_key(run.call(OTHER), SITE, 0)
    assert lacks(run, OTHER)


NO_KEYS: dict[str, Callable[[RunKey], bytes]] = {
    "nothing": lambda key: b"",
    "no key of SEAL": lambda key: b"x" * 500,
    "cut short": lambda key: key.secret[:-10],
}


@pytest.mark.parametrize("what", NO_KEYS)
def test_what_is_no_key_is_refused_by_name_although_all_were_told_of_it(
    run: Staged, what: str
) -> None:
    good = new_run_key(small_parameters(run))
    bad = replace(good, secret=NO_KEYS[what](good))
    lie(run, bad, bad.to_bytes())
    with pytest.raises(RefusalError, match="site-00 has sealed to site-01 is refused"):
        take_key(run.call(OTHER), SITE, 0)
    assert lacks(run, OTHER)


def test_a_key_that_unpacks_to_more_than_a_key_is_refused_before_memory_is_taken(
    run: Staged,
) -> None:
    good = new_run_key(small_parameters(run))
    packed = zlib.compress(bytes(50 << 20))
    head = struct.pack("<HBBBBHQ", 0xA15E, 16, 3, 6, 1, 0, 16 + len(packed))
    bad = replace(good, secret=head + packed)
    lie(run, bad, bad.to_bytes())
    with pytest.raises(RefusalError, match=r"unpacks to more than|too large"):
        take_key(run.call(OTHER), SITE, 0)


def test_a_key_for_other_parameters_than_follow_from_the_plan_is_refused(run: Staged) -> None:
    own = small_parameters(run)
    weaker = replace(own, plain_bits=own.plain_bits + 1)
    key = new_run_key(weaker)
    lie(run, key, key.to_bytes())
    with pytest.raises(RefusalError, match="other parameters follow from the plan"):
        take_key(run.call(OTHER), SITE, 0)


def test_what_is_told_to_one_site_alone_is_no_key(run: Staged) -> None:
    """Otherwise the maker alone could tell each site of another key."""
    key = new_run_key(small_parameters(run))
    forged(run, run.home(SITE).identity(), kinds.KEY, told_of(key.public), OTHER)
    with pytest.raises(NoKeyTakenError, match="no message key from site-00"):
        take_key(run.call(OTHER), SITE, 0)


def test_two_keys_of_one_holder_count_for_nothing(run: Staged) -> None:
    make_key(run.call(SITE), 0)
    other = new_run_key(small_parameters(run))
    forged(run, run.home(SITE).identity(), kinds.KEY, told_of(other.public))
    with pytest.raises(RefusalError, match="2 different messages key"):
        take_key(run.call(OTHER), SITE, 0)
    with pytest.raises(ConsiliumError, match="2 different messages key"):
        hear(run.coordinator, SITE, run.sites, 0)


def test_a_holder_that_is_no_site_of_the_run_is_refused(run: Staged) -> None:
    make_key(run.call(SITE), 0)
    for name in (COORDINATOR, "ghost-0"):
        with pytest.raises(RefusalError, match="none of the sites of the run"):
            take_key(run.call(OTHER), name, 0)


def split(run: Staged) -> None:
    """A maker and a coordinator that lie together: each site is shown another key of the maker's.

    No exchange in a folder can do so with two messages that lie there at once; one that hands out
    what it likes to whom it likes can.
    """
    make_key(run.call(SITE), 0)
    take_key(run.call(OTHER), SITE, 0)
    there, told = place(run, kinds.KEY, SITE), run.folder.root / "put aside"
    shutil.move(there, told)
    key = new_run_key(small_parameters(run))
    maker, public = run.home(SITE).identity(), sealing_public(store(run, THIRD).sealing_key())
    label = _label(run.coordinator.topic(0), SITE, THIRD, key.public)
    shutil.rmtree(place(run, kinds.SEALED_KEY, SITE, THIRD))
    forged(run, maker, kinds.KEY, told_of(key.public))
    forged(run, maker, kinds.SEALED_KEY, seal_to(public, key.to_bytes(), label), THIRD)
    take_key(run.call(THIRD), SITE, 0)
    shutil.rmtree(there)
    shutil.move(told, there)


def test_sites_that_were_told_of_different_keys_find_out_by_what_each_has_signed(
    run: Staged,
) -> None:
    split(run)
    receive, topic = run.coordinator.mailbox.receive, run.coordinator.topic(0)
    signed = [receive(topic, WORD, site, kinds.MOST_HELD) for site in run.sites]
    run.coordinator.mailbox.send(topic, kinds.KEY_ROSTER, pack_roster(SITE, signed))
    for site in run.sites:
        with pytest.raises(RefusalError, match="has signed that it has another one"):
            held_key(run.site(site))


def test_an_honest_coordinator_leaves_out_who_has_another_key_and_the_others_go_on(
    run: Staged,
) -> None:
    split(run)
    heard, search = hear(run.coordinator, SITE, run.sites, 0), KeySearch(3)
    assert search.settles(heard, last=False) is heard
    assert relay_held(run.coordinator, heard).sites == {SITE, OTHER}
    assert set(search.lacking) == {THIRD}
    assert "site-02 has signed that it has another key than site-00" in search.lacking[THIRD]
    assert held_key(run.site(OTHER)).sites == {SITE, OTHER}
    with pytest.raises(RefusalError, match="site-02 has no key of the run"):
        site_key(run.site(THIRD))


# --- What is signed, passed on by a coordinator that lies.


def test_a_word_that_no_site_has_signed_is_not_passed_off_as_one(run: Staged) -> None:
    agree_on_key(run)
    topic, there = run.coordinator.topic(0), place(run, kinds.KEY_ROSTER, COORDINATOR)
    receive = run.coordinator.mailbox.receive
    signed = [receive(topic, WORD, site, kinds.MOST_HELD) for site in run.sites[:2]]
    liar = identity(THIRD)
    made_up = forged(run, liar, WORD, signed[0].body, COORDINATOR)
    shutil.rmtree(there)
    run.coordinator.mailbox.send(topic, kinds.KEY_ROSTER, pack_roster(SITE, [*signed, made_up]))
    with pytest.raises(ConsiliumError, match="'site-02', which that site has not signed"):
        held_key(run.site(SITE))


def test_no_sum_is_opened_with_a_site_in_it_whose_word_is_kept_back(run: Staged) -> None:
    agree_on_key(run)
    topic = train_round(run, 1)
    add_payloads(run.coordinator, topic, run.sites)
    before, there = run.coordinator.topic(0), place(run, kinds.KEY_ROSTER, COORDINATOR)
    receive = run.coordinator.mailbox.receive
    signed = [receive(before, WORD, site, kinds.MOST_HELD) for site in run.sites[:2]]
    shutil.rmtree(there)
    run.coordinator.mailbox.send(before, kinds.KEY_ROSTER, pack_roster(SITE, signed))
    hand_sum(run.coordinator, topic, SITE)
    with pytest.raises(RefusalError, match="sum with site-02 in it"):
        vouch_site(run.call(SITE), 1, run.sites)
    with pytest.raises(RefusalError, match="sum with site-02 in it"):
        decrypt_site(run.call(SITE), 1, run.sites)


def test_nothing_is_encrypted_before_the_sites_have_compared_their_keys(run: Staged) -> None:
    make_key(run.call(SITE), 0)
    take_key(run.call(OTHER), SITE, 0)
    begin_round(run.coordinator, 1)
    train_site(run.call(OTHER), 1)
    compress_site(run.call(OTHER), 1)
    with pytest.raises(RefusalError, match="no message key-roster from coordinator"):
        protect_site(run.call(OTHER), 1)
    assert not list(run.folder.exchange_path.rglob(f"{kinds.PAYLOAD}/*/*.message"))


# --- Sites that are gone.


def together(run: Staged) -> tuple[Any, dict[str, str]]:
    """The task by which a run's graph has its sites come to a key."""
    with ThreadPoolExecutor(1) as pool:
        found: tuple[Any, dict[str, str]] = agree.fn(
            pool, run.coordinator, [run.call(site) for site in run.sites]
        )
    return found


@pytest.fixture
def four(tmp_path: Path, data: Path) -> Staged:
    """Four sites, of which one may be gone."""
    return begin(small_experiment(data, **FOUR), tmp_path / "runs")


def test_a_site_whose_sealed_key_is_missing_drops_out_by_name(four: Staged) -> None:
    shutil.rmtree(place(four, kinds.SEALING, THIRD))
    public, lacking = together(four)
    assert set(lacking) == {THIRD}
    assert "no message sealed-key from site-00" in lacking[THIRD]
    assert held_key(four.site(OTHER)).sites == {SITE, OTHER, "site-03"}
    assert json.loads(four.folder.context_path.read_text())["key_id"] == public.key_id


def break_home(run: Staged, site: str) -> None:
    """A site that can do nothing: others can open its home, which it notices itself."""
    run.home(site).root.chmod(0o755)


def test_where_the_holder_is_gone_before_it_has_sealed_the_next_site_makes_the_key(
    four: Staged,
) -> None:
    break_home(four, SITE)
    public, lacking = together(four)
    assert set(lacking) == {SITE}
    held = held_key(four.site(OTHER))
    assert held.sites == {OTHER, THIRD, "site-03"}
    assert held.public == public


def test_a_holder_that_is_gone_ends_a_run_that_is_to_go_on_with_all(
    tmp_path: Path, data: Path
) -> None:
    run = begin(small_experiment(data, **BFV), tmp_path / "runs")
    break_home(run, SITE)
    with pytest.raises(ConsiliumError, match=r"sites/site-00 is for its owner alone"):
        together(run)
    assert not run.folder.context_path.exists()


def test_too_few_sites_with_a_key_end_the_run_before_anything_is_trained(four: Staged) -> None:
    for site in (THIRD, "site-03"):
        shutil.rmtree(place(four, kinds.SEALING, site))
    with pytest.raises(ConsiliumError, match=r"Only 2 sites have the key.*min_sites=3.*site-02"):
        together(four)


@pytest.mark.parametrize("harm", ["open to others", "damaged"])
def test_a_kept_key_that_others_can_read_or_that_is_damaged_is_refused(
    run: Staged, harm: str
) -> None:
    agree_on_key(run)
    path = store(run, OTHER).folder / "secret.key"
    if harm == "damaged":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    else:
        path.chmod(0o644)
    run.resume()
    publish_state(run.coordinator, 0)
    make_key(run.call(SITE), 0)
    with pytest.raises(ConsiliumError, match=r"permissions 644|consilium keys erase NAME --run"):
        take_key(run.call(OTHER), SITE, 0)


# --- Makers and takers that lie, in the task by which the sites of a run come to a key.

LAST = "site-03"


def lying_maker(
    run: Staged, monkeypatch: pytest.MonkeyPatch, lies: dict[str, Callable[[str], None]]
) -> list[str]:
    """Let makers tell a lie, each by its name, after they have made a key; who makes one."""
    made: list[str] = []

    def make(call: SiteCall, done: int) -> None:
        make_key(call, done)
        made.append(call.site)
        if call.site in lies:
            lies[call.site](call.site)

    monkeypatch.setattr(tasks.keys, "make_key", make)
    return made


def noise_to(run: Staged, *victims: str) -> Callable[[str], None]:
    """What a maker does that seals noise to some sites, in messages that it has signed itself."""

    def lie(maker: str) -> None:
        for victim in victims:
            shutil.rmtree(place(run, kinds.SEALED_KEY, maker, victim))
            forged(run, run.home(maker).identity(), kinds.SEALED_KEY, b"x" * 500, victim)

    return lie


def telling(run: Staged, body: Callable[[], bytes], instead: bool) -> Callable[[str], None]:
    """What a maker does that tells all of another key than its own, or of two."""

    def lie(maker: str) -> None:
        if instead:
            shutil.rmtree(place(run, kinds.KEY, maker))
        forged(run, run.home(maker).identity(), kinds.KEY, body())

    return lie


def accusing(run: Staged, monkeypatch: pytest.MonkeyPatch, liar: str) -> None:
    """Let a site sign of every maker that it has sealed noise to it."""

    def take(call: SiteCall, maker: str, done: int) -> None:
        if call.site != liar:
            take_key(call, maker, done)
            return
        word = refusal(f"The key that {maker} has sealed to {liar} is noise.")
        forged(run, run.home(liar).identity(), held_kind(run.sites, maker), word, COORDINATOR)
        raise NoKeyTakenError("noise")

    monkeypatch.setattr(tasks.keys, "take_key", take)


def have_one_key(run: Staged, sites: set[str]) -> None:
    """See that these sites, and no others, have one key that all of them go by."""
    found = {held_key(run.site(site)) for site in sites}
    (held,) = found
    assert held.sites == sites
    for site in sites:
        assert store(run, site).read(held.public).public == held.public


@pytest.fixture(params=["continue", "abort"])
def either(request: pytest.FixtureRequest, tmp_path: Path, data: Path) -> Staged:
    """Four sites; with either setting what a site sends is judged, and ends nothing."""
    sections = FOUR | {"sites": FOUR["sites"] | {"on_dropout": request.param}}
    return begin(small_experiment(data, **sections), tmp_path / "runs")


def test_a_maker_that_seals_noise_to_all_is_left_out_and_the_next_site_makes_the_key(
    either: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lying_maker(either, monkeypatch, {SITE: noise_to(either, OTHER, THIRD, LAST)})
    _, lacking = together(either)
    assert made == [SITE, OTHER]
    assert set(lacking) == {SITE}
    assert "site-01, site-02, site-03 have signed" in lacking[SITE]
    have_one_key(either, {OTHER, THIRD, LAST})


def other_parameters(run: Staged) -> bytes:
    own = small_parameters(run)
    return told_of(new_run_key(replace(own, plain_bits=own.plain_bits + 1)).public)


TOLD: dict[str, Callable[[Staged], Callable[[str], None]]] = {
    "of two keys": lambda run: telling(
        run, lambda: told_of(new_run_key(small_parameters(run)).public), instead=False
    ),
    "of other parameters": lambda run: telling(run, lambda: other_parameters(run), instead=True),
    "of nothing": lambda run: telling(run, lambda: b"{", instead=True),
    "nobody": lambda run: lambda maker: shutil.rmtree(place(run, kinds.KEY, maker)),
}


@pytest.mark.parametrize("lie", TOLD)
def test_a_maker_that_tells_wrongly_of_its_key_is_left_out_and_the_next_site_makes_one(
    four: Staged, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    made = lying_maker(four, monkeypatch, {SITE: TOLD[lie](four)})
    _, lacking = together(four)
    assert made == [SITE, OTHER]
    assert set(lacking) == {SITE}
    have_one_key(four, {OTHER, THIRD, LAST})


def test_a_maker_that_seals_noise_to_one_site_keeps_nobody_out(
    either: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lying_maker(either, monkeypatch, {SITE: noise_to(either, LAST)})
    assert together(either)[1] == {}
    assert made == [SITE, OTHER]
    have_one_key(either, {SITE, OTHER, THIRD, LAST})


@pytest.mark.parametrize("liar", [OTHER, LAST])
def test_a_site_that_says_of_every_maker_that_it_lies_keeps_nobody_but_itself_out(
    either: Staged, monkeypatch: pytest.MonkeyPatch, liar: str
) -> None:
    """As the next maker it does its worst too."""
    lies = {liar: noise_to(either, *(s for s in either.sites if s != liar))}
    made = lying_maker(either, monkeypatch, lies)
    accusing(either, monkeypatch, liar)
    _, lacking = together(either)
    assert set(lacking) == {liar}
    assert len(made) <= 3
    have_one_key(either, set(either.sites) - {liar})


@pytest.fixture
def five(tmp_path: Path, data: Path) -> Staged:
    """Five sites, of which two may lie."""
    sections = FOUR | {"sites": FOUR["sites"] | {"count": 5}}
    return begin(small_experiment(data, **sections), tmp_path / "runs")


def test_two_makers_that_seal_noise_to_the_same_sites_keep_nobody_out(
    five: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies = {site: noise_to(five, THIRD, LAST) for site in (SITE, OTHER)}
    made = lying_maker(five, monkeypatch, lies)
    assert together(five)[1] == {}
    assert made == [SITE, OTHER, THIRD]
    have_one_key(five, set(five.sites))


def test_the_sites_go_on_with_the_key_of_an_earlier_maker_once_it_is_known_who_lies(
    five: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each site has taken other keys since, and still has that one."""
    made = lying_maker(five, monkeypatch, {})
    make = tasks.keys.make_key

    def make_another(call: SiteCall, done: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(KeyStore, "find", lambda store: None)
            make(call, done)

    monkeypatch.setattr(tasks.keys, "make_key", make_another)
    accusing(five, monkeypatch, five.sites[4])
    public, lacking = together(five)
    assert (made, set(lacking)) == ([SITE, OTHER, THIRD], {five.sites[4]})
    have_one_key(five, set(five.sites[:4]))
    assert store(five, SITE).read(public).public == public
    for site in five.sites[:4]:
        assert not (store(five, site).place / "keys-before").exists()


def test_a_maker_that_was_found_to_lie_is_not_one_of_those_who_are_enough_for_a_sum(
    run: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the next maker's key as all do, and takes part in no round."""
    lying_maker(run, monkeypatch, {SITE: noise_to(run, OTHER, THIRD)})
    with pytest.raises(ConsiliumError, match=r"Only 2 sites have the key.*site-00 is left out"):
        together(run)


def test_of_two_sites_one_that_lies_leaves_the_run_without_a_key_and_it_says_so(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are needed for a sum, so that no rule can do better."""
    sections = BFV | {
        "sites": {"count": 2, "partition": "iid", "min_cases": 2},
        "protection": {"name": "packed_bfv", "min_sites": 2},
    }
    two = begin(small_experiment(data, **sections), tmp_path / "runs")
    accusing(two, monkeypatch, OTHER)
    lying_maker(two, monkeypatch, {OTHER: noise_to(two, SITE)})
    with pytest.raises(ConsiliumError, match=r"Only 1 sites have the key.*min_sites=2.*site-01"):
        together(two)


def test_where_every_maker_lies_there_are_as_many_tries_as_sites_and_no_key(
    four: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies = {site: TOLD["nobody"](four) for site in four.sites}
    made = lying_maker(four, monkeypatch, lies)
    with pytest.raises(ConsiliumError, match=r"No site has made a key.*site-00: .*site-03: "):
        together(four)
    assert made == four.sites
    assert not four.folder.context_path.exists()


def test_a_key_is_said_to_be_made_by_a_site_of_the_run_alone(run: Staged) -> None:
    agree_on_key(run)
    topic, there = run.coordinator.topic(0), place(run, kinds.KEY_ROSTER, COORDINATOR)
    receive = run.coordinator.mailbox.receive
    signed = [receive(topic, WORD, site, kinds.MOST_HELD) for site in run.sites]
    for maker, said in ((OTHER, "another round, state, plan or kind"), ("ghost", "none of the")):
        shutil.rmtree(there)
        run.coordinator.mailbox.send(topic, kinds.KEY_ROSTER, pack_roster(maker, signed))
        with pytest.raises(ConsiliumError, match=said):
            held_key(run.site(SITE))


# --- A run that goes on with other participants.


def go_on_with(run: Staged, sites: list[str]) -> None:
    """Begin another attempt at a run, with these sites."""
    proposed = propose(run.folder, run.coordinator.mailbox.members, sites)
    run.coordinator = replace(proposed, published={})
    for site in sites:
        take_part(run.call(site))
    run.coordinator = plan_run(proposed)[0]
    publish_state(run.coordinator, 0)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([SITE, OTHER, THIRD], [SITE, OTHER, THIRD, LAST]),
        ([SITE, OTHER, THIRD, LAST], [SITE, OTHER, THIRD]),
    ],
    ids=["one more", "one less"],
)
def test_a_run_that_goes_on_with_other_participants_has_another_key(
    four: Staged, first: list[str], then: list[str]
) -> None:
    """Who comes later could open what was sent before, and who is gone what is sent from now on."""
    go_on_with(four, first)
    before = agree_on_key(four).public
    go_on_with(four, then)
    assert agree_on_key(four).public != before


def test_a_maker_that_seals_an_old_key_to_other_participants_finds_no_takers(
    four: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on_with(four, [SITE, OTHER, THIRD])
    before = agree_on_key(four).public
    go_on_with(four, four.folder.sites())
    old = store(four, SITE)
    # The attack: the maker's own record says that the key was for all who take part now.
    everyone = {four.home(site).identity().public.key for site in four.sites}
    old.keep(old.find(), everyone)
    make_key(four.call(SITE), 0)
    for site in (OTHER, THIRD):
        with pytest.raises(NoKeyTakenError, match="of an attempt with other participants"):
            take_key(four.call(site), SITE, 0)
    heard = hear(four.coordinator, SITE, [SITE, OTHER, THIRD], 0)
    assert set(heard.refusing) == {OTHER, THIRD}
    assert heard.public == before


@pytest.mark.parametrize("told", ["as before", "with another commitment"])
def test_a_site_knows_a_key_that_it_has_had_after_it_was_sealed_others(
    four: Staged, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """A maker that seals the key of an attempt before the last one, to others than had it."""
    go_on_with(four, [SITE, OTHER, THIRD])
    agree_on_key(four)
    old = store(four, SITE).find()
    assert old is not None
    go_on_with(four, four.folder.sites())
    agree_on_key(four)
    go_on_with(four, four.folder.sites())
    if told == "with another commitment":
        old = replace(old, tags=bytes(32))
    everyone = {four.home(site).identity().public.key for site in four.sites}
    store(four, SITE).keep(old, everyone)
    make_key(four.call(SITE), 0)
    for site in (OTHER, THIRD):
        with pytest.raises(NoKeyTakenError, match="of an attempt with other participants"):
            take_key(four.call(site), SITE, 0)


def test_a_kept_key_of_which_it_is_not_known_for_whom_it_was_made_is_not_sealed_again(
    run: Staged,
) -> None:
    """Versions before this one did not write that down."""
    before = agree_on_key(run).public
    path = store(run, SITE).folder / "context.json"
    told = json.loads(path.read_text())
    del told["participants"]
    path.write_text(json.dumps(told))
    run.resume()
    assert agree_on_key(run).public != before


@pytest.mark.parametrize("key", ["degree", "plain_bits", "base", "digits"])
def test_parameters_of_a_key_are_whole_numbers_and_not_what_equals_them(
    encrypted: Staged, key: str
) -> None:
    """4096.0 equals 4096, and is refused by the library with a TypeError at every other site."""
    told = _own_parameters(encrypted.site("site-00"), 0).to_json()
    assert Parameters.from_json(json.loads(json.dumps(told))).to_json() == told
    for other in (float(told[key]), bool(told[key]), str(told[key]), None):
        with pytest.raises(ValueError, match="are whole numbers"):
            Parameters.from_json(told | {key: other})
