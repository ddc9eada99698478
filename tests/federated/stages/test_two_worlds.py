"""Coordinator and sites open no file of each other, and learn what messages tell alone."""

import json
import os
import sys
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.exchange import kinds
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Topic
from federated.files import read_json, write_json
from federated.privacy.ledger import ledger_root
from federated.protection.keys import PublicContext, RunKey
from federated.run.result import TOLD, Outcome, Unreported
from federated.run.update_files import read_payload, read_state
from federated.secrets.home import consilium_home
from federated.site.key_store import KeyStore
from federated.stages.aggregate import (
    add_payloads,
    apply_sum,
    decrypt_site,
    hand_sum,
    received_sum,
    vouch_site,
)
from federated.stages.compress import compress_site
from federated.stages.coordinator import (
    ask_evaluation,
    begin_round,
    end_run,
    publish_state,
)
from federated.stages.evaluate import evaluate, evaluate_site
from federated.stages.key_verdict import hear, relay_held
from federated.stages.keys import make_key, site_key, take_key
from federated.stages.local_train import train_site
from federated.stages.named_sums import EVALUATION
from federated.stages.own_models import receive_models
from federated.stages.privacy_report import receive_reports, tell_privacy
from federated.stages.protect import protect_site
from federated.stages.report import reports
from federated.stages.secagg import (
    advertise_site,
    agree_site,
    answer_site,
    forget_secrets,
    share_site,
)
from federated.stages.secagg_messages import masked_round
from federated.stages.secagg_relay import (
    relay_keys,
    relay_responded,
    relay_shares,
    relay_views,
    unmask_sum,
)
from federated.stages.secure_sum import digits_in
from federated.stages.site_model import hand_over
from federated.stages.worker import site_cases, worker_context
from federated.weights.bounded_file import Content
from tasks.fork_server import start_fork_server
from tests.federated.staged_run import (
    Staged,
    begin,
    play_round,
    record,
    small_experiment,
    small_images,
    train_round,
)
from tests.federated.stages.lies import (
    BFV,
    PRIVATE,
    QUANTISED,
    SITE,
    THREE,
    body_of,
)


class OpenedFiles:
    """The files that this process opens, from when it is made until the process ends.

    The hook that tells of them cannot be removed again, and makes all that comes after it slower:
    only in a process of its own.
    """

    def __init__(self) -> None:
        self._seen: list[Path] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | Path):
            self._seen.append(Path(str(arguments[0])).absolute())

    def taken(self) -> list[Path]:
        """Those since this was asked for last."""
        taken, self._seen = self._seen, []
        return taken


def in_its_own_process(what: Callable[..., None], *arguments: Any) -> None:
    """Call a function of this module in another process, with this one's environment."""
    context = start_fork_server()
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_called, args=(there, dict(os.environ), what, arguments))
    child.start()
    there.close()
    said = here.recv()
    child.join()
    assert said is None, said


def _called(there: Any, environment: dict[str, str], what: Any, arguments: Any) -> None:
    os.environ.update(environment)
    said = None
    try:
        what(*arguments)
    except BaseException:
        said = traceback.format_exc()
    there.send(said)


def steps(run: Staged) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A whole run of one round, stage by stage: whose each is, and what it does."""
    box: dict[str, Any] = {}
    coordinator, protection = run.coordinator, run.experiment.protection

    def keep(name: str, value: Any) -> None:
        box[name] = value

    def at_all(stage: Callable[..., Any], *arguments: Any) -> Iterator[tuple[str, Any]]:
        for site in run.sites:
            yield site, lambda site=site: stage(run.call(site), *arguments)

    if protection.keyed:
        yield COORDINATOR, lambda: publish_state(coordinator, 0)
        yield SITE, lambda: make_key(run.call(SITE), 0)
        for site in run.sites[1:]:
            yield site, lambda site=site: take_key(run.call(site), SITE, 0)
        yield COORDINATOR, lambda: keep("heard", hear(coordinator, SITE, run.sites, 0))
        yield COORDINATOR, lambda: keep("held", relay_held(coordinator, box["heard"]).public)
        yield COORDINATOR, lambda: write_json(run.folder.context_path, box["held"].to_json())
    yield COORDINATOR, lambda: keep("topic", begin_round(coordinator, 1))
    topic = box["topic"]
    if protection.masked:
        yield from at_all(advertise_site, 1)
        yield COORDINATOR, lambda: keep("roster", relay_keys(coordinator, topic, run.sites))
        yield from at_all(share_site, 1)
        yield (
            COORDINATOR,
            lambda: keep("roster", relay_shares(coordinator, topic, box["roster"], run.sites)),
        )
    for stage in (train_site, compress_site, protect_site):
        yield from at_all(stage, 1)
    masks = None
    if protection.masked:
        masks = masked_round(coordinator.run, list(box["roster"].advertised), topic)
    yield COORDINATOR, lambda: keep("added", add_payloads(coordinator, topic, run.sites, masks))
    responded = box["added"].responded
    assert responded == run.sites
    if protection.masked:
        roster = box["roster"]
        yield COORDINATOR, lambda: relay_responded(coordinator, topic, roster, responded)
        yield from at_all(agree_site, 1)
        yield COORDINATOR, lambda: relay_views(coordinator, topic, responded)
        yield from at_all(answer_site, 1)
        yield COORDINATOR, lambda: unmask_sum(coordinator, topic, roster, responded, responded)
        yield from at_all(forget_secrets)
    if protection.keyed:
        yield from at_all(vouch_site, 1, responded)
        yield COORDINATOR, lambda: hand_sum(coordinator, topic, SITE)
        yield SITE, lambda: decrypt_site(run.call(SITE), 1, responded)
    opener = SITE if protection.keyed else None
    yield (
        COORDINATOR,
        lambda: apply_sum(coordinator, topic, responded, received_sum(coordinator, topic, opener)),
    )
    yield COORDINATOR, lambda: keep("asked", ask_evaluation(coordinator, 1, responded))
    info = worker_context(run.site(SITE)).info
    if run.experiment.evaluation.share == "sums":
        named = replace(box["asked"], sum=EVALUATION.name)
        yield from summing_steps(run, named, digits_in(coordinator, named, info))
        yield COORDINATOR, lambda: evaluate(coordinator, named, run.sites, info, opener)
    else:
        yield from at_all(evaluate_site, 1)
        yield COORDINATOR, lambda: evaluate(coordinator, box["asked"], run.sites, info)
    yield COORDINATOR, lambda: record(run, 1, responded)
    yield COORDINATOR, lambda: keep("end", end_run(coordinator))
    yield from at_all(hand_over, 1)
    state = read_state(run.folder.state_path(1))
    yield COORDINATOR, lambda: receive_models(coordinator, box["end"], state)
    yield from at_all(tell_privacy)
    yield COORDINATOR, lambda: keep("privacy", receive_reports(coordinator))
    told = [*TOLD] if protection.masked else ["protect", "evaluate"]
    told += ["vouch", "decrypt"] if protection.keyed else []
    for stage in told:
        if stage not in ("style", "count", *(() if protection.keyed else ("vouch", "decrypt"))):
            sites = [SITE] if stage == "decrypt" else run.sites
            yield COORDINATOR, lambda s=stage, at=sites: reported(reports(coordinator, 1, s, at))
    assert None not in box["privacy"].values()


def reported(told: list[Outcome]) -> None:
    """Every site has told of what it did, and it counts."""
    assert told
    assert [each for each in told if isinstance(each, Unreported)] == []


def summing_steps(
    run: Staged, topic: Topic, length: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A named sum up to where it is open, stage by stage."""
    coordinator, sites, rosters = run.coordinator, run.sites, list[Any]()

    def at_all(stage: Callable[..., Any], *given: Any) -> Iterator[tuple[str, Any]]:
        for site in sites:
            yield site, lambda site=site: stage(run.call(site), 1, *given)

    masks = None
    if run.experiment.protection.masked:
        yield from at_all(advertise_site, topic.sum)
        yield COORDINATOR, lambda: rosters.append(relay_keys(coordinator, topic, sites))
        yield from at_all(share_site, topic.sum)
        yield (
            COORDINATOR,
            lambda: rosters.append(relay_shares(coordinator, topic, rosters[0], sites)),
        )
        masks = masked_round(coordinator.run, list(rosters[-1].advertised), topic)
    yield from at_all(evaluate_site)
    yield COORDINATOR, lambda: add_payloads(coordinator, topic, sites, masks, length)
    if masks is not None:
        yield COORDINATOR, lambda: relay_responded(coordinator, topic, rosters[-1], sites)
        yield from at_all(agree_site, topic.sum)
        yield COORDINATOR, lambda: relay_views(coordinator, topic, sites)
        yield from at_all(answer_site, topic.sum)
        yield COORDINATOR, lambda: unmask_sum(coordinator, topic, rosters[-1], sites, sites)
    else:
        yield from at_all(vouch_site, sites, topic.sum)
        yield COORDINATOR, lambda: hand_sum(coordinator, topic, SITE)
        yield SITE, lambda: decrypt_site(run.call(SITE), 1, sites, topic.sum)


MASKED = {**THREE, **QUANTISED, "protection": {"name": "secagg_plus"}}
SUMS = {"evaluation": {"share": "sums"}}


EVERY_WAY = {
    "plain": THREE,
    "private": PRIVATE,
    "packed_bfv": BFV,
    "secagg_plus": MASKED,
    "sums of packed_bfv": BFV | SUMS,
    "masked sums": MASKED | SUMS,
}


def test_a_stage_opens_no_file_of_the_other_side(tmp_path: Path, data: Path) -> None:
    in_its_own_process(no_file_of_the_other_side_in_any_way, tmp_path, data)


def no_file_of_the_other_side_in_any_way(tmp_path: Path, data: Path) -> None:
    files = OpenedFiles()
    for name, sections in EVERY_WAY.items():
        place = tmp_path / name
        place.mkdir()
        os.environ["CONSILIUM_HOME"] = str(place / "home")
        no_file_of_the_other_side(place, data, sections, files)


def no_file_of_the_other_side(
    tmp_path: Path, data: Path, sections: dict[str, Any], files: OpenedFiles
) -> None:
    run = begin(small_experiment(data, **sections), tmp_path / "runs")
    root, exchange = run.folder.root, run.folder.exchange_path
    opened: dict[str, int] = {}
    for party, stage in steps(run):
        own = root if party == COORDINATOR else run.home(party).root
        files.taken()
        stage()
        seen = files.taken()
        foreign = [
            path
            for path in seen
            if path.is_relative_to(root)
            and not path.is_relative_to(exchange)
            and (path.is_relative_to(root / "sites") or party != COORDINATOR)
            and not (party != COORDINATOR and path.is_relative_to(own))
        ]
        assert not foreign, (party, foreign)
        # What the one who holds the data keeps beyond a run, which is no way between sites: the
        # ledger with its head, and for which sums each site has answered.
        ledgers = (ledger_root(), consilium_home() / "heads")
        answered = consilium_home() / "answered"
        shared = [
            path
            for path in seen
            if path.is_relative_to(consilium_home())
            and not any(path.is_relative_to(ledger) for ledger in ledgers)
            and not (path.parent == answered and party in path.name)
            and path != answered  # opened to have a rename in it last
        ]
        assert not shared, (party, shared)
        opened[party] = opened.get(party, 0) + len(seen)
    assert set(opened) == {COORDINATOR, *run.sites}
    assert min(opened.values()) > 10


def test_everything_in_a_home_is_its_owners_alone(plain: Staged) -> None:
    play_round(plain, 1)
    for path in [plain.home(SITE).root, *plain.home(SITE).root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_in_the_clear_the_coordinator_reads_a_sites_update(plain: Staged) -> None:
    from federated.run.update_files import read_update

    topic = train_round(plain, 1)
    message = plain.coordinator.mailbox.receive(topic, kinds.PAYLOAD, SITE, 10**9)
    payload = read_payload(Content(message.body, "x"))
    update = read_update(plain.store(SITE).work_path(1, "update"))
    seen = payload.body.view(np.float32) / payload.weight
    np.testing.assert_allclose(seen, update.vector, rtol=1e-5, atol=1e-9)
    # And the sum is no more than that of all.
    added = add_payloads(plain.coordinator, topic, plain.sites)
    assert added.responded == plain.sites


def test_the_coordinator_has_no_key_and_all_sites_have_the_same(encrypted: Staged) -> None:
    topic = train_round(encrypted, 1)
    added = add_payloads(encrypted.coordinator, topic, encrypted.sites)
    assert added.responded == encrypted.sites
    stores = [
        KeyStore.of(encrypted.home(site), encrypted.folder.run_id) for site in encrypted.sites
    ]
    (whole,) = {(store.folder / "secret.key").read_bytes() for store in stores}
    key = RunKey.from_bytes(
        PublicContext.from_json(read_json(encrypted.folder.context_path)).parameters, whole
    )
    secret = [key.tags, key.secret[64:128], *(store.sealing_key() for store in stores)]
    forms = [form for part in secret for form in (part, part.hex().encode(), b64encode(part)[:40])]
    found = set()
    for path in [*encrypted.folder.root.rglob("*"), *consilium_home().rglob("*")]:
        if path.is_file() and any(form in path.read_bytes() for form in forms):
            found.add(path)
    private = ("key/secret.key", "sealing.key")
    assert found == {store.place / name for store in stores for name in private}
    keys = [site_key(encrypted.site(site)) for site in encrypted.sites]
    assert {key.common for key in keys if key is not None} == {whole[:32]}
    context = read_json(encrypted.folder.context_path)
    assert set(context) == {"parameters", "key_id", "fingerprint"}


@pytest.mark.parametrize("sections", [THREE, PRIVATE, BFV], ids=["plain", "private", "packed_bfv"])
def test_what_all_are_told_is_the_plan_the_state_and_nothing_of_a_site(
    tmp_path: Path, data: Path, sections: dict[str, Any]
) -> None:
    run = begin(small_experiment(data, **sections), tmp_path / "runs")
    begin_round(run.coordinator, 1)
    told = {path.parent.parent.name for path in run.folder.exchange_path.rglob("all/*/*/*.message")}
    of_sites = {kinds.SEALING} if run.experiment.protection.keyed else set()
    assert told == {kinds.PROPOSAL, kinds.RUN_PLAN, kinds.ROUND_PLAN, kinds.STATE} | of_sites
    (path,) = run.folder.exchange_path.rglob(f"all/{kinds.RUN_PLAN}/*/*.message")
    plan = json.loads(body_of(path, run.coordinator.mailbox.me))
    assert set(plan) == {
        *("purpose", "experiment", "code", "participants", "counts", "releases", "quorum"),
        "deadline",
    }
    cases = {split: len(indices) for split, indices in run.store(SITE).data()[1][SITE].items()}
    assert plan["counts"][SITE] == cases
    assert set(plan["participants"]) == set(run.sites)


# What sites send: all of them, of a sum of masks, of one that is encrypted, and of a key.
ALWAYS = {
    *(kinds.JOINING, kinds.PAYLOAD, kinds.OWN_MODEL, kinds.PRIVACY_REPORT),
    *(f"{kinds.REPORT}protect", f"{kinds.REPORT}evaluate"),
}
OF_MASKS = {
    *(kinds.ADVERTISED, kinds.SHARES, kinds.CONSISTENCY, kinds.ANSWER),
    *(kinds.REPORT + stage for stage in ("advertise", "share", "agree", "answer")),
}
ENCRYPTED = {
    *(kinds.TAG, kinds.CONSISTENCY, kinds.OPENED),
    *(kinds.REPORT + stage for stage in ("vouch", "decrypt")),
}
OF_KEYS = {kinds.SEALING, kinds.SEALED_KEY, kinds.KEY, f"{kinds.HELD}0"}


@pytest.mark.parametrize("name", EVERY_WAY)
def test_sites_send_what_the_protocol_asks_for_and_no_image_or_label(
    tmp_path: Path, name: str
) -> None:
    # So many that no counts of a site are its labels, or the numbers of its cases, by chance.
    data = small_images(tmp_path, {"train": 48, "val": 48, "test": 48})
    run = begin(small_experiment(data, **EVERY_WAY[name]), tmp_path / "runs")
    for _, stage in steps(run):
        stage()
    sent: dict[str, set[str]] = {}
    passed = b""
    for path in run.folder.exchange_path.rglob("*.message"):
        if path.parent.name in run.sites:
            sent.setdefault(path.parent.parent.name, set()).add(path.parent.name)
            passed += path.read_bytes()
    protection = run.experiment.protection
    expected = ALWAYS | (OF_KEYS | ENCRYPTED if protection.keyed else set())
    expected |= OF_MASKS if protection.masked else set()
    if run.experiment.evaluation.share == "sums":
        of_sum = {kinds.PAYLOAD} | (ENCRYPTED if protection.keyed else OF_MASKS)
        expected |= {f"{EVALUATION.name}.{kind}" for kind in of_sum}
    else:
        expected |= {kinds.EVALUATION}
    assert set(sent) == expected
    context = worker_context(run.site(SITE))
    for split, images in context.dataset.images.items():
        for order in (images, np.moveaxis(images, 1, -1)):
            for form in (order, (order / np.float32(255)).astype(np.float32)):
                rows = form.reshape(len(form), -1)[:, :24]
                assert not any(row.tobytes() in passed for row in rows), split
    for split, own in run.store(SITE).data()[1][SITE].items():
        assert len(own) > 8
        labels = context.dataset.labels[split][list(own)].ravel()
        forms = [labels.astype(kind).tobytes() for kind in ("u1", "<i4", "<i8", "<f4")]
        # Nor which cases these are.
        cases = np.array(own)
        forms += [cases.astype("u1").tobytes(), cases.astype("<i8").tobytes()]
        forms += [json.dumps(cases.tolist())[1:-1].encode()]
        forms += [record.encode() for record in site_cases(run.site(SITE), split).records]
        # Of so few a byte each is found by chance.
        assert not any(form in passed for form in forms if len(form) > 6), split
