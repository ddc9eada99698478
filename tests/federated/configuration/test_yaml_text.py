"""params.yaml and settings are read by the rules of YAML 1.2, as DVC reads them."""

import datetime

import pytest
from dvc.utils.serialize import parse_yaml as dvc_parse

from federated.configuration.load import load_experiment, variant_overrides
from federated.configuration.params_file import (
    as_override,
    experiment_names,
    parse_overrides,
    read_params,
)
from federated.configuration.yaml_text import UnclearYamlError, parse_yaml
from federated.errors import ConsiliumError
from tests.conftest import PROJECT

# What PyYAML, which follows YAML 1.1, makes of them: 8, 90, False, True, "1e-3", False, 5400.5.
MEANT = {
    "010": 10,
    "1:30": "1:30",
    "no": "no",
    "on": "on",
    "1e-3": 0.001,
    "off": "off",
    "1:30:00.5": "1:30:00.5",
    "y": "y",
    "-0o10": -8,
    "null": None,
    "true": True,
    "none": "none",
    "": None,
    "[1, 2e-1]": [1, 0.2],
    "2024-01-02": datetime.date(2024, 1, 2),
}


@pytest.mark.parametrize("text", MEANT)
def test_a_value_is_what_a_person_means_and_what_dvc_reads(text):
    found = parse_yaml(text)
    assert (found, type(found)) == (MEANT[text], type(MEANT[text]))
    assert dvc_parse(f"key: {text}", "params.yaml") == {"key": found}


def test_what_somebody_changed_of_what_was_read_is_not_read_by_the_next():
    text = "a: {b: [1]}"
    parse_yaml(text)["a"]["b"].append(2)
    assert parse_yaml(text) == {"a": {"b": [1]}}


def test_the_projects_own_file_is_read_as_dvc_reads_it():
    text = (PROJECT / "params.yaml").read_text()
    assert parse_yaml(text) == dvc_parse(text, "params.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", r"key 'a' is in line 1 and again in line 3"),
        ("a: {b: 1,\n  b: 2}\nc: 1\nc: 2", r"'b' is in line 1 and .* line 2.*'c' is in line 3"),
        ("- x: 1\n  x: 1", r"'x' is in line 1 and again in line 2"),
        ("a: 1\n3: x", r"key 3 in line 2 is no text, unless in quotes"),
        ("true: x", r"key true in line 1"),
        ("? [a]\n: x", r"key of several values in line 1"),
        ("a: [\nb: 1", r"^line 2: "),
        ("a: 1\nshape:auto\nb: 1", r"^line 2: could not find expected ':' and a space after it$"),
        ("a: 1\nb:\n  c: 1\n  d:2\n\n  e: 3", r"^line 4: "),
        ("a: 1\nb: 'x\nc: 1", r"^line 2: "),
        ("a: !!python/object:os.system x", r"^line 1: "),
        ("a: !!int x", r"invalid literal"),
    ],
)
def test_what_is_not_clear_is_refused_with_its_line(text, said):
    with pytest.raises(UnclearYamlError, match=said) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def write(folder, experiments, more=""):
    path = folder / "params.yaml"
    rest = "strategy: {name: fedavg}, privacy: {name: none}, compression: {name: none}"
    path.write_text(
        f"defaults: {{{rest}, protection: {{name: plain}}}}\nexperiments:\n{experiments}\n{more}"
    )
    return path


def test_keys_that_are_there_twice_are_refused_with_both_lines(tmp_path):
    path = write(tmp_path, "  demo: {}\n  other: {}\n  demo: {rounds: 3}")
    with pytest.raises(ConsiliumError, match=r"params\.yaml .*'demo' is in line 3 and .* line 5"):
        load_experiment("demo", params=path)


@pytest.mark.parametrize("name", ["no", "on", "1:30", "'3'", "yes", "1e3x"])
def test_a_name_is_text_whatever_it_looks_like(tmp_path, name):
    path, plain = write(tmp_path, f"  {name}: {{rounds: 3}}"), name.strip("'")
    if ":" in plain:
        with pytest.raises(ConsiliumError, match=r"'1:30' under `experiments:`.*cannot be a name"):
            read_params(path)
        return
    assert experiment_names(path) == [plain]
    assert load_experiment(plain, params=path).rounds == 3


@pytest.mark.parametrize("name", ["3", "1.5", "null", "2024-01-02", "true"])
def test_a_name_that_is_no_text_is_refused_with_its_line(tmp_path, name):
    path = write(tmp_path, f"  {name}: {{}}")
    with pytest.raises(ConsiliumError, match=rf"key {name} in line 3 is no text, unless in quo"):
        load_experiment(name, params=path)


@pytest.mark.parametrize("name", ["a/b", "..", "''", "'a b'", "-x", "a:b"])
def test_a_name_that_cannot_be_a_folders_is_refused(tmp_path, name):
    with pytest.raises(ConsiliumError, match="cannot be a name"):
        read_params(write(tmp_path, f"  {name}: {{}}"))


def test_settings_are_read_alike(tmp_path):
    path = write(tmp_path, "  demo: {}")
    assert load_experiment("demo", ["seed=010"], path).seed == 10
    assert load_experiment("demo", ["training.lr=1e-3"], path).training.lr == 0.001
    with pytest.raises(ConsiliumError, match=r"rounds='1:30' is not possible"):
        load_experiment("demo", ["rounds=1:30"], path)
    with pytest.raises(ConsiliumError, match=r"'data={root: a, root: b}' is not YAML.*'root'"):
        load_experiment("demo", ["data={root: a, root: b}"], path)
    with pytest.raises(ConsiliumError, match=r"'seed=\[' is not YAML .*line 1: exp"):
        load_experiment("demo", ["seed=["], path)


@pytest.mark.parametrize("value", [None, True, 1, 1e-08, "no", "010", "null", "a: b", [1, "2"], ""])
def test_a_value_of_a_variant_is_the_same_as_a_setting(value):
    assert parse_overrides([as_override("a.b", value)]) == {"a": {"b": value}}


def test_a_variant_may_take_a_value_away(tmp_path):
    more = "variants: {epochs: {training: {local_steps: null}}}"
    path = write(tmp_path, "  demo: {training: {local_steps: 3}}", more)
    items = variant_overrides("epochs", path)
    assert load_experiment("demo", items, path).training.local_steps is None


@pytest.mark.parametrize("text", ["a: !!bool z", "a: " + "[" * 600])
def test_what_the_reader_stumbles_over_is_refused(text):
    with pytest.raises(UnclearYamlError):
        parse_yaml(text)
