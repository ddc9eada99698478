"""``dataset.yaml``: where the description of a data set lies, and reading it.

It lies in the data set's folder. Where that has none, nnU-Net's or the Decathlon's ``dataset.json``
is one, and for some public sets the project has one of its own, so that their folders can stay as
they were downloaded.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from federated.configuration.explain import explain
from federated.configuration.yaml_text import UnclearYamlError, key_lines, parse_yaml
from federated.data.folders.described import sets
from federated.data.folders.described.arrays import settle_arrays
from federated.data.folders.described.automatic import settle
from federated.data.folders.described.dataset_json import DATASET_JSON, read_dataset_json
from federated.data.folders.described.family import find
from federated.data.folders.described.table_roles import CASES, DESCRIPTION
from federated.data.folders.families import FAMILIES
from federated.data.medmnist.files import DATASETS
from federated.data.roots import data_roots
from federated.errors import ConsiliumError, why_unreadable
from federated.settings.description import Description
from federated.settings.names import PATTERN, refuse_name

# The folder of the descriptions that come with the project.
SHIPPED = Path(sets.__file__).parent
CT = "ct"


def find_description(name: str, root: Path, settles: bool = True) -> Description | None:
    """The description of a data set, with numbers in place of ``auto`` where it ``settles``.

    It is ``None`` for the sets that have a module, and where there is none.

    Args:
        name: the data set's, as in ``data.dataset``.
        root: the folder above the data sets, beside the one that CONSILIUM_DATA names.
        settles: whether what is ``auto`` is taken from the headers of the images; arrays always
            are, whose headers say more.

    Raises:
        ConsiliumError: there is one that cannot be used, or a folder of that name that has a table
            and no description.
    """
    if name in DATASETS or name in FAMILIES or not PATTERN.fullmatch(name):
        return None
    refuse_name(name, "a data set's name")
    folders = [above / name for above in data_roots(root)]
    here = next((folder for folder in folders if folder.is_dir()), None)
    described = next((f for f in folders if (f / DESCRIPTION).is_file()), None)
    described = described or next((f for f in folders if (f / DATASET_JSON).is_file()), None)
    if described is not None:
        description = read_description(described)
    elif (SHIPPED / f"{name}.yaml").is_file():
        description = parse_description(SHIPPED / f"{name}.yaml", {})
    elif here is not None and (here / CASES).is_file():
        raise ConsiliumError(
            f"The folder {here} has a table {CASES}, and no {DESCRIPTION} that says what it means. "
            f"`consilium data init {here}` proposes one."
        )
    else:
        return None
    if not settles and description.layout != "arrays":
        return description
    return _settled(description, name, root)


def read_description(folder: Path) -> Description:
    """The description in a data set's folder, as it stands there.

    Raises:
        ConsiliumError: it cannot be read, or something in it is not possible; the message names the
            file, the line and the key.
    """
    base = read_dataset_json(folder) if (folder / DATASET_JSON).is_file() else {}
    path = folder / DESCRIPTION
    if not path.is_file():
        return _checked(folder / DATASET_JSON, base, {})
    return parse_description(path, base)


def parse_description(path: Path, base: Mapping[str, Any]) -> Description:
    """The description of a file, over what ``base`` says where its layout is that of ``base``.

    Raises:
        ConsiliumError: as :func:`read_description`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = parse_yaml(text)
    except UnclearYamlError as error:
        raise ConsiliumError(
            f"The description {path} cannot be read as YAML: {error}. Mend it there."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConsiliumError(
            f"The description {path} cannot be read: {why_unreadable(error)}. Save it as text."
        ) from error
    if not isinstance(value, dict):
        raise ConsiliumError(
            f"The description {path} is empty, or no list of keys and values. `consilium data "
            "init` proposes one for a folder."
        )
    given = {**base, **value} if value.get("layout") in (None, base.get("layout")) else value
    return _checked(path, given, key_lines(text))


def _checked(path: Path, value: Mapping[str, Any], lines: Mapping[str, int]) -> Description:
    try:
        description = Description.model_validate(value)
    except ValidationError as error:
        said = explain(error, Description.model_json_schema(), {})
        keys = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
        keys |= {key for key in lines if any(f" {key}" in f" {p['msg']}" for p in error.errors())}
        at = sorted(lines[key] for key in keys if key in lines)
        where = f" (line {', '.join(map(str, at))})" if at else ""
        raise ConsiliumError(f"The description {path}{where} cannot be used. {said}") from error
    _refuse_ct_without_window(path, description)
    return description


def _refuse_ct_without_window(path: Path, description: Description) -> None:
    """A window nobody has chosen would decide in silence what a network can see of a CT."""
    if description.window is None and CT in (m.lower() for m in description.modalities):
        raise ConsiliumError(
            f"The description {path} has the modality CT and no `window`: which Hounsfield units a "
            "network is to see decides what can be learned. Write it into "
            f"{path.parent / DESCRIPTION}, as `window: [-160, 240]` for soft tissue; "
            "`consilium data init` proposes one from the labelled voxels."
        )


def _settled(description: Description, name: str, root: Path) -> Description:
    if description.settled and description.layout != "arrays":
        return description
    folder_name = description.folder or name
    folder = next((f / folder_name for f in data_roots(root) if (f / folder_name).is_dir()), None)
    if folder is None:
        places = " and no ".join(str(above / folder_name) for above in data_roots(root))
        raise ConsiliumError(
            f"The description of {name} takes its shape or spacing from the images (`auto`), and "
            f"there is no folder {places}. Put it there, or state both as numbers."
        )
    return _settle_by(description, folder, _state_of(folder))


def _state_of(folder: Path) -> tuple[tuple[str, int], ...]:
    """What tells that a folder's tables have changed since they were read in this process."""
    paths = (folder / name for name in (CASES, DESCRIPTION, DATASET_JSON))
    return tuple((path.name, path.stat().st_mtime_ns) for path in paths if path.is_file())


def _settle_by(
    description: Description, folder: Path, state: tuple[tuple[str, int], ...]
) -> Description:
    return _remembered(description.model_dump_json(), folder, state)


@lru_cache(maxsize=32)
def _remembered(text: str, folder: Path, _state: tuple[tuple[str, int], ...]) -> Description:
    description = Description.model_validate_json(text)
    if description.layout == "arrays":
        return settle_arrays(description, folder)
    return settle(description, find(description, folder).cases)
