"""Rounds under encryption: the same model, fewer bytes, and a coordinator without a secret."""

import dataclasses
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import flows.round
import tasks.keys
from federated.errors import ConsiliumError
from federated.files import read_json
from federated.protection import ckks
from federated.protection.keys import PublicContext
from federated.rounds.context import sum_length
from federated.run.runs import latest_run
from federated.run.update_files import read_layout, read_state
from federated.site.home import SiteHome
from federated.site.key_store import SECRET_FILE, KeyStore
from federated.stages.aggregate import decrypt_site
from federated.stages.keys import take_key
from flows.prepare import take_prepared
from tests.conftest import NOT_WRITTEN_DOWN
from tests.flows.conftest import call_of, kept_at, weights

pytestmark = pytest.mark.usefixtures("plainly")

PROCESSES = ["runner.name=processes", "runner.workers=2"]
SPARSE = ["compression.name=shared_mask", "compression.density=0.03", "compression.bits=8"]
BFV = ["protection.name=packed_bfv"]


@pytest.mark.usefixtures("prefect_server")
def test_encrypted_quantised_values_give_the_very_same_model_and_resume_to_it(run, run_volumes):
    plain = run_volumes(SPARSE, rounds=2)
    first = run_volumes([*SPARSE, *BFV, *PROCESSES], rounds=1)
    encrypted = run(resume=first.run_id, rounds=2, prepared=None)
    np.testing.assert_array_equal(weights(plain), weights(encrypted))
    (sent,) = (record["bytes"] for record in encrypted.records()[1:])
    # One ciphertext of degree 2048 from each of three sites, against four bytes a value; and from
    # one of them the sum, opened, with eight bytes for each of its values.
    opened = 8 * sum_length(encrypted.experiment(), read_layout(encrypted.state_path(2))) + 2000
    assert opened < sent["up"] < 0.025 * sent["up_dense_float32"] + opened
    summary = read_json(encrypted.summary_path)
    assert summary["seconds"]["decrypt"] > 0
    assert summary["protection"]["min_sites"] == 3
    residuals = [kept_at(encrypted, f"site-0{k}").memory_paths("residual") for k in range(3)]
    # Of the last round, and of that before it until the next one begins.
    assert [len(paths) for paths in residuals] == [2, 2, 2]


def test_ckks_gives_the_same_model_but_for_its_error_and_says_what_it_is_made_for(run, known):
    plain = known(1)
    encrypted = run(rounds=1, overrides=["protection.name=ckks", *PROCESSES])
    np.testing.assert_allclose(weights(encrypted), weights(plain), atol=1e-5)
    assert (weights(encrypted) != weights(plain)).any()
    said = read_json(encrypted.summary_path)["protection"]
    assert (said["name"], said["statistical_security"]) == ("ckks", 40)
    # Of one round, by three sites, each of which may open twice.
    assert (said["openings"], said["openings_each_site"]) == (6, 2)
    assert 1e-7 < said["noise_in_a_sum"] <= 1e-6
    assert said["computational_security"] == 123


def test_ckks_of_quantised_values_gives_the_very_same_model(run, known, in_process):
    plain = known(1, *SPARSE)
    encrypted = run(overrides=[*SPARSE, "protection.name=ckks", *PROCESSES], rounds=1)
    np.testing.assert_array_equal(weights(plain), weights(encrypted))
    assert read_json(encrypted.summary_path)["protection"]["noise_in_a_sum"] is None


def test_every_ciphertext_of_a_sum_is_flooded_before_the_coordinator_can_read_it(
    run, in_process, monkeypatch
):
    """Counted where a site opens a sum; what the noise does is in test_flooding.py."""
    flooded, made = [], ckks.flood

    def counting(parameters):
        add_noise = made(parameters)
        return lambda ciphertext: (flooded.append(parameters), add_noise(ciphertext))

    monkeypatch.setattr(ckks, "flood", counting)
    folder = run(rounds=2, overrides=["protection.name=ckks", *PROCESSES])
    public = PublicContext.from_json(read_json(folder.context_path))
    length = len(weights(folder))
    assert len(flooded) == 2 * public.parameters.ciphertexts(length)
    assert set(flooded) == {public.parameters}
    assert public.parameters.flooding.rounds == 2


def kept_keys(folder):
    """The files of a run's key at its sites."""
    return sorted((folder.root / "sites").rglob(SECRET_FILE))


def test_a_run_has_a_key_of_its_own_which_is_erased_at_its_end(
    run, in_process, failing, project, consilium_home
):
    settings = ["compression.bits=8", *BFV, *PROCESSES]
    failing("protect site-01 2")
    with pytest.raises(ConsiliumError, match="no power"):
        run(overrides=settings, rounds=2)
    stopped = latest_run(project / "runs", "tiny")
    before = PublicContext.from_json(read_json(stopped.context_path))
    secrets = {path.read_bytes() for path in kept_keys(stopped)}
    assert (len(kept_keys(stopped)), len(secrets)) == (3, 1)
    other = run(overrides=settings, rounds=1)
    assert kept_keys(other) == []
    assert read_json(other.context_path)["fingerprint"] != before.fingerprint
    failing()
    resumed = run(resume=stopped.run_id)
    assert read_json(resumed.context_path)["fingerprint"] == before.fingerprint
    assert kept_keys(resumed) == []
    assert not list(consilium_home.rglob(SECRET_FILE))
    longer = run(resume=resumed.run_id, rounds=3)
    assert longer.done_rounds() == 3
    assert read_json(longer.context_path)["fingerprint"] != before.fingerprint


@pytest.mark.parametrize("protection", ["ckks", "packed_bfv"])
def test_no_site_opens_the_sum_of_fewer_sites_than_it_asks_for(
    run, in_process, failing, project, protection
):
    failing("protect site-01 1")
    settings = [f"protection.name={protection}", "compression.bits=8", *PROCESSES]
    settings += ["sites.on_dropout=continue"]
    with pytest.raises(ConsiliumError, match=r"is of 2 of 3 sites.*min_sites=3.*missing: site-01"):
        run(overrides=settings, rounds=1)
    folder = latest_run(project / "runs", "tiny")
    assert not folder.state_path(1).exists()
    assert not folder.sum_path(1).exists()
    for responded in (["site-00"], ["site-00", "site-02"], ["site-00", "site-02", "site-00"]):
        with pytest.raises(ConsiliumError, match=r"min_sites=3|more than once"):
            decrypt_site(call_of(folder, "site-00"), 1, responded)


@pytest.mark.usefixtures("prefect_server")
def test_a_round_whose_sum_nobody_opens_is_lost_and_the_next_goes_on_without_who_is_to_blame(
    run, in_process, failing
):
    failing("vouch site-02 1")
    settings = [*BFV, "protection.min_sites=2", "compression.bits=8", *PROCESSES]
    folder = run(overrides=[*settings, "sites.on_dropout=continue"], rounds=2)
    first, second = folder.records()
    assert (first["sites"], list(first["dropped"])) == ([], ["site-02"])
    assert first["lost"] == "site-02: site-02 has no power."
    assert (second["sites"], second["lost"]) == (["site-00", "site-01"], None)
    assert list(second["dropped"]) == ["site-02"]
    lost, summed = (read_state(folder.state_path(number)).weights for number in (1, 2))
    assert (lost != summed).any()
    assert read_json(folder.summary_path)["rounds_lost"] == [1]


def test_a_run_of_which_validation_leaves_too_few_sites_is_refused_before_it_trains(
    run, in_process, monkeypatch, project
):
    def two_left(*arguments):
        return dataclasses.replace(take_prepared(*arguments), excluded=("site-02",))

    monkeypatch.setattr(flows.round, "take_prepared", two_left)
    settings = ["compression.bits=8", *BFV, *PROCESSES]
    with pytest.raises(ConsiliumError, match=r"min_sites=3 sites, and 2 are selected"):
        run(overrides=settings, rounds=1)
    assert not list((project / "runs").rglob("state.safetensors"))


def test_a_site_without_a_key_drops_out_of_every_round_by_name_and_the_others_go_on(
    run, in_process, monkeypatch
):
    def lost(call, maker, done):
        if call.site == "site-03":
            raise ConsiliumError("site-03 has no power.")
        return take_key(call, maker, done)

    monkeypatch.setattr(tasks.keys, "take_key", lost)
    four = ["sites.count=4", "sites.partition=iid", "sites.on_dropout=continue"]
    folder = run(overrides=["compression.bits=8", *BFV, *PROCESSES, *four], rounds=2, prepared=None)
    for record in folder.records():
        assert record["sites"] == ["site-00", "site-01", "site-02"]
        assert record["dropped"] == {"site-03": "site-03 has no power."}


# Each waits at its end, so that its memory can be looked through; the key is not erased before.
COORDINATOR = """
import sys
import flows.round
from flows.round import fl_round
flows.round.forget_key = lambda pool, calls: None
fl_round("tiny", prepared=sys.argv[1], overrides=sys.argv[2:], rounds=1)
print("waiting", flush=True)
input()
"""
SITE = """
import sys
from pathlib import Path
from federated.site.home import SiteHome
from federated.site.key_store import KeyStore
home = SiteHome(Path(sys.argv[1]))
secret = KeyStore.of(home, sys.argv[2]).find().opened()
print("waiting", flush=True)
input()
"""


@contextmanager
def waiting(script: str, server: str, *arguments: str) -> Iterator[int]:
    """The id of a process that has run ``script`` and is kept from ending."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | NOT_WRITTEN_DOWN | {"PREFECT_API_URL": server},
    )
    try:
        assert process.stdout
        assert any("waiting" in line for line in process.stdout)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def held_in_memory(pid: int, patterns: list[bytes]) -> bool:
    """Whether a process holds one of the patterns in its readable memory, at a multiple of 8."""
    for content in memory_of(pid):
        words = np.frombuffer(content, "<u8", len(content) // 8)
        for part in patterns:
            begins = np.flatnonzero(words == int.from_bytes(part[:8], "little"))
            if any(content[8 * place : 8 * place + len(part)] == part for place in begins):
                return True
    return False


def memory_of(pid: int) -> Iterator[bytes]:
    """What a process can read, but for the code of libraries: a gigabyte that nobody writes to."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            span, rights, _offset, _device, _inode, *path = line.split(maxsplit=5)
            low, high = (int(part, 16) for part in span.split("-"))
            library = any(".so" in Path(name.strip()).suffixes for name in path)
            if rights.startswith("r") and low < 2**63 and not (library and "w" not in rights):
                try:
                    memory.seek(low)
                    yield memory.read(high - low)
                except OSError:
                    continue  # pages that the kernel keeps to itself


@pytest.mark.skipif(sys.platform != "linux", reason="reads another process's memory")
def test_the_secret_stays_out_of_the_run_mlflow_and_the_coordinator(
    project, prepared_tiny, prefect_server
):
    settings = ["compression.bits=8", *BFV, "runner.name=processes", "runner.workers=1"]
    with waiting(COORDINATOR, prefect_server, prepared_tiny, *settings) as coordinator:
        run = latest_run(project / "runs", "tiny")
        home = SiteHome(run.home_path("site-01"))
        key = KeyStore.of(home, run.run_id).find()
        secret = key.opened()
        # SEAL frees it with the key, so both are held on to.
        coefficients = secret.key.data()
        patterns = [
            struct.pack("<8Q", *(coefficients.data(start + k) for k in range(8)))
            for start in range(0, 800, 100)
        ]
        assert len(set(patterns)) == len(patterns)
        assert not held_in_memory(coordinator, patterns)
    with waiting(SITE, prefect_server, str(home.root), run.run_id) as site:
        assert held_in_memory(site, patterns)

    assert PublicContext.from_json(read_json(run.context_path)) == key.public
    patterns += [key.secret[200:264], key.tags]
    own = set(kept_keys(run))
    assert len(own) == 3
    for path in project.rglob("*"):
        if path.is_file() and path.resolve() not in own:
            content = path.read_bytes()
            assert not any(part in content for part in patterns), path
