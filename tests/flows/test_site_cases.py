"""What a plan says of data is compared with what the site itself says, and never followed."""

from types import SimpleNamespace

import pytest

from federated.configuration.description_file import read_description
from federated.errors import ConsiliumError, RefusalError
from federated.exchange.policy import PERMISSIVE
from federated.files import read_json, write_json
from federated.settings.sections import DataSettings, ValidationSettings
from federated.site.home import SiteHome
from flows import site_flow
from flows.site_cases import (
    as_described_here,
    differences,
    is_generated,
    located_here,
    own_rules,
)
from tests.described_sets import CLASSES, describe, picture_set
from tests.flows.conftest import full_run


@pytest.fixture
def data(tmp_path):
    """Two sets of pictures, of which a policy might name one."""
    for name in ("consented", "restricted"):
        picture_set(tmp_path / "data" / name)
        describe(tmp_path / "data" / name, {k: v for k, v in CLASSES.items() if k != "shape"})
    return tmp_path / "data"


@pytest.fixture
def home(tmp_path):
    root = tmp_path / "north"
    root.mkdir(mode=0o700)
    return SiteHome(root)


def planned(data, **changes):
    """What a plan says of the data set, with some of its description changed."""
    own = read_description(data / "consented")
    told = own.model_dump(mode="json") | {"shape": [16, 24]} | changes
    return DataSettings(
        dataset="consented", source="files", described=type(own).model_validate(told)
    )


def test_the_sites_own_folder_is_read(data, home):
    settings = as_described_here("north", planned(data), data)
    assert located_here(home, settings).path == data / "consented"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"folder": "restricted"}, "folder"),
        ({"labels": {"normal": ["zz", 0], "ill": 1}}, "labels"),
        ({"columns": {"label": "age", "ignored": ["mask"]}}, "columns"),
    ],
)
def test_a_plan_that_describes_the_set_otherwise_is_refused(data, changes, key):
    """It could name another folder of the hospital, another column, or rename its records."""
    with pytest.raises(RefusalError, match=f"otherwise than the plan does, in {key}"):
        as_described_here("north", planned(data, **changes), data)


def test_a_set_without_a_description_of_its_own_is_not_described_by_the_plan(data):
    settings = planned(data)
    (data / "consented" / "dataset.yaml").unlink()
    (data / "consented" / "cases.csv").unlink()
    with pytest.raises(RefusalError, match="its having a description at all"):
        as_described_here("north", settings, data)


def test_what_the_site_has_settled_the_plan_does_not_change(data):
    own = read_description(data / "consented")
    other = own.model_copy(update={"shape": (64, 64)})
    assert differences(own.model_copy(update={"shape": (32, 32)}), other) == ["shape"]
    assert differences(own, other) == []
    assert differences(None, None) == []


def test_nothing_is_generated_or_downloaded_for_a_plan(data, home):
    with pytest.raises(RefusalError, match="asks for generated images"):
        as_described_here("north", DataSettings(source="phantom"), data)
    # The published file would come from the network, and pass for the site's own.
    settings = as_described_here("north", DataSettings(source="medmnist"), data)
    with pytest.raises(RefusalError, match="no organmnist3d among its data") as refused:
        located_here(home, settings)
    assert sorted(path.name for path in data.iterdir()) == ["consented", "restricted"]
    assert str(data) not in str(refused.value)


def test_which_cases_are_faulty_is_the_sites_own_rule(home):
    assert own_rules(home) == ValidationSettings()
    (home.root / "site-validation.yaml").write_text("outlier: 12\non_failure: drop-case\n")
    assert own_rules(home).outlier == 12
    (home.root / "site-validation.yaml").write_text("outliers: 12\n")
    with pytest.raises(ConsiliumError, match="outliers"):
        own_rules(home)


def test_generated_data_are_told_as_such(data, home):
    settings = as_described_here("north", planned(data), data)
    assert not is_generated(home)
    write_json(home.settings_path, {"data": str(data), "generated": True}, 0o600)
    assert located_here(home, settings).source == "phantom"


@pytest.mark.usefixtures("prefect_server")
def test_a_site_tells_nothing_of_its_cases_of_a_run_that_it_refuses(consortium, monkeypatch):
    """Nothing is read before a person has approved; thresholds of the plan leave no case out."""
    clock = SimpleNamespace(now=0.0)

    def sleep(_seconds):
        """Nobody decides anything as long as they are waited for."""
        clock.now += 1000

    monkeypatch.setattr(
        site_flow, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    )
    parties = consortium()
    home = parties["site-02"].home
    home.write_policy(PERMISSIVE.replace("approval: not-required", "approval: required"))
    overrides = ["runner.name=sites", "runner.joining=900", "validate.on_failure=drop-case"]
    folder = full_run(
        rounds=1, overrides=[*overrides, "validate.min_cases_per_class=1000"], register_model=False
    )
    summary = read_json(folder.summary_path)
    assert summary["sites"] == ["site-00", "site-01"]
    assert "until a person approves" in summary["absent"]["site-02"]
    assert not home.run(folder.run_id).data_path.exists()
    cases = read_json(folder.partition_path)["cases"]
    assert all(counts["train"] > 8 for counts in cases.values())
