"""What is a site's own is closed to other users of the machine, whatever the umask is."""

import os

import pytest

from federated.errors import ConsiliumError
from federated.privacy.ledger import Budget, Ledger, ledger_root
from federated.protection.keys import new_run_key
from federated.protection.packed_bfv import SCHEME
from federated.protection.parameters import Parameters
from federated.secrets.home import consilium_home, private_folder, refuse_open
from federated.site.home import SiteHome
from federated.site.key_store import KeyStore
from federated.site.releases import ReleaseStore
from federated.stages.coordinator import begin_round
from federated.stages.secagg import advertise_site, share_site
from federated.stages.secagg_relay import relay_keys
from tests.federated.federation import SITE, begin, sent
from tests.federated.site.test_releases import SOURCES

SECAGG = ["protection.name=secagg_plus", "compression.bits=8", "runner.name=processes"]


@pytest.fixture(params=[0o022, 0o000, 0o077], ids=["022", "000", "077"])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(place):
    """The permissions of everything below a folder and of itself, by whether it is a folder."""
    found = {True: set(), False: set()}
    for path in (place, *place.rglob("*")):
        found[path.is_dir()].add(path.stat().st_mode & 0o777)
    return found


def test_folders_are_made_closed_all_the_way_down(umask, consilium_home):
    folder = private_folder(consilium_home / "a" / "b" / "c")
    for place in (folder, folder.parent, folder.parent.parent, consilium_home):
        assert place.stat().st_mode & 0o777 == 0o700


def test_a_ledger_a_key_masking_secrets_and_releases_are_closed(umask, project, monkeypatch):
    Ledger(ledger_root() / "set" / "site.jsonl").set_budget(Budget("record", 1.0, 1e-5))
    masked = begin(*SECAGG)
    begin_round(masked.coordinator, 1)
    advertise_site(masked.call(SITE), 1)
    private = begin("privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.clip=1")
    sent(private)
    keys = KeyStore.of(masked.home(SITE), masked.folder.run_id)
    keys.sealing_key()
    keys.keep(new_run_key(Parameters(SCHEME, 4096, (30, 30), 20, 1, 1)), ())
    assert keys.sealed_once("label", lambda: b"sealed") == b"sealed"
    assert {path.name for path in consilium_home().iterdir()} == {"ledger"}
    found = modes(consilium_home())
    assert found[True] == {0o700}
    for path in consilium_home().rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o600
    assert list(masked.store(SITE).secrets.glob("round-001*.secret.json"))
    assert list(private.store(SITE).releases.glob("*.release"))
    for run in (masked, private):
        assert modes(run.home(SITE).root) == {True: {0o700}, False: {0o600}}
        assert modes(run.folder.coordinator_path)[True] == {0o700}


def never():
    raise AssertionError("made")


@pytest.mark.parametrize("level", ["", "runs", "runs/run", "runs/run/releases"])
def test_a_folder_of_the_home_that_others_can_open_is_refused_with_the_remedy(tmp_path, level):
    home = SiteHome(tmp_path / "site-00")
    place = home.run("run").releases
    private_folder(place, home.root)
    open_one = home.root / level
    open_one.chmod(0o750)
    store = ReleaseStore(place, home.root)
    with pytest.raises(ConsiliumError, match=r"permissions 750.*`chmod 700 \S+`") as error:
        store.once(SOURCES, never)
    assert f"chmod 700 {open_one}`" in str(error.value)
    open_one.chmod(0o700)
    assert store.once(SOURCES, lambda: {"update": b"made"}) == {"update": b"made"}


def test_a_home_that_others_can_open_is_refused_before_anything_is_read(tmp_path):
    home = SiteHome(tmp_path / "site-00")
    home.identity()
    home.root.chmod(0o750)
    with pytest.raises(ConsiliumError, match=r"permissions 750.*`chmod 700 \S+`"):
        home.identity()


def test_what_lies_above_the_home_is_not_the_sites(consilium_home):
    consilium_home.parent.chmod(0o755)
    private_folder(consilium_home / "keys")


def test_a_file_that_others_can_read_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "secret"
    path.write_text("")
    for mode in (0o640, 0o604, 0o620, 0o601):
        path.chmod(mode)
        with pytest.raises(ConsiliumError, match=f"permissions {mode:03o}.*chmod 600 {path}`"):
            refuse_open(path)
    path.chmod(0o600)
    refuse_open(path)


class TestReading:
    def test_a_stored_release(self, project):
        run = begin("privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.clip=1")
        sent(run)
        (path,) = run.store(SITE).releases.glob("*.release")
        path.chmod(0o644)
        with pytest.raises(ConsiliumError, match=r"permissions 644.*chmod 600"):
            sent(run)

    def test_masking_secrets(self, project):
        run = begin(*SECAGG)
        topic = begin_round(run.coordinator, 1)
        for site in run.sites:
            advertise_site(run.call(site), 1)
        relay_keys(run.coordinator, topic, run.sites)
        share_site(run.call(SITE), 1)
        (path,) = run.store(SITE).secrets.glob("round-001*.secret.json")
        path.chmod(0o640)
        with pytest.raises(ConsiliumError, match=r"permissions 640.*chmod 600"):
            share_site(run.call(SITE), 1)

    def test_the_sites_key(self, project):
        run = begin()
        path = run.home(SITE).root / "identity.key"
        path.chmod(0o644)
        with pytest.raises(ConsiliumError, match=r"permissions 644.*chmod 600"):
            run.site(SITE)
