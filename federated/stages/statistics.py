"""statistics: each site counts its training cases, and only their sum over the sites is opened.

The coordinator tells all sites what was counted of all. Each works out for itself how far its own
cases are from that, keeps it in its home, and tells it where its policy allows that. What is
counted, and in which bins, is the program's: a coordinator can ask for nothing else.

Guarantee. Exact counts have the guarantee of ``secure_sum.py``, and no ε: the ledger says so. With
``statistics.epsilon`` what a site sends is (ε, δ) differentially private for a patient by itself
(``rounds/statistics.py``), and so is all that follows from it, its distances too. This takes the
site to follow its program, and its table to say whose the cases are: where it does not, a case is
what is protected.
"""

import json
import time
from collections.abc import Mapping, Sequence

import numpy as np

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo
from federated.data.family_of import family_of
from federated.data.labelling import LABELLINGS
from federated.data.load import listed
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.exchange.policy_checks import refuse_beyond_epsilon
from federated.files import PRIVATE, write_json
from federated.planning.bins import Counts
from federated.planning.feature_sums import feature_sums
from federated.planning.fingerprint import (
    Fingerprint,
    Scheme,
    fingerprint_of,
    refuse_impossible,
    with_features,
)
from federated.planning.heterogeneity import Distances, distances
from federated.planning.suppression import without_small
from federated.privacy.accounting import NOISED_COUNTS, Release
from federated.privacy.noise import fresh_random
from federated.privacy.spending import STATISTICS as IN_THE_CLEAR
from federated.privacy.spending import STATISTICS_SUMS
from federated.protection import PROTECTIONS, Protection
from federated.provenance import code_digest
from federated.rounds.statistics import (
    CountNoise,
    case_release,
    kept_cases,
    scheme_of,
    statistics_release,
    told_of,
)
from federated.run.result import stage_result
from federated.run.update_files import write_state
from federated.site.compared import compares_first
from federated.site.holder import holder_ledger
from federated.site.releases import ReleaseStore, Sources
from federated.stages.coordinator import Coordinator
from federated.stages.entering import enter, numbers_kept
from federated.stages.named_sums import STATISTICS, most_cases, open_sum
from federated.stages.report import tell
from federated.stages.secure_sum import collect, send_part
from federated.stages.site import Site, SiteCall, open_site, statistics_state
from federated.stages.site_features import write_features
from federated.stages.worker import held_cases, worker_context

NAME = STATISTICS.name
COUNTS = "counts"
WIRE = np.dtype("<i8")
# A distance is a number of some digits.
MOST_DISTANCES = 4096


def begin_statistics(coordinator: Coordinator) -> None:
    """Write what a sum for statistics starts from, of which no model is a part."""
    write_state(coordinator.folder.state_path(0), statistics_state())


def refuse_inexact(experiment: Experiment) -> None:
    """Refuse statistics that would not be exact sums, or would break a privacy that is asked for.

    Raises:
        ConsiliumError: the protection adds no whole numbers exactly; or a training with privacy
            would follow counts without.
    """
    if not experiment.protection.stated("sums_integers"):
        exact = " or ".join(p.model_fields["name"].default for p in exact_protections())
        raise ConsiliumError(
            f"Statistics are sums of whole numbers, which protection.name="
            f"{experiment.protection.name} is not made for. Set protection.name={exact}."
        )
    if experiment.privacy.unit is not None and experiment.statistics.epsilon is None:
        raise ConsiliumError(
            f"Experiment {experiment.name} has privacy.name={experiment.privacy.name}, and counts "
            "of the same cases without noise have no bound on privacy, so that the cases would "
            "have none any more. Set statistics.epsilon, or state what is to be planned as numbers."
        )


def exact_protections() -> list[type[Protection]]:
    """The protections that sum whole numbers exactly."""
    return [each for each in PROTECTIONS if each.stated("sums_integers")]


def modalities_of(experiment: Experiment) -> tuple[str, ...]:
    """The names of the images of a case."""
    described = experiment.data.described
    if described is not None:
        return described.modalities
    family = family_of(experiment.data.dataset, None)
    return family.modalities if family else ("image",)


def count_site(call: SiteCall, round_number: int) -> None:
    """Count the site's training cases, and send its part of the sum.

    It is entered in the ledger first. The site's own counts, as it has told them, stay in its home.

    Raises:
        ConsiliumError: nothing asks for it that counts, a budget does not allow it, or a case
            cannot be read.
    """
    started = time.time()
    site = open_site(call)
    opened = open_sum(site, round_number, NAME)
    context = worker_context(site)
    scheme = scheme_of(context.experiment, context.info)
    places, records = _counted_cases(site)
    if told_of(context.experiment) == "noised":
        vector = _noised(site, scheme, places, records)
    else:
        vector = _exact(site, scheme, places, records)
    sent, received = send_part(site, opened, vector)
    # Not of how many cases: with noise nobody is to know how many of them count.
    result = stage_result(site.name, "count", started, sent=sent, received=received)
    tell(site, round_number, result, NAME)


def _counted_cases(site: Site) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The places of the training cases that count, and the digests of their records."""
    cases, settings = held_cases(site), site.run.experiment.statistics
    records = cases.records([site.name], "train")
    places = tuple(range(len(records)))
    if settings.epsilon is not None:
        patients = cases.patients(site.name, "train")
        places = kept_cases(patients, len(records), settings.cases_per_patient)
    return places, tuple(records[place] for place in places)


def own_fingerprint(site: Site, scheme: Scheme, places: Sequence[int]) -> Fingerprint:
    """What is counted of a site's own training cases at ``places``, exactly.

    Raises:
        ConsiliumError: a case cannot be read, or does not fit the data set; or the site has too few
            cases for its features to be summed.
    """
    context, counted = worker_context(site), frozenset(places)
    files = listed(context.located, context.experiment.data)
    raw = held_cases(site).raw(site.name, "train", files)
    # One case is in memory at a time.
    total = Fingerprint.empty(scheme).vector
    features = []
    for place, case in enumerate(raw):
        if place in counted:
            labels = case.labels
            if labels is not None and context.info.task in LABELLINGS:
                labels = LABELLINGS[context.info.task].groups_of(labels, context.info)
            found = fingerprint_of(scheme, case.images, labels, case.attributes)
            total = total + found.vector
            features.append(case.features)
    own = Fingerprint.read(scheme, total)
    if scheme.features is None:
        return own
    rows = np.array(features, np.float64).reshape(len(features), -1)
    return with_features(own, feature_sums(scheme.features, rows, site.name))


def _exact(site: Site, scheme: Scheme, places: Sequence[int], records: Sequence[str]) -> Counts:
    told = told_of(site.run.experiment)
    enter(site, 1, records, mechanism=IN_THE_CLEAR if told == "clear" else STATISTICS_SUMS)
    found = own_fingerprint(site, scheme, places)
    if told == "clear":
        found = without_small(found, site.run.experiment.statistics.min_count)
    return found.vector


def _noised(site: Site, scheme: Scheme, places: Sequence[int], records: Sequence[str]) -> Counts:
    """The site's counts with noise, made once in a run: asked again, it sends the same."""
    run = site.run
    settings, release = run.experiment.statistics, case_release(run.experiment)
    patient = statistics_release(run.experiment)
    assert release is not None
    assert patient is not None
    noise = CountNoise.of(scheme, run.experiment)

    def make() -> Mapping[str, bytes]:
        before = [
            Release(entry.noise_multiplier / settings.cases_per_patient, 1.0, entry.steps)
            for entry in holder_ledger(run.experiment).spendings(run.run_id)
            if entry.site == site.name and entry.mechanism == NOISED_COUNTS
        ]
        policy = site.home.policy()
        with numbers_kept(site):
            refuse_beyond_epsilon(policy, site.name, [*before, patient], settings.delta)
        enter(site, 1, records, mechanism=NOISED_COUNTS, release=release, clip=1.0)
        exact = own_fingerprint(site, scheme, places).vector
        vector = noise.added(exact, most_cases(run.counts), fresh_random())
        return {COUNTS: vector.astype(WIRE).tobytes()}

    sources = Sources(
        "counts",
        run.run_id,
        site.name,
        1,
        run.experiment.to_json(),
        run.sites,
        tuple(records),
        {"noise_multiplier": release.noise_multiplier, "mechanism": NOISED_COUNTS},
        {},
        code_digest(),
    )
    store = ReleaseStore(site.store.releases, site.home.root)
    content = store.once(sources, make)[COUNTS]
    return np.frombuffer(content, WIRE).astype(np.int64)


def collect_statistics(
    coordinator: Coordinator,
    topic: Topic,
    info: DatasetInfo,
    summed: list[str],
    opener: str | None = None,
) -> Fingerprint:
    """What was counted of the cases of all sites in the opened sum.

    Args:
        coordinator: the coordinator.
        topic: of the sum.
        info: of the data set.
        summed: the sites in the sum.
        opener: the site that has opened it, where there is a key.

    Raises:
        ConsiliumError: it has not arrived, or counts what no cases of these sites can be.
    """
    run = coordinator.run
    scheme = scheme_of(run.experiment, info)
    total = collect(coordinator, topic, info, summed, opener)
    told, settings = told_of(run.experiment), run.experiment.statistics
    if told == "noised":
        noise = CountNoise.of(scheme, run.experiment)
        return Fingerprint.read(scheme, noise.removed(total, len(summed)))
    found = Fingerprint.read(scheme, total)
    if told == "sums" or not settings.min_count:
        refuse_impossible(found, sum(run.counts.cases(site, "train") for site in summed))
    return found


def rank_error_of(
    coordinator: Coordinator, info: DatasetInfo, summed: Sequence[str], found: Fingerprint
) -> float:
    """By which part of the cases noise moves the rank of a median; 0 without noise.

    Args:
        coordinator: the coordinator.
        info: of the data set.
        summed: the sites in the sum.
        found: what was counted.
    """
    run = coordinator.run
    noise = CountNoise.of(scheme_of(run.experiment, info), run.experiment)
    cases = sum(run.counts.cases(site, "train") for site in summed)
    return noise.rank_error(len(summed), min(cases, max(1, found.cases)))


def tell_counted(coordinator: Coordinator, topic: Topic, found: Fingerprint) -> None:
    """Tell all sites what was counted of all."""
    body = found.vector.astype(WIRE).tobytes()
    coordinator.mailbox.send(topic, kinds.COUNTED, body)


def compare_site(call: SiteCall, round_number: int) -> None:
    """Work out how far the site's cases are from those of all, keep it, and tell it if allowed.

    The coordinator says what was counted of all, and may lie: how far a site is from whatever it
    likes tells of the site's own counts. So of counts that a sum hides a site tells it of one such
    vector alone, for ever; where it withholds small counts it is worked out from the others.

    Raises:
        ConsiliumError: what was counted of all has not arrived; or it cannot be a sum that the site
            is in, which is said where the site would tell how far it is.
    """
    started = time.time()
    site = open_site(call)
    opened = open_sum(site, round_number, NAME)
    context = worker_context(site)
    scheme, settings = scheme_of(context.experiment, context.info), context.experiment.statistics
    message = site.from_coordinator(opened.topic, kinds.COUNTED, scheme.size * WIRE.itemsize)
    if len(message.body) != scheme.size * WIRE.itemsize:
        raise RefusalError(f"{site.name} is told of counts that are none of these cases.")
    pooled = Fingerprint.read(scheme, np.frombuffer(message.body, WIRE).astype(np.int64))
    places, records = _counted_cases(site)
    exact = own_fingerprint(site, scheme, places)
    told, own = told_of(context.experiment), exact
    # Of its own counts as it has told them, so that the distances say nothing more.
    if told == "noised":
        noise = CountNoise.of(scheme, context.experiment)
        own = Fingerprint.read(scheme, noise.removed(_noised(site, scheme, places, records), 1))
    elif told == "clear":
        own = without_small(exact, settings.min_count)
    tells = _may_tell(site, own, settings.min_count)
    if told == "sums" and tells:
        tells = compares_first(site.home, records, message.body)
    if told != "noised" and (pooled.vector < own.vector).any():
        _refuse_less(site, aloud=tells or told == "clear")
        return
    found = distances(own, pooled)
    kept = {"cases": exact.cases, "distances": distances(exact, pooled).to_json()}
    write_json(site.store.statistics_path, kept, PRIVATE)
    sent = 0
    if tells:
        if told != "noised":
            enter(site, round_number, records, mechanism=IN_THE_CLEAR)
        body = json.dumps(found.to_json()).encode()
        sent = site.to_coordinator(opened.topic, kinds.DISTANCES, body)
    site.home.audit.add(
        "compared", run=site.run.run_id, told=bool(sent), seconds=time.time() - started
    )
    if scheme.features is not None and write_features(
        site, scheme.features, pooled.counts["features"]
    ):
        site.home.audit.add("harmonised", run=site.run.run_id, cases=exact.cases)


def _refuse_less(site: Site, *, aloud: bool) -> None:
    """Refuse what is told to be the counts of all sites and has fewer than the site alone.

    Others hear of it where it says no more than the distances that they would hear, ``aloud``: it
    is a comparison with counts of the coordinator's choice too.

    Raises:
        RefusalError: it is said.
    """
    said = (
        f"{site.name} is told of counts over all sites that are less than its own, so that "
        "they are not of a sum that it is in. It compares nothing with them. Ask whoever runs "
        "the coordinator."
    )
    site.home.audit.add("refused", reason="counts of others", run=site.run.run_id, said=said)
    if aloud:
        raise RefusalError(said)


def _may_tell(site: Site, own: Fingerprint, least: int) -> bool:
    """Whether a site tells its distances: by its policy, and not those of few cases."""
    return site.home.policy().settings.heterogeneity == "allowed" and own.cases >= max(1, least)


def collect_distances(
    coordinator: Coordinator, topic: Topic, sites: Sequence[str]
) -> dict[str, Distances | None]:
    """How far each site is from all, by its own word; ``None`` of those that do not tell it."""
    found: dict[str, Distances | None] = {}
    for site in sites:
        try:
            message = coordinator.mailbox.receive(topic, kinds.DISTANCES, site, MOST_DISTANCES)
            found[site] = Distances.from_json(json.loads(message.body), site)
        except (ConsiliumError, ValueError, RecursionError) as error:
            coordinator.note_left_out(topic, site, str(error))
            found[site] = None
    return found
