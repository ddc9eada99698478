"""The cases that a site of a consortium has for a run: read as the site itself describes them.

A plan comes from the coordinator. What it says of the data is compared with what the site's own
folder says, and never followed: which folder is read, what its columns mean, and which cases are
left out as faulty is for the site alone to say. So no plan makes a site read what its policy does
not name, gives its records other names in the ledger, or learns of them by what is refused.
"""

from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from federated.configuration.description_file import find_description
from federated.configuration.experiment import Experiment
from federated.configuration.explain import explain
from federated.configuration.yaml_text import UnclearYamlError, parse_yaml
from federated.data.dataset import LocatedFile
from federated.data.load import locate_local, missing
from federated.errors import ConsiliumError, RefusalError, unreadable
from federated.settings.description import Description
from federated.settings.sections import DataSettings, ValidationSettings
from federated.site.home import SiteHome

# What the coordinator may settle of a description where the site's own leaves it open.
OPEN = {"spacing": "auto", "shape": "auto", "whole": None, "colours": None}
# Words for people, by which nothing is read.
WORDS = ("title", "licence", "source")


def as_described_here(site: str, settings: DataSettings, folder: Path) -> DataSettings:
    """What a plan says of its data set, with the site's own folder to read it from.

    Args:
        site: the site.
        settings: what the plan says.
        folder: the folder that the site's data sets lie in.

    Raises:
        RefusalError: the site describes the set otherwise, or it is to be generated.
        ConsiliumError: the site's own description cannot be used.
    """
    if settings.source == "phantom":
        raise RefusalError(
            f"{site} does not take part: data.source=phantom asks for generated images, and a site "
            "of a consortium reads files of its own. Propose the run with data.source=files."
        )
    own = find_description(settings.dataset, folder, settles=False)
    if differing := differences(own, settings.described):
        raise RefusalError(
            f"{site} does not take part: it describes {settings.dataset} otherwise than the plan "
            f"does, in {', '.join(differing)}. Sites and coordinator need the same dataset.yaml, "
            "but for what is left open in it (auto)."
        )
    return settings.model_copy(update={"root": folder, "source": "files"})


def differences(own: Description | None, planned: Description | None) -> list[str]:
    """The keys in which a plan describes a data set otherwise than a site does."""
    if own is None or planned is None:
        return [] if own is planned else ["its having a description at all"]
    mine, theirs = own.model_dump(mode="json"), planned.model_dump(mode="json")
    left_open = {key for key, value in OPEN.items() if mine[key] == value}
    keys = (mine.keys() | theirs.keys()) - left_open - set(WORDS)
    return sorted(key for key in keys if mine.get(key) != theirs.get(key))


def located_here(home: SiteHome, settings: DataSettings) -> LocatedFile:
    """The files of a data set at a site; nothing is made or downloaded.

    Raises:
        RefusalError: they are not there.
        ConsiliumError: they cannot be used.
    """
    found = locate_local(settings)
    if found is None:
        home.audit.add("no data", dataset=settings.dataset, said=missing(settings))
        raise RefusalError(
            f"{home.name} does not take part: it has no {settings.dataset} among its data."
        )
    return replace(found, source="phantom") if is_generated(home) else found


def is_generated(home: SiteHome) -> bool:
    """Whether a site's data are generated ones, to try a consortium; its people have said so."""
    return bool(home.settings().get("generated", False))


def judged_by_the_site(home: SiteHome, experiment: Experiment) -> Experiment:
    """The experiment with the site's own rules for which cases are faulty, and no others.

    They are in ``site-validation.yaml`` of the home, as `validate` of params.yaml has them.

    Raises:
        ConsiliumError: that file cannot be used.
    """
    sites = experiment.sites.model_copy(update={"count": 1, "min_cases": 1, "partition": "iid"})
    return experiment.model_copy(update={"validation": own_rules(home), "sites": sites})


def own_rules(home: SiteHome) -> ValidationSettings:
    """The site's own rules for which cases are faulty: those of its file, or the usual ones.

    Raises:
        ConsiliumError: the file cannot be used.
    """
    path = home.root / "site-validation.yaml"
    if not path.is_file():
        return ValidationSettings()
    try:
        return ValidationSettings.model_validate(parse_yaml(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    except UnclearYamlError as error:
        raise ConsiliumError(f"The rules {path} are no YAML with keys: {error}.") from error
    except ValidationError as error:
        said = explain(error, ValidationSettings.model_json_schema(), {})
        raise ConsiliumError(f"The rules {path} cannot be used. {said}") from error
