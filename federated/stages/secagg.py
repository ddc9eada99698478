"""The stages of SecAgg+ around a round's updates: exchange keys before, unmask the sum after.

What travels are small JSON files in the round's folder. On the way up these are what a site
advertises, shares and answers; on the way down, the roster for all sites, and for each site an
inbox of sealed shares. A site's secrets of a round lie with its keys, outside the runs. They are
erased once it has answered, and also if the round is over or broken off without that. What it has
answered for is kept.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from federated.errors import ConsiliumError
from federated.files import read_json, write_json
from federated.protection import MaskedSums, Protection
from federated.protection.keys import keys_root, site_secrets_folder
from federated.protection.secagg import protocol
from federated.protection.secagg.keys import KeyPair
from federated.protection.secagg.round import Advertised, Round, Secrets, Share
from federated.protection.secagg_plus import Masking
from federated.rounds.context import RunContext
from federated.run.folder import RunFolder
from federated.run.result import StageResult, stage_result
from federated.run.secagg_messages import (
    Roster,
    from_hex,
    read_message,
    read_roster,
    to_hex,
    write_message,
    write_roster,
)
from federated.run.update_files import read_payload, write_payload
from federated.secrets.home import private_folder, refuse_open, refuse_shared
from federated.stages.context import read_run
from federated.stages.worker import worker_context


def advertise_site(run: Path, site: str, round_number: int) -> StageResult:
    """Stage 1 at a site: make the keys of a round and send the public halves."""
    started = time.time()
    folder = RunFolder(run)
    place = _secrets(folder, site)
    _erase(place)
    secrets, public = protocol.advertise(site)
    own = {
        "sealing": asdict(secrets.sealing),
        "masking_seed": secrets.masking_seed,
        "own_seed": secrets.own_seed,
    }
    write_json(_secret_path(place, round_number), to_hex(own), 0o600)
    sent = write_message(folder, round_number, site, "advertised", asdict(public))
    return stage_result(site, "advertise", started, sent=sent)


def relay_keys(
    folder: RunFolder, run: RunContext, round_number: int, advertised: Sequence[str]
) -> None:
    """Tell all sites the public keys; the coordinator does so after stage 1.

    Raises:
        ConsiliumError: too few sites are left.
    """
    keys = {
        site: Advertised(**from_hex(read_message(folder, round_number, site, "advertised")))
        for site in advertised
    }
    _refuse_too_few(run, round_number, advertised)
    write_roster(folder, round_number, Roster(keys))


def share_site(run: Path, site: str, round_number: int) -> StageResult:
    """Stage 2 at a site: split its secrets among its neighbours and itself.

    Raises:
        ConsiliumError: the site has no secrets for the round, or the roster names other sites.
    """
    started = time.time()
    folder = RunFolder(run)
    roster, size = read_roster(folder, round_number)
    secrets = _read_secrets(folder, site, round_number)
    session = masked_round(read_run(folder), roster, round_number)
    sealed = protocol.share(secrets, roster.advertised, session)
    sent = write_message(folder, round_number, site, "shares", sealed)
    return stage_result(site, "share", started, sent=sent, received=size)


def relay_shares(
    folder: RunFolder, run: RunContext, round_number: int, sharing: Sequence[str]
) -> None:
    """Pass on the sealed shares, unread; the coordinator does so after stage 2.

    Raises:
        ConsiliumError: too few sites are left.
    """
    _refuse_too_few(run, round_number, sharing)
    roster, _ = read_roster(folder, round_number)
    inboxes: dict[str, dict[str, str]] = {site: {} for site in sharing}
    for sender in sharing:
        for holder, sealed in read_message(folder, round_number, sender, "shares").items():
            if holder in inboxes:
                inboxes[holder][sender] = sealed
    for site, inbox in inboxes.items():
        write_json(folder.message_path(round_number, site, "inbox"), inbox)
    write_roster(folder, round_number, replace(roster, sharing=tuple(sharing)))


def masking(folder: RunFolder, site: str, round_number: int) -> tuple[Masking, int]:
    """Stage 3 at a site: what it masks its update with, and the bytes that it had to download.

    Raises:
        ConsiliumError: the site has no secrets for the round, or the roster names other sites.
    """
    roster, size = read_roster(folder, round_number)
    inbox = folder.message_path(round_number, site, "inbox")
    secrets = _read_secrets(folder, site, round_number)
    session = masked_round(read_run(folder), roster, round_number)
    masks = Masking(secrets, roster.advertised, roster.sharing, session)
    return masks, size + inbox.stat().st_size


def relay_responded(
    folder: RunFolder, run: RunContext, round_number: int, responded: Sequence[str]
) -> None:
    """Tell all sites whose update is in the sum; the coordinator does so after stage 3.

    Raises:
        ConsiliumError: so few have responded, or in such groups, that no site would help.
    """
    roster, _ = read_roster(folder, round_number)
    if responded:
        _refuse_sum(run, round_number, responded[0], responded)
        protocol.refuse_parts(responded, masked_round(run, roster, round_number))
    write_roster(folder, round_number, replace(roster, responded=tuple(responded)))


def answer_site(run: Path, site: str, round_number: int) -> StageResult:
    """Stage 4 at a site: give the shares that unmask the sum, once.

    The sum that they are for is written down before, so that no crash lets the site help to a
    second one; then the round's secrets are erased.

    Raises:
        ConsiliumError: the sum is one that the site must not help to open.
    """
    started = time.time()
    folder = RunFolder(run)
    roster, size = read_roster(folder, round_number)
    known = read_run(folder)
    counted = _refuse_sum(known, round_number, site, roster.responded)
    known.refuse_too_little_noise(len(counted))
    place = _secrets(folder, site)
    secrets = _read_secrets(folder, site, round_number)
    sealed = from_hex(read_message(folder, round_number, site, "inbox"))
    record = place / "answered.json"
    answered = read_json(record) if record.is_file() else {}
    shares = protocol.answer(
        secrets,
        sealed,
        roster.advertised,
        roster.responded,
        roster.missing,
        answered.get(str(round_number)),
        masked_round(known, roster, round_number),
    )
    write_json(record, answered | {str(round_number): sorted(roster.responded)}, 0o600)
    sent = write_message(
        folder, round_number, site, "answer", {p: asdict(s) for p, s in shares.items()}
    )
    _secret_path(place, round_number).unlink()
    return stage_result(site, "unmask", started, sent=sent, received=size)


def forget_secrets(run: Path, sites: Sequence[str]) -> None:
    """Erase at each site what is secret of a round, once it is over or broken off.

    A site that dropped out or never answered still has its seeds, with which its masked update
    could be read, and the coordinator may have kept that.
    """
    folder = RunFolder(run)
    for site in sites:
        _erase(_secrets(folder, site))


def unmask_sum(
    folder: RunFolder, run: RunContext, round_number: int, answering: Sequence[str]
) -> None:
    """Stage 4 at the coordinator: take the masks off the round's sum.

    Raises:
        ConsiliumError: too few sites have answered; the message names whose shares are missing.
    """
    roster, _ = read_roster(folder, round_number)
    session = masked_round(run, roster, round_number)
    masked = read_payload(folder.sum_path(round_number))
    answers = {
        site: {
            peer: Share(share["kind"], bytes.fromhex(share["value"]))
            for peer, share in read_message(folder, round_number, site, "answer").items()
        }
        for site in answering
    }
    protection = run.experiment.protection
    assert isinstance(protection, MaskedSums)
    words = protection.masked_words(masked, session)
    sums = protocol.unmask(
        words, answers, roster.advertised, roster.responded, roster.missing, session
    )
    write_payload(folder.sum_path(round_number), protection.unmasked(masked, sums, session))


def masked_round(run: RunContext, roster: Roster, round_number: int) -> Round:
    """What all parties know of a round of a run, once the keys are advertised.

    Raises:
        ConsiliumError: keys are told of sites that were not selected, whose holders could be
            anybody.
    """
    experiment = run.experiment
    protection, bits = experiment.protection, experiment.compression.bits
    assert isinstance(protection, MaskedSums)
    assert bits is not None
    selected = run.selected(round_number)
    names = sorted(roster.advertised)
    unknown = [name for name in names if name not in selected]
    if unknown:
        raise ConsiliumError(
            f"Round {round_number} is told the keys of {', '.join(unknown)}, not selected in it; "
            "who has those could hold shares of everyone's. No site goes on. Resume the run; the "
            "round begins anew."
        )
    return protection.begin(run.run_id, round_number, names, len(selected), experiment.seed, bits)


def _refuse_too_few(run: RunContext, round_number: int, left: Sequence[str]) -> None:
    selected = run.selected(round_number)
    protection = run.experiment.protection
    assert isinstance(protection, MaskedSums)
    needed = protection.needed(len(selected))
    if len(left) < needed:
        absent = ", ".join(site for site in selected if site not in left)
        raise ConsiliumError(
            f"Round {round_number} cannot be aggregated under {protection.name}: {len(left)} of "
            f"{len(selected)} sites are left, fewer than the threshold of {needed}; missing: "
            f"{absent}. Nothing of any update was revealed. Resume when they are back."
        )


def _refuse_sum(
    run: RunContext, round_number: int, site: str, responded: Sequence[str]
) -> frozenset[str]:
    """Refuse to open a sum that is not one of enough of the sites selected; return who is in it."""
    protection: Protection = run.experiment.protection
    return protection.refuse_too_few(site, round_number, run.selected(round_number), responded)


def _erase(place: Path) -> None:
    for secret in place.glob("round-*.json"):
        secret.unlink()


def _secrets(folder: RunFolder, site: str) -> Path:
    place = site_secrets_folder(worker_context(folder.root).experiment.name, folder.run_id, site)
    refuse_shared(folder.root.parent.parent, place)
    return private_folder(place, keys_root())


def _secret_path(place: Path, round_number: int) -> Path:
    return place / f"round-{round_number:03d}.json"


def _read_secrets(folder: RunFolder, site: str, round_number: int) -> Secrets:
    path = _secret_path(_secrets(folder, site), round_number)
    try:
        refuse_open(path)
        value = from_hex(read_json(path))
    except OSError as error:
        raise ConsiliumError(
            f"{site} has no secrets for round {round_number} of run {folder.run_id}: it has "
            "answered already, or never advertised keys. Resume the run; the round begins anew."
        ) from error
    return Secrets(site, **(value | {"sealing": KeyPair(**value["sealing"])}))
