"""The software bill of materials of a dossier, as CycloneDX JSON.

It lists what is installed where the dossier is made, with what each package needs of the others.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions

from federated.release.exported import require

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")
# A licence's own text stands in the metadata of some packages; only a name is taken.
LONGEST_LICENCE = 100


@dataclass(frozen=True, order=True)
class Package:
    """An installed distribution: its name, version, licence as it says it, and what it needs."""

    name: str
    version: str
    licence: str
    needs: tuple[str, ...]


def installed_packages() -> list[Package]:
    """The distributions that are installed here, by name, each once."""
    found: dict[str, Package] = {}
    for distribution in distributions():
        package = _package(distribution)
        found.setdefault(package.name, package)
    return sorted(found.values())


def _package(distribution: Distribution) -> Package:
    told = distribution.metadata
    needs = {_normal(name[0]) for text in distribution.requires or () if (name := NAME.match(text))}
    stated = told.get_all("License-Expression") or told.get_all("License") or [""]
    licence = " ".join(str(stated[0]).split())
    return Package(
        _normal(told["Name"] or ""),
        distribution.version,
        licence if len(licence) <= LONGEST_LICENCE else "",
        tuple(sorted(needs)),
    )


def _normal(name: str) -> str:
    """A name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def bill_of_materials(name: str, version: str, packages: Sequence[Package]) -> str:
    """The bill of a model, as the text of a CycloneDX 1.6 file.

    Args:
        name: of the model in the registry.
        version: its version there.
        packages: what is installed.

    Raises:
        ConsiliumError: the extra ``release`` is not installed.
    """
    require("cyclonedx")
    from cyclonedx.factory.license import LicenseFactory
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    licences = LicenseFactory()
    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL, name=name, version=version, bom_ref="model"
    )
    bom = Bom()
    bom.metadata.component = model
    components = {
        package.name: Component(
            type=ComponentType.LIBRARY,
            name=package.name,
            version=package.version,
            bom_ref=f"pkg:pypi/{package.name}@{package.version}",
            purl=PackageURL("pypi", None, package.name, package.version),
            licenses=[licences.make_from_string(package.licence)] if package.licence else [],
        )
        for package in packages
    }
    for component in components.values():
        bom.components.add(component)
    for package in packages:
        there = _there(package.needs, components)
        bom.register_dependency(components[package.name], [components[need] for need in there])
    bom.register_dependency(model, [components[n] for n in _there(("consilium",), components)])
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def _there(names: Iterable[str], components: Iterable[str]) -> list[str]:
    known = set(components)
    return [name for name in names if name in known]
