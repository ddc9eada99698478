"""Ledgers of older versions, one for each site and partition, are taken over; nothing is lost."""

import json
from hashlib import sha256
from math import inf, sqrt
from pathlib import Path

import pytest

import federated.stages.ledger_migration
from federated.configuration.cases import experiment_cases
from federated.configuration.load import load_experiment
from federated.data.load import load, locate
from federated.data.partition import leave_out
from federated.data.partitioning import partition_dataset
from federated.errors import ConsiliumError
from federated.files import write_json
from federated.privacy import old_ledger
from federated.privacy.accounting import Release, epsilon
from federated.privacy.composition import spent
from federated.privacy.ledger import ledger_root
from federated.run.prepared import write_prepared_partition
from federated.site.holder import holder_ledger
from federated.stages.ledger_migration import take_over

PARAMS = Path("params.yaml")
OLD = {
    **{"kind": "spending", "mechanism": "gaussian", "unit": "record", "noise_multiplier": 2.0},
    **{"sampling_rate": 0.1, "steps": 50, "clip": 1.0, "round_number": 1, "run": "r1"},
    **{"experiment": "tiny", "site": "site-00", "time": "2026-01-01T00:00:00+00:00"},
}
SITE = OLD | {"unit": "site", "sampling_rate": 1.0, "steps": 1}
BUDGET = {
    **{"kind": "budget", "unit": "record", "epsilon": 9.0, "delta": 1e-5},
    "time": "2026-01-01T00:00:00+00:00",
}


def write_old(name, entries, root=None):
    """A ledger as the version of commit 58d71ae wrote it, byte by byte."""
    root = root or Path(".consilium/ledger")
    path = root / "bloodmnist" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    previous, lines = "0" * 64, []
    for content in entries:
        entry = {**content, "previous": previous}
        previous = sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
        lines.append(json.dumps({**entry, "hash": previous}) + "\n")
    path.write_text("".join(lines))
    path.with_suffix(".head.json").write_text(
        json.dumps({"count": len(entries), "hash": previous}, indent=2) + "\n"
    )
    path.with_suffix(".lock").touch()
    return path


@pytest.fixture
def data(project):
    experiment = load_experiment("tiny")
    located = locate(experiment.data)
    return experiment, located, load(located, experiment.data)


def partitioned(data, seed=0):
    experiment, _, dataset = data
    return partition_dataset(dataset, experiment.sites, seed)


def name_of(data, partition, site="site-00"):
    return old_ledger.old_name(data[1].md5, site, partition.sites[site]["train"])


def records_of(data, partition, site="site-00"):
    return experiment_cases(data[0], data[2], partition).records([site], "train")


def migrate(data):
    return take_over(*data, Path("runs"), PARAMS)


def worst(data, records, unit="record"):
    return holder_ledger(data[0]).histories(records, unit).worst(1e-5, "rdp")


def used(steps):
    return epsilon([Release(2.0, 0.1, steps)], 1e-5, "rdp")


def test_entries_are_matched_with_their_records_by_the_name_of_their_file(data):
    """For the experiment's own seed, another one, and a run that has left a case out."""
    own, other = partitioned(data), partitioned(data, seed=3)
    case = own.sites["site-01"]["train"][0]
    less = leave_out(own, {"site-01": {"train": [case]}})
    write_prepared_partition(Path("runs/tiny/r1/partition.json"), data[0], data[1], data[2], less)
    paths = [
        write_old(name_of(data, own), [OLD, OLD]),
        write_old(name_of(data, other, "site-02"), [OLD]),
        write_old(name_of(data, less, "site-01"), [OLD]),
    ]
    said = migrate(data)
    assert said.startswith("4 entries of 3 ledgers of an older version were taken over into")
    assert "3 of them were matched with their records" in said
    assert "every record" not in said
    ledger = holder_ledger(data[0])
    assert len(ledger.spendings()) == 4
    found = {ledger.sets.read(entry.records) for entry in ledger.spendings()}
    expected = [(own, "site-00"), (other, "site-02"), (less, "site-01")]
    assert found == {frozenset(records_of(data, p, site)) for p, site in expected}
    # Of a record that was in two of them both count.
    first, second = records_of(data, own), records_of(data, other, "site-02")
    assert worst(data, set(first) & set(second)) == used(150)
    assert worst(data, set(first) - set(second)) == used(100)
    # The files stay, under another name; a second time there is nothing to do.
    assert not any(path.exists() for path in paths)
    assert all(path.with_name(path.name + ".migrated").is_file() for path in paths)
    assert migrate(data) is None
    assert ledger.head().count == 3


def test_entries_that_cannot_be_matched_count_for_every_record(data):
    write_old("site-00-0123456789ab", [OLD, BUDGET | {"epsilon": 3.0}])
    write_old("site-07-ba9876543210", [BUDGET | {"epsilon": 0.5}])
    said = migrate(data)
    assert "those of the other 2 count for every record of bloodmnist" in said
    ledger = holder_ledger(data[0])
    assert [entry.records for entry in ledger.spendings()] == [None]
    assert worst(data, records_of(data, partitioned(data))) == used(50)
    # Of budgets that may be for any record the strictest holds.
    (budget,) = ledger.budgets(records_of(data, partitioned(data)))
    assert (budget.epsilon, budget.records) == (0.5, None)
    with pytest.raises(ConsiliumError, match="privacy budget"):
        ledger.spend(ledger.spendings()[0], ["any"])


def test_a_budget_stays_with_the_records_it_was_for(data):
    partition = partitioned(data)
    old = [BUDGET | {"epsilon": 1.0}, BUDGET]
    write_old(name_of(data, partition, "site-01"), old)
    migrate(data)
    (budget,) = holder_ledger(data[0]).budgets(records_of(data, partition, "site-01"))
    assert (budget.epsilon, budget.site) == (9.0, "site-01")
    assert holder_ledger(data[0]).budgets(records_of(data, partition, "site-00")) == []


def test_until_then_nothing_is_entered_and_no_budget_forgotten(data):
    path = write_old("site-00-0123456789ab", [OLD])
    with pytest.raises(ConsiliumError, match=r"consilium ledger migrate tiny"):
        holder_ledger(data[0])
    migrate(data)
    assert holder_ledger(data[0]).spendings()
    assert path.with_name(path.name + ".migrated").is_file()
    # In the home too, where versions between had them.
    write_old("site-00-0123456789ab", [OLD], ledger_root())
    with pytest.raises(ConsiliumError, match=r"consilium ledger migrate tiny"):
        holder_ledger(data[0])
    migrate(data)
    assert len(holder_ledger(data[0]).spendings()) == 2
    assert not path.exists()


def test_one_that_was_changed_is_not_taken_over(data):
    path = write_old("site-00-0123456789ab", [OLD, OLD])
    path.write_text(path.read_text().replace('"steps": 50', '"steps": 5', 1))
    with pytest.raises(ConsiliumError, match="entry 1 was changed"):
        migrate(data)
    write_old("site-00-0123456789ab", [OLD, OLD])
    path.write_text("".join(path.read_text().splitlines(True)[:1]))
    with pytest.raises(ConsiliumError, match="not those that its head was written for"):
        migrate(data)
    assert path.exists()
    assert not list(ledger_root().glob("*.jsonl"))


def test_killed_before_the_old_file_is_put_aside_it_counts_once(data, monkeypatch):
    write_old("site-00-0123456789ab", [OLD])
    with monkeypatch.context() as dying:
        dying.setattr(federated.stages.ledger_migration, "put_aside", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            migrate(data)
    migrate(data)
    assert len(holder_ledger(data[0]).spendings()) == 1


class TestSiteLevelWithAdaptiveClipping:
    """Its entries are read anew with the noise they had: the old rule took the bit of a site to
    have sensitivity ½, and made 1/z_Δ² = 1/z² − 1/(2σ_b)²."""

    def taken_over(self, data, entries):
        write_old("site-00-0123456789ab", entries)
        migrate(data)
        return [entry.noise_multiplier for entry in holder_ledger(data[0]).spendings()]

    def true_noise(self, z, count_noise):
        update = 1 / sqrt(z**-2 - (2 * count_noise) ** -2)
        return 1 / sqrt(update**-2 + count_noise**-2)

    @pytest.mark.parametrize(
        ("adaptive", "count_noise"),
        [({}, 4.0), ({"count_noise": 1.1}, 1.1), ({"count_noise": 50.0}, 50.0)],
    )
    def test_with_the_runs_own_settings_exactly(self, data, adaptive, count_noise):
        write_json(Path("runs/tiny/r1/config.json"), {"privacy": {"adaptive": adaptive}})
        (noise,) = self.taken_over(data, [SITE])
        assert noise == pytest.approx(self.true_noise(2.0, count_noise))

    def test_without_them_as_the_least_that_was_accepted(self, data):
        """σ_b just above z/2, which left a noise multiplier of half."""
        moved = [SITE | {"clip": clip} for clip in (1.0, 1.2)]
        one_round = [SITE | {"run": "r2"}]
        assert self.taken_over(data, [*moved, *one_round]) == [1.0, 1.0, 1.0]
        assert self.true_noise(2.0, 1.0001) == pytest.approx(1.0, rel=1e-3)

    def test_a_norm_that_stood_still_was_not_adaptive(self, data):
        still = [SITE, SITE | {"round_number": 2}]
        assert self.taken_over(data, still) == [2.0, 2.0]

    def test_nor_one_of_a_run_that_says_so(self, data):
        write_json(Path("runs/tiny/r1/config.json"), {"privacy": {"name": "site_level"}})
        assert self.taken_over(data, [SITE]) == [2.0]

    def test_other_mechanisms_stay_as_they_are(self, data):
        poisson = OLD | {"mechanism": "poisson sampled gaussian"}
        discrete = SITE | {"mechanism": "distributed discrete gaussian"}
        laplace = SITE | {"mechanism": "laplace at a private percentile"}
        moved = [one | {"clip": clip} for one in (poisson, discrete, laplace) for clip in (1, 2)]
        assert self.taken_over(data, moved) == [2.0] * 6
        assert spent(holder_ledger(data[0]).spendings(), "record", 1e-5, "rdp") == inf
