"""The bill of materials is CycloneDX, and lists what is installed."""

import json
from importlib.metadata import version

from federated.release.materials import Package, bill_of_materials, installed_packages


def test_the_bill_lists_what_is_installed_and_what_it_needs():
    bill = json.loads(bill_of_materials("tiny", "3", installed_packages()))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["type"] == "machine-learning-model"
    listed = {each["name"]: each["version"] for each in bill["components"]}
    assert listed["torch"] == version("torch")
    needs = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    (own,) = needs["model"]
    assert any(ref.startswith("pkg:pypi/torch@") for ref in needs[own])


def test_the_bill_follows_the_schema():
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    packages = [
        Package("a", "1.0", "MIT", ("b", "not-there")),
        Package("b", "2.0+cpu", "a licence of their own", ()),
        Package("c", "3", "", ("a",)),
    ]
    bill = bill_of_materials("tiny", "3", packages)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    assert "not-there" not in bill
