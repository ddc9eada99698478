"""What validation has found before: kept once for each digest of the data and of the rules.

Great Expectations takes seconds to import and seconds more to judge and to draw its pages. For the
same files, cases of each site, rules and program it finds the same, so that this is kept in the
home, for its owner alone, and is shown again, with the time at which it was found.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from federated.configuration.experiment import Experiment
from federated.data.dataset import Dataset
from federated.data.folders.dataset import data_sha256
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset
from federated.errors import ConsiliumError
from federated.files import PRIVATE, read_json, write_json
from federated.provenance import code_digest, installed
from federated.secrets.home import consilium_home, private_folder

# The newest are kept.
MOST_KEPT = 50
# In seconds, in which what was found has long been put in its place.
LONGEST = 24 * 3600
FOUND, DOCS = "found.json", "data_docs"
# What reads tables and images, optional ones too, and what judges them. Those that training depends
# on are a part of the program's digest.
READERS = (
    *("great_expectations", "pandas", "pillow", "simpleitk", "nibabel", "scipy", "monai"),
    *("pydicom", "highdicom", "pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle"),
    *("pylibjpeg-libjpeg", "python-gdcm"),
)


@dataclass(frozen=True)
class Kept:
    """What was found: values as JSON has them, and when, in ISO 8601 with the offset from UTC."""

    value: dict[str, Any]
    when: str


def digest_of(
    experiment: Experiment, dataset: AnyDataset, partition: Partition, place: Path
) -> str:
    """The SHA-256 of all that decides what validation finds, as hexadecimal digits.

    Of the data it takes the SHA-256, though their MD5 is known: who brings a site its data could
    make two sets with one MD5, have the one judged and put the other in its place.

    Args:
        experiment: whose rules are checked.
        dataset: the data set; which files it has is a part, hidden ones and strays too.
        partition: the cases of each site.
        place: where the data lie, which is named in what is found.

    Raises:
        OSError: the data cannot be read there.
    """
    if isinstance(dataset, Dataset):
        listed: Any = {"origins": dataset.origins, "unmatched": dataset.unmatched}
    else:
        listed = {"cases": dict(dataset.cases), "unmatched": dataset.unmatched}
    rules = Path(__file__).parent
    decides = {
        "data_sha256": data_sha256(place),
        "place": str(place.resolve()),
        "listed": listed,
        "partition": {site: dict(splits) for site, splits in partition.sites.items()},
        "data": experiment.data.model_dump(mode="json"),
        "sites": experiment.sites.model_dump(mode="json"),
        "rules": experiment.validation.model_dump(mode="json"),
        "info": asdict(dataset.info),
        "program": code_digest(),
        "expectations": [
            sha256((rules / name).read_bytes()).hexdigest()
            for name in (
                "data_docs.py",
                "expectations.py",
                "suites.py",
                "validate.py",
                "validated.py",
            )
        ],
        "readers": _versions(),
    }
    return sha256(json.dumps(decides, sort_keys=True, default=repr).encode()).hexdigest()


def _versions() -> dict[str, str | None]:
    """Of the libraries that read the data and judge them; ``None`` for one that is not there."""
    found: dict[str, str | None] = dict.fromkeys(READERS)
    for name in READERS:
        with suppress(PackageNotFoundError):
            found[name] = installed(name)
    return found


def is_anything_kept() -> bool:
    """Whether anything was ever found here; where nothing was, no data are known to be judged."""
    try:
        return any((consilium_home() / "validated").iterdir())
    except OSError:
        return False


def recall(digest: str, docs: Path) -> Kept | None:
    """What was found before, with its pages put into ``docs``; ``None`` where nothing is kept.

    What is kept and cannot be used is as if it were not there.
    """
    place = consilium_home() / "validated" / digest
    try:
        private_folder(place.parent)
        told = read_json(place / FOUND)
        kept = Kept(told["value"], str(told["when"]))
        shutil.rmtree(docs, ignore_errors=True)
        shutil.copytree(place / DOCS, docs)
    except (ConsiliumError, OSError, ValueError, KeyError, TypeError):
        return None
    return kept


def keep(digest: str, value: Mapping[str, Any], docs: Path) -> None:
    """Keep what was found, and its pages; where that cannot be, nothing is lost but time."""
    with suppress(ConsiliumError, OSError):
        folder = private_folder(consilium_home() / "validated")
        made = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        try:
            shutil.copytree(docs, made / DOCS)
            when = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(made / FOUND, {"when": when, "value": value}, PRIVATE)
            # What is there cannot be used, or has just been found by somebody else.
            shutil.rmtree(folder / digest, ignore_errors=True)
            made.rename(folder / digest)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        for begun in folder.glob(".*"):
            # Of a process that was killed.
            if time.time() - begun.stat().st_mtime > LONGEST:
                shutil.rmtree(begun, ignore_errors=True)
        kept = sorted(folder.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime)
        for old in kept[:-MOST_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
