"""What is a site's own is closed to other users of the machine, whatever the umask is."""

import os

import pytest

from federated.errors import ConsiliumError
from federated.privacy.ledger import Budget, Ledger, ledger_root
from federated.protection.keys import keys_root, new_key
from federated.protection.packed_bfv import SCHEME
from federated.protection.parameters import Parameters
from federated.secrets.home import consilium_home, private_folder, refuse_open
from federated.site.releases import site_releases
from federated.stages.context import read_run
from federated.stages.secagg import advertise_site, relay_keys, share_site
from tests.federated.federation import SITE, begin, sent

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
    new_key("tiny", "run", Parameters(SCHEME, 4096, (30, 30), 20, 1, 1))
    folder = begin(*SECAGG)
    advertise_site(folder.root, SITE, 1)
    sent(begin("privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.clip=1"))
    assert {path.name for path in consilium_home().iterdir()} == {"keys", "ledger", "releases"}
    found = modes(consilium_home())
    assert found[True] == {0o700}
    public = set(keys_root().rglob("context.json"))
    for path in consilium_home().rglob("*"):
        if path.is_file() and path not in public:
            assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("level", ["", "releases", "releases/run", "releases/run/site-00"])
def test_a_folder_of_the_home_that_others_can_open_is_refused_with_the_remedy(
    consilium_home, tmp_path, level
):
    run = tmp_path / "runs" / "tiny" / "run"
    private_folder(consilium_home / "releases" / "run" / "site-00")
    open_one = consilium_home / level
    open_one.chmod(0o750)
    store = site_releases(run, "site-00")
    with pytest.raises(ConsiliumError, match=r"permissions 750.*`chmod 700 \S+`") as error:
        private_folder(store.place)
    assert f"chmod 700 {open_one}`" in str(error.value)
    open_one.chmod(0o700)
    assert private_folder(store.place) == store.place


def test_what_lies_above_the_home_is_not_the_sites(consilium_home):
    consilium_home.parent.chmod(0o755)
    private_folder(consilium_home / "releases")


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
        folder = begin("privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.clip=1")
        sent(folder)
        (path,) = site_releases(folder.root, SITE).place.glob("*.release")
        path.chmod(0o644)
        with pytest.raises(ConsiliumError, match=r"permissions 644.*chmod 600"):
            sent(folder)

    def test_masking_secrets(self, project):
        folder = begin(*SECAGG)
        for site in folder.sites():
            advertise_site(folder.root, site, 1)
        relay_keys(folder, read_run(folder), 1, folder.sites())
        share_site(folder.root, SITE, 1)
        (path,) = (path for path in keys_root().rglob("round-001.json") if SITE in str(path))
        path.chmod(0o640)
        with pytest.raises(ConsiliumError, match=r"permissions 640.*chmod 600"):
            share_site(folder.root, SITE, 1)
