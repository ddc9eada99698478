"""Who the patients of a hospital are stays there, also where its data are named after them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from federated.files import read_json
from federated.secrets.home import consilium_home
from federated.secrets.pseudonyms import pseudonym, pseudonym_secret
from federated.stages import overlays
from flows import site_service
from tests.described_sets import PICTURES, describe, picture_set, write_table
from tests.flows.conftest import full_run
from tests.flows.consortium import make_consortium

pytestmark = pytest.mark.usefixtures("prefect_server")
# What stands in cells, in names of files and in attributes, and is to be found nowhere else.
CANARIES = ("MRN4711", "DOEJOHN", "WARDSEVEN")
SETS = (
    *("data.dataset=mine", "data.source=files", "sites.partition=iid", "sites.min_cases=2"),
    *("model.name=unet", "model.norm=instance", "model.width=8", "selection.metric=val/dice"),
    *("training.batch_size=2", "sites.overlays=true", "evaluation.share=predictions"),
)


def named_after_patients(folder: Path) -> None:
    """Segmented pictures whose table and files name their patients, with one that is faulty."""
    rows = picture_set(folder, cases=36)
    for number, row in enumerate(rows):
        del row["site"], row["label"]
        row["patient"], row["case"] = f"MRN4711{number:02d}", f"DOEJOHN-case-{number:02d}"
        for column in ("image", "mask"):
            old = folder / row[column]
            row[column] = f"{Path(row[column]).parent}/DOEJOHN{number:02d}.png"
            old.rename(folder / row[column])
        row["ward"] = f"WARDSEVEN{number % 2}"
    write_table(folder, rows)
    columns = {"attributes": ["ward"]}
    describe(folder, {**PICTURES, "columns": columns})


def readable(*roots: Path, but: tuple[Path, ...]) -> Iterator[tuple[Path, bytes]]:
    for root in roots:
        for path in root.rglob("*"):
            if path.is_file() and not any(other in path.parents for other in but):
                yield path, path.read_bytes()


def told(path: Path, content: bytes) -> list[str]:
    return [word for word in CANARIES if word.encode() in content or word in str(path)]


@pytest.fixture
def titles(monkeypatch):
    """What is written over pictures, which are drawn in this process."""
    found = []

    def drawn(family, case, truth, predicted, title):
        found.append(title)
        return draw(family, case, truth, predicted, title)

    draw = overlays._draw
    monkeypatch.setattr(overlays, "_draw", drawn)
    monkeypatch.setattr(site_service, "open_worker", lambda: ThreadPoolExecutor(1))
    return found


@pytest.mark.parametrize("fails", [False, True], ids=["trains", "fails"])
def test_nothing_that_names_a_patient_leaves_a_site(project, titles, fails):
    """Neither where all goes well, nor where a file cannot be read and a site says why not."""
    named_after_patients(project / "data" / "mine")
    parties = make_consortium(project, "tiny", *SETS)
    for file in (project / "data" / "mine").rglob("*.png"):
        file.unlink()  # the coordinator has a description and no case
    (project / "data" / "mine" / "cases.csv").unlink()
    broken = parties["site-02"]
    if fails:
        for image in (broken.data / "mine" / "images").iterdir():
            image.write_bytes(image.read_bytes()[:60])
    with parties["site-00"].at_work(), parties["site-01"].at_work(), broken.at_work():
        folder = full_run(rounds=1, overrides=["runner.name=sites", *SETS])
    there = sorted(parties)[: 2 if fails else 3]
    assert read_json(folder.summary_path)["sites"] == there
    # What validation found is kept by the program that runs at a site; all of them are one here.
    sites = (project / "hospital", project / "homes", consilium_home() / "validated")
    found = {
        str(path): words
        for path, content in readable(project, consilium_home(), but=sites)
        if (words := told(path, content))
    }
    assert found == {}
    # What is drawn cannot be searched for: the site alone knows which case a picture shows.
    assert len(titles) == 3 * len(there)
    assert not any(word in title for title in titles for word in CANARIES)
    known = read_json(parties["site-00"].home.run(folder.run_id).pictures_path)
    assert known
    for name, case in known.items():
        assert any(f": {name}, Dice" in title for title in titles)
        assert case.startswith("DOEJOHN-case-")
        assert name == pseudonym(case, pseudonym_secret(parties["site-00"].home.root))
    # They are at the sites, where the test would find them.
    assert any(told(path, content) for path, content in readable(*sites, but=()))
