"""Statistics over sites: exact, hidden as updates are, private where asked, and lies are refused.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from federated.data.folders.volume import Volume
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.plan import RoundPlan
from federated.files import read_json
from federated.planning.fingerprint import (
    INTENSITIES,
    SIZES,
    Fingerprint,
    fingerprint_of,
    sum_of,
)
from federated.planning.suppression import without_small
from federated.privacy.accounting import NOISED_COUNTS
from federated.privacy.spending import STATISTICS_SUMS, Budget
from federated.rounds.statistics import CountNoise, scheme_of, statistics_release
from federated.run.result import StageResult
from federated.run.update_files import read_payload, write_state
from federated.settings.sections import StatisticsSettings
from federated.site.holder import holder_ledger
from federated.stages import secure_sum
from federated.stages import statistics as statistics_stage
from federated.stages.coordinator import ask_evaluation, ask_statistics, begin_round
from federated.stages.evaluate import evaluate_site
from federated.stages.join import join_site
from federated.stages.local_train import train_site
from federated.stages.named_sums import STATISTICS, refuse_sum, refuse_thin
from federated.stages.report import reports
from federated.stages.secure_sum import collect
from federated.stages.site import statistics_state
from federated.stages.statistics import (
    collect_distances,
    collect_statistics,
    compare_site,
    count_site,
    own_fingerprint,
    tell_counted,
)
from federated.stages.worker import run_and_report, site_cases, worker_context
from federated.weights.bounded_file import Content
from tests.federated.staged_run import begin, small_experiment
from tests.federated.stages.counting import (
    NOISE,
    THREE,
    begin_counting,
    counted,
    info_of,
    opened_counts,
)
from tests.federated.stages.lies import OTHER, SITE
from tests.federated.stages.summing import HIDING, PROTECTIONS, whether_told

TWO = {"protection": {"min_sites": 2}}
hiding = pytest.mark.parametrize("protection", HIDING)


def centrally(run) -> Fingerprint:
    """The fingerprint of all training cases in one place."""
    dataset = worker_context(run.site(SITE)).dataset
    scheme = scheme_of(run.experiment, info_of(run))
    pairs = zip(dataset.images["train"], dataset.labels["train"], strict=True)
    return sum_of(
        scheme, [fingerprint_of(scheme, [Volume(x, None)], np.atleast_1d(y)) for x, y in pairs]
    )


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_statistics_equal_those_that_are_computed_centrally(
    tmp_path: Path, data: Path, protection: str
) -> None:
    run = begin_counting(tmp_path / "runs", data, protection)
    found = counted(run)
    np.testing.assert_array_equal(found.vector, centrally(run).vector)
    assert found.cases == 24
    assert found.counts["with_class"].tolist() == [3] * 8


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_the_coordinator_reads_a_sites_counts_in_the_clear_alone(
    tmp_path: Path, data: Path, protection: str
) -> None:
    run = begin_counting(tmp_path / "runs", data, protection)
    topic, _ = opened_counts(run)
    message = run.coordinator.mailbox.receive(topic, kinds.PAYLOAD, SITE, 10**9)
    payload = read_payload(Content(message.body, "x"))
    site = run.site(SITE)
    scheme = scheme_of(run.experiment, info_of(run))
    own = own_fingerprint(site, scheme, range(len(site_cases(site, "train"))))
    # Counts of few cases are one digit each, of one byte.
    told = own.vector[:100].astype(np.int8).tobytes()
    assert (told in payload.body.tobytes()) == (protection == "plain")
    assert whether_told(run, own.vector) == (protection == "plain"), "nor in anything else"


@hiding
@pytest.mark.parametrize("again", ["another attempt", "another run", "other settings"])
def test_a_sum_with_one_site_left_out_is_not_opened(
    tmp_path: Path, data: Path, protection: str, again: str
) -> None:
    """Differencing: the two sums would tell the counts of the third site."""
    run = begin_counting(tmp_path / "runs", data, protection, **TWO)
    counted(run)
    if again == "another attempt":
        run.resume()
    else:
        changed = {"statistics": {"min_count": 3}, "rounds": 1} if again != "another run" else {}
        run = begin_counting(tmp_path / "others", data, protection, **TWO, **changed)
    with pytest.raises(ConsiliumError, match="already answered for a sum"):
        counted(run, run.sites[:2])


def test_a_coordinator_chooses_no_bins_and_no_other_counts() -> None:
    """Changed bins would cut a case out of the others; there is nothing to change them by."""
    fields = StatisticsSettings.model_fields.keys()
    assert fields == {"epsilon", "delta", "cases_per_patient", "min_count"}
    assert {field.name for field in dataclasses.fields(RoundPlan)} == {
        *("run_plan", "round", "selected", "state", "responded", "kept", "challenge")
    }


FORGED = {
    "one site": [SITE],
    "two sites": [SITE, OTHER],
    "one site three times": [SITE] * 3,
    "a name that nobody knows": [SITE, OTHER, "ghost"],
}


@hiding
@pytest.mark.parametrize("what", FORGED)
def test_a_sum_of_too_few_sites_is_not_opened(
    tmp_path: Path, data: Path, protection: str, what: str
) -> None:
    run = begin_counting(tmp_path / "runs", data, protection)
    topic = ask_statistics(run.coordinator)
    with pytest.raises(ConsiliumError, match=r"min_sites|more than once|ghost|itself"):
        refuse_sum(run.site(SITE).run, topic, SITE, FORGED[what])


@pytest.mark.parametrize("split", ["all of them", "one is empty"])
def test_sites_without_cases_hide_nobody(tmp_path: Path, data: Path, split: str) -> None:
    run = begin_counting(tmp_path / "runs", data, "secagg_plus")
    counts = {site: dict(told) for site, told in run.coordinator.run.counts.sites.items()}
    if split == "one is empty":
        counts[OTHER]["train"] = 0
        with pytest.raises(RefusalError, match="of the train split, fewer than"):
            refuse_thin(run.experiment, CaseCounts(counts), STATISTICS, run.sites)
    else:
        refuse_thin(run.experiment, CaseCounts(counts), STATISTICS, run.sites)


class TestCountsThatNoCasesHave:
    def lie(self, run, patch: pytest.MonkeyPatch, change) -> None:
        """Let one site, which follows its own program in all else, count what it likes."""
        honest = statistics_stage._exact

        def exact(site, *arguments):
            vector = honest(site, *arguments)
            return change(vector) if site.name == OTHER else vector

        patch.setattr(statistics_stage, "_exact", exact)

    def test_a_number_beyond_the_bounds_is_not_even_sent(
        self, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = begin_counting(tmp_path / "runs", data, "plain")
        self.lie(run, monkeypatch, lambda vector: vector + 10**6)
        with pytest.raises(ValueError, match="a number is not from 0 to"):
            counted(run)

    @pytest.mark.parametrize("protection", PROTECTIONS)
    def test_a_forged_payload_with_digits_out_of_range_is_no_sum(
        self, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, protection: str
    ) -> None:
        run = begin_counting(tmp_path / "runs", data, protection)
        honest = secure_sum.to_digits
        calls = []

        def forged(vector, bounds, base):
            digits = honest(vector, bounds, base)
            calls.append(None)
            # The second site; the first digit is that of the number of cases.
            return digits if len(calls) != 2 else np.r_[np.int32(127), digits[1:]].astype(np.int32)

        monkeypatch.setattr(secure_sum, "to_digits", forged)
        with pytest.raises(ConsiliumError, match="is refused"):
            counted(run)

    @pytest.mark.parametrize(("place", "change", "said"), [
        (0, -1, "sites in it have 24"), (9, 1, "counts of size are not of 24"),
    ])  # fmt: skip
    def test_counts_that_do_not_fit_each_other_are_refused(
        self,
        tmp_path: Path,
        data: Path,
        monkeypatch: pytest.MonkeyPatch,
        place: int,
        change: int,
        said: str,
    ) -> None:
        """The number of cases, or a case in a second bin of the first axis."""
        run = begin_counting(tmp_path / "runs", data, "secagg_plus")

        def changed(vector):
            vector = vector.copy()
            vector[place] += change
            return vector

        self.lie(run, monkeypatch, changed)
        with pytest.raises(ConsiliumError, match=said):
            counted(run)


class TestPolicies:
    def policy(self, run, text: str) -> None:
        home = run.home(SITE)
        lines = home.policy_path.read_text().splitlines()
        key = text.split(":")[0]
        kept = [line for line in lines if not line.startswith(f"{key}:")]
        home.write_policy("\n".join([*kept, *([text] if ":" in text else [])]) + "\n")

    @pytest.mark.parametrize("text", ["statistics", "statistics: noised", "statistics: nothing"])
    def test_a_site_whose_policy_does_not_name_statistics_counts_nothing(
        self, tmp_path: Path, data: Path, text: str
    ) -> None:
        run = begin_counting(tmp_path / "runs", data, "secagg_plus")
        self.policy(run, text)
        with pytest.raises(RefusalError, match=r"does not take part in statistics of small.*sums"):
            run.resume()

    def test_what_nothing_hides_needs_the_policys_word_for_it(
        self, tmp_path: Path, data: Path
    ) -> None:
        run = begin_counting(tmp_path / "runs", data, "plain")
        self.policy(run, "statistics: sums")
        with pytest.raises(RefusalError, match=r"it allows sums.*clear is asked for.*line \d+"):
            run.resume()

    @pytest.mark.parametrize(("text", "said"), [
        ("max_epsilon: 1", "without noise are above"), ("min_count: 5", "min_count is 0"),
        ("min_sites: 4", "at least 4"), ("datasets: [other]", "does not allow bloodmnist"),
        ("max_megabytes", "nothing to be sent"),
    ])  # fmt: skip
    def test_other_lines_hold_for_statistics_too(
        self, tmp_path: Path, data: Path, text: str, said: str
    ) -> None:
        run = begin_counting(tmp_path / "runs", data, "secagg_plus")
        self.policy(run, text)
        with pytest.raises(RefusalError, match=said):
            run.resume()

    def test_noise_is_compared_with_the_policys_epsilon(self, tmp_path: Path, data: Path) -> None:
        run = begin_counting(tmp_path / "runs", data, "plain", **NOISE)
        self.policy(run, "statistics: noised")
        self.policy(run, "max_epsilon: 2")
        run.resume()
        self.policy(run, "max_epsilon: 1.9")
        with pytest.raises(RefusalError, match=r"ε would be 2, and at most 1\.9"):
            run.resume()

    def test_distances_are_told_where_a_policy_allows_it_and_kept_everywhere(
        self, tmp_path: Path, data: Path
    ) -> None:
        run = begin_counting(tmp_path / "runs", data, "secagg_plus")
        self.policy(run, "heterogeneity")
        topic, responded = opened_counts(run)
        found = collect_statistics(run.coordinator, topic, info_of(run), responded)
        tell_counted(run.coordinator, topic, found)
        for site in run.sites:
            compare_site(run.call(site), 1)
        told = collect_distances(run.coordinator, topic, run.sites)
        assert told[SITE] is None
        assert told[OTHER] is not None
        assert told[OTHER].appearance > 0
        kept = read_json(run.store(SITE).statistics_path)
        assert kept["distances"]["appearance"] > 0
        assert run.store(SITE).statistics_path.stat().st_mode & 0o077 == 0
        entries = [e.mechanism for e in holder_ledger(run.experiment).spendings() if e.site == SITE]
        assert entries == [STATISTICS_SUMS]


def test_a_sum_that_a_site_is_not_in_is_not_compared_with(tmp_path: Path, data: Path) -> None:
    run = begin_counting(tmp_path / "runs", data, "secagg_plus")
    topic, responded = opened_counts(run)
    found = collect_statistics(run.coordinator, topic, info_of(run), responded)
    tell_counted(run.coordinator, topic, Fingerprint.read(found.scheme, found.vector // 25))
    with pytest.raises(RefusalError, match="less than its own"):
        compare_site(run.call(SITE), 1)


def asked_to_compare(run, scheme, vector) -> str | None:
    """What the coordinator hears of a site that compares its counts with these, in its attempt."""
    topic = ask_statistics(run.coordinator)
    tell_counted(run.coordinator, topic, Fingerprint.read(scheme, vector))
    try:
        compare_site(run.call(SITE), 1)
    except RefusalError as error:
        return str(error)
    told = collect_distances(run.coordinator, topic, [SITE])[SITE]
    return None if told is None else str(told.to_json())


@pytest.mark.parametrize("heterogeneity", ["allowed", "refused"])
def test_a_coordinator_that_lies_of_all_counts_does_not_come_to_those_of_a_site(
    tmp_path: Path, data: Path, heterogeneity: str
) -> None:
    """Each answer says whether a count is more than the coordinator has told, or how far it is."""
    run = begin_counting(tmp_path / "runs", data, "secagg_plus")
    policy = TestPolicies()
    policy.policy(run, f"heterogeneity: {heterogeneity}")
    scheme = scheme_of(run.experiment, info_of(run))
    own = own_fingerprint(run.site(SITE), scheme, range(len(site_cases(run.site(SITE), "train"))))
    # The bins of its classes come behind the number of its cases.
    heard = []
    for guess in (0, 1, 2, 5):
        vector = np.full(scheme.size, 100, np.int64)
        vector[1:9] = guess
        run.resume()
        heard.append(asked_to_compare(run, scheme, vector))
    assert own.vector[1:9].max() > 0
    assert [h is not None for h in heard] == [heterogeneity == "allowed", *[False] * 3]
    other = begin_counting(tmp_path / "others", data, "secagg_plus")
    policy.policy(other, f"heterogeneity: {heterogeneity}")
    assert asked_to_compare(other, scheme, np.full(scheme.size, 100, np.int64)) is None


def test_how_far_it_is_from_one_sum_a_site_tells_whenever_it_is_asked(
    tmp_path: Path, data: Path
) -> None:
    heard = []
    for name in ("one", "two"):
        run = begin_counting(tmp_path / name, data, "secagg_plus")
        found = centrally(run)
        heard.append(asked_to_compare(run, found.scheme, found.vector))
    assert heard[0] == heard[1] is not None


def test_how_far_a_site_is_says_nothing_of_counts_that_it_withholds(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin_counting(tmp_path / "runs", data, "plain", statistics={"min_count": 3})
    topic, responded = opened_counts(run)
    found = collect_statistics(run.coordinator, topic, info_of(run), responded)
    tell_counted(run.coordinator, topic, found)
    compared = []
    honest = statistics_stage.distances
    monkeypatch.setattr(
        statistics_stage, "distances", lambda own, all_: compared.append(own) or honest(own, all_)
    )
    compare_site(run.call(SITE), 1)
    message = run.coordinator.mailbox.receive(topic, kinds.PAYLOAD, SITE, 10**9)
    told, _ = compared
    exact = own_fingerprint(run.site(SITE), found.scheme, range(8))
    assert (exact.counts["with_class"] > told.counts["with_class"]).any()
    assert message is not None
    np.testing.assert_array_equal(told.vector, without_small(exact, 3).vector)


def test_a_run_for_statistics_trains_and_tells_nothing_else(tmp_path: Path, data: Path) -> None:
    """Its policy was not asked for that."""
    run = begin_counting(tmp_path / "runs", data, "plain")
    begin_round(run.coordinator, 1)
    with pytest.raises(RefusalError, match="cases are counted for statistics"):
        train_site(run.call(SITE), 1)
    write_state(run.folder.state_path(1), statistics_state())
    ask_evaluation(run.coordinator, 1, [])
    with pytest.raises(RefusalError, match="cases are counted for statistics"):
        evaluate_site(run.call(SITE), 1)
    with pytest.raises(RefusalError, match="for statistics, nothing is trained"):
        join_site(run.call(SITE), 1)


def test_a_run_for_a_model_counts_nothing(tmp_path: Path, data: Path) -> None:
    run = begin(small_experiment(data, **THREE), tmp_path / "runs")
    ask_statistics(run.coordinator)
    with pytest.raises(RefusalError, match="by its plan it is for a model"):
        count_site(run.call(SITE), 1)


class TestNoise:
    def test_it_is_entered_before_anything_is_sent(
        self, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = begin_counting(tmp_path / "runs", data, "secagg_plus", **NOISE)
        ledger = holder_ledger(run.experiment)
        seen = []
        monkeypatch.setattr(
            statistics_stage, "send_part", lambda *_: seen.append(len(ledger.spendings())) or (1, 1)
        )
        ask_statistics(run.coordinator)
        count_site(run.call(SITE), 1)
        assert seen == [1]
        (entry,) = ledger.spendings()
        assert entry.mechanism == NOISED_COUNTS
        assert entry.noise_multiplier == statistics_release(run.experiment).noise_multiplier
        records = site_cases(run.site(SITE), "train").records
        (epsilon,) = ledger.histories(records[:1], "record").epsilons(1e-4, "rdp")
        assert epsilon == pytest.approx(2, abs=0.01)

    def test_nothing_is_told_beside_it_that_follows_from_the_cases(
        self, tmp_path: Path, data: Path
    ) -> None:
        """Neither how many count, of those of the same patient, nor how long it took."""
        run = begin_counting(tmp_path / "runs", data, "secagg_plus", **NOISE)
        counted(run)
        told = reports(run.coordinator, 1, "count", run.sites, STATISTICS.name)
        for result in told:
            assert isinstance(result, StageResult)
            assert result.cases == 0
            assert (result.started, result.ended, result.peak_rss_mb) == (None, None, None)

        def stage(call) -> None:
            raise ConsiliumError("case 17 cannot be read")

        with pytest.raises(RefusalError) as said:
            run_and_report(stage, run.call(SITE))
        assert "case 17" not in str(said.value)

    def test_a_budget_stops_what_would_be_asked_again_and_again(
        self, tmp_path: Path, data: Path
    ) -> None:
        run = begin_counting(tmp_path / "runs", data, "plain", **NOISE)
        holder_ledger(run.experiment).set_budget(Budget("record", 2.5, 1e-4))
        counted(run)
        again = begin_counting(tmp_path / "again", data, "plain", **NOISE)
        with pytest.raises(ConsiliumError, match="budget"):
            counted(again)

    def test_a_budget_allows_no_exact_counts(self, tmp_path: Path, data: Path) -> None:
        run = begin_counting(tmp_path / "runs", data, "plain")
        holder_ledger(run.experiment).set_budget(Budget("record", 100, 1e-4))
        with pytest.raises(ConsiliumError, match="budget"):
            counted(run)

    def test_asked_again_in_a_run_a_site_sends_the_same(self, tmp_path: Path, data: Path) -> None:
        """Fresh noise on the same counts would be averaged away."""
        run = begin_counting(tmp_path / "runs", data, "plain", **NOISE)
        first = counted(run).vector
        run.resume()
        np.testing.assert_array_equal(counted(run).vector, first)
        assert len(holder_ledger(run.experiment).spendings()) == 3

    @pytest.mark.parametrize("protection", PROTECTIONS)
    def test_a_sum_has_the_noise_of_all_sites_and_no_other(
        self, tmp_path: Path, data: Path, protection: str
    ) -> None:
        run = begin_counting(tmp_path / "runs", data, protection, **NOISE)
        topic, responded = opened_counts(run)
        exact = centrally(run)
        total = collect(run.coordinator, topic, info_of(run), responded, responded[0])
        noise = CountNoise.of(exact.scheme, run.experiment)
        gap = noise.signed(total, 3) - exact.vector
        # Behind the number of cases, the classes and two rows of sizes.
        intensities = gap[1 + 8 + 2 * SIZES.size :].astype(float)
        assert len(intensities) == INTENSITIES.size
        expected = noise.deviations["intensity"] * np.sqrt(3)
        assert intensities.std() == pytest.approx(expected, rel=0.1)
        assert abs(intensities.mean()) < 5 * expected / np.sqrt(len(intensities))
