"""How many files something new takes: a dummy of each kind, added to a copy of the library."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

Edit = tuple[str, str]


@dataclass(frozen=True)
class Addition:
    """New files with their content, edits of others, the most files it may take, and its proof."""

    new: Mapping[str, str]
    edits: Mapping[str, list[Edit]]
    most: int
    proof: str


# docs/one-round.md with other sections: a whole round, in memory.
ROUND = """
import re
from pathlib import Path
page = Path(PAGE).read_text()
for old, new in CHANGES.items():
    assert old in page
    page = page.replace(old, new)
names = {}
for snippet in re.findall(r"^```python\\n(.*?)^```$", page, re.S | re.M):
    exec(compile(snippet, "page", "exec"), names)
assert names["after"].round_number == 1
"""
RESOLVED = """
from federated.configuration.load import resolve
value = {"data": {"dataset": "bloodmnist", "source": "files"}, "strategy": {"name": "fedavg"},
         "compression": {"name": "none"}, "protection": {"name": "plain"},
         "privacy": {"name": "none"}}
experiment = resolve("dummy", value | CHANGES, "a test")
"""

# docs/how-to/own-strategy.md, to the letter: its file, its edits and its test, and then a round.
OWN_STRATEGY = (PROJECT / "docs" / "how-to" / "own-strategy.md").read_text(encoding="utf-8")


def _titled(title: str) -> str:
    (code,) = re.findall(rf'^```python title="{title}"\n(.*?)^```$', OWN_STRATEGY, re.M | re.S)
    return code


def _edits() -> list[Edit]:
    """The edits that the page shows: what is there, and that with the new lines."""
    edits = []
    for shown in re.findall(r"^```diff\n(.*?)^```$", OWN_STRATEGY, re.M | re.S):
        lines = shown.splitlines(keepends=True)
        there = "".join(line[1:] for line in lines if line[0] == " ")
        edits.append((there, "".join(line[1:] for line in lines)))
    return edits


ADDITIONS = {
    "strategy": Addition(
        {"federated/strategies/smoothed.py": _titled("federated/strategies/smoothed.py")},
        {"federated/strategies/__init__.py": _edits()},
        2,
        _titled("test")
        + 'CHANGES = {\'"strategy": {"name": "fedavg"}\': '
        + '\'"strategy": {"name": "smoothed", "part": 0.5}\', '
        + "'by_hand = before + sum': 'by_hand = before + 0.5 * sum'}"
        + ROUND,
    ),
    "protection": Addition(
        {
            "federated/protection/dummy.py": '''"""In the clear under another name."""
from typing import ClassVar, Literal
from federated.protection.plain import Plain
class Dummy(Plain):
    """Hides nothing."""
    name: Literal["dummy"] = "dummy"
    hides_updates_from: ClassVar = frozenset()
'''
        },
        {
            "federated/protection/__init__.py": [
                (
                    "from federated.protection.packed_bfv",
                    "from federated.protection.dummy import Dummy\n"
                    "from federated.protection.packed_bfv",
                ),
                ("    Plain | CKKS", "    Dummy | Plain | CKKS"),
            ]
        },
        3,
        'CHANGES = {\'"protection": {"name": "plain"}\': \'"protection": {"name": "dummy"}\'}'
        + ROUND,
    ),
    "privacy mechanism": Addition(
        {
            "federated/privacy/dummy.py": '''"""Every update is zero, and noise."""
from typing import ClassVar, Literal
from federated.privacy.base import Private
class Dummy(Private):
    """As private as can be."""
    name: Literal["dummy"] = "dummy"
    unit: ClassVar = "site"
    mechanism: ClassVar[str] = "gaussian"
    def sampling(self, cases, steps, batch_size):
        return 1.0, 1
    def protect_update(self, update, release, clip, random):
        return (clip * random.normal(update.shape)).astype("float32"), {"dummy": 1.0}
'''
        },
        {
            "federated/privacy/__init__.py": [
                (
                    "from federated.privacy.dp_sgd",
                    "from federated.privacy.dummy import Dummy\nfrom federated.privacy.dp_sgd",
                ),
                ("    NoPrivacy |", "    Dummy | NoPrivacy |"),
            ]
        },
        3,
        'CHANGES = {"privacy": {"name": "dummy", "clip": 1, "noise_multiplier": 2}}'
        + RESOLVED
        + """
import numpy as np
from federated.privacy.noise import fresh_random
release = experiment.privacy.plan(10, 1, 4, 3)
sent, scalars = experiment.privacy.protect_update(
    np.ones(5, "float32"), release, 1.0, fresh_random()
)
assert (release.noise_multiplier, scalars) == (2, {"dummy": 1.0})
""",
    ),
    "model": Addition(
        {
            "models/dummy.py": '''"""A linear classifier."""
from torch import nn
class Dummy(nn.Module):
    """Of the mean of each channel, times ``width``."""
    def __init__(self, channels, classes, width):
        super().__init__()
        self.width, self.head = width, nn.Linear(channels, classes)
    def forward(self, images):
        return self.head(self.width * images.flatten(2).mean(dim=2))
'''
        },
        {
            "federated/settings/networks.py": [
                (
                    "NETWORKS: tuple[type[Network], ...] = (",
                    '''class Dummy(Network):
    """A linear classifier with a setting of its own."""

    name: Literal["dummy"] = "dummy"
    depth: int = 3

    def make(self, channels, classes, dims):
        from models.dummy import Dummy as Made

        return Made(channels, classes, self.depth)


NETWORKS: tuple[type[Network], ...] = (Dummy, ''',
                ),
                ("    SmallCNN | ShallowCNN", "    Dummy | SmallCNN | ShallowCNN"),
            ]
        },
        3,
        'CHANGES = {"model": {"name": "dummy", "depth": 5}}'
        + RESOLVED
        + """
from pathlib import Path
from federated.data.medmnist.files import dataset_info
from federated.weights.build import model_header, new_model
from federated.weights.model_file import load_model, save_model
info = dataset_info("bloodmnist")
model = new_model(experiment, info)
path = Path("model.safetensors")
save_model(path, model, model_header(experiment, info, "files"))
assert load_model(path).width == 5
""",
    ),
    "data set": Addition(
        {
            "federated/data/folders/families/dummy.py": '''"""Skin lesions under another name."""
from dataclasses import replace
from federated.data.folders.families.skin import SKIN
DUMMY = replace(SKIN, name="dummy", licence="CC0")
'''
        },
        {},
        1,
        """
from pathlib import Path
from federated.configuration.load import resolve
from federated.data.folders.dataset import read_folder
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
write_phantom(FAMILIES["dummy"], Path("d"), 6, 0, (32, 32))
assert read_folder(Path("d"), "dummy").info.licence == "CC0"
resolve("x", {"data": {"dataset": "dummy", "source": "files"}, "model": {"name": "unet"},
        "selection": {"metric": "val/dice"}, "sites": {"partition": "iid"},
        "strategy": {"name": "fedavg"}, "compression": {"name": "none"},
        "protection": {"name": "plain"}, "privacy": {"name": "none"}}, "a test")
""",
    ),
    "task": Addition(
        {
            "federated/learning/dummy.py": '''"""Classification under another name."""
from dataclasses import replace
from federated.learning.classification import CLASSIFICATION
DUMMY = replace(CLASSIFICATION, goal="dummies")
''',
            "federated/data/labelling/dummy.py": '''"""Classes of which no two are told apart."""
from dataclasses import replace
import numpy as np
from federated.data.labelling.classes import CLASSES
DUMMY = replace(CLASSES, strata=lambda labels: {s: np.zeros_like(y) for s, y in labels.items()})
''',
        },
        {
            "federated/data/dataset.py": [
                ('Literal["classification", ', 'Literal["dummy", "classification", ')
            ],
            "federated/data/labelling/__init__.py": [
                (
                    "from federated.data.labelling.multilabel",
                    "from federated.data.labelling.dummy import DUMMY\n"
                    "from federated.data.labelling.multilabel",
                ),
                (
                    '    "classification": CLASSES',
                    '    "dummy": DUMMY,\n    "classification": CLASSES',
                ),
            ],
            "federated/learning/__init__.py": [
                (
                    "from federated.learning.metric ",
                    "from federated.learning.dummy import DUMMY\nfrom federated.learning.metric ",
                ),
                (
                    '    "classification": CLASSIFICATION',
                    '    "dummy": DUMMY,\n    "classification": CLASSIFICATION',
                ),
            ],
        },
        5,
        """
from dataclasses import replace
import numpy as np
from federated.data.dataset import SPLITS, Dataset
from federated.data.medmnist.files import dataset_info
from federated.data.partitioning import case_counts, partition_dataset
from federated.data.tables import site_tables
from federated.learning import evaluate_here, task_of
from federated.settings.sections import EvaluationSettings, SitesSettings
info = replace(dataset_info("bloodmnist"), task="dummy")
labels = np.arange(16) % 8
images = np.random.default_rng(0).integers(0, 255, (16, 3, 28, 28), dtype="uint8")
dataset = Dataset(info, dict.fromkeys(SPLITS, images), dict.fromkeys(SPLITS, labels))
partition = partition_dataset(dataset, SitesSettings(count=2, partition="iid", min_cases=2), 0)
assert sum(case_counts(dataset, partition)["site-00"]["train"]) == 8
assert set(site_tables(dataset, partition)) == {"site-00", "site-01"}
own = {"labels": labels, "probabilities": np.eye(8)[labels]}
found = evaluate_here(
    task_of(info), {"site": {"val": own, "test": own}}, info, EvaluationSettings()
)
assert task_of(info).goal == "dummies" and found.overall["val"]["accuracy"] == 1
""",
    ),
    "metric": Addition(
        {},
        {
            "federated/learning/classification_metrics.py": [
                (
                    '    error_over_cases("loss", "round",',
                    '    metric("dummy", "round", "selects"),\n'
                    '    error_over_cases("loss", "round",',
                ),
                (
                    '        "loss": loss_sum',
                    '        "dummy": 0.5,\n        "loss": loss_sum',
                ),
            ]
        },
        1,
        'CHANGES = {"selection": {"metric": "val/dummy"}}'
        + RESOLVED
        + """
import numpy as np
from federated.learning import metrics_in
from federated.learning.classification_metrics import classification_metrics
assert classification_metrics(np.array([0, 1]), np.eye(2))["dummy"] == 0.5
assert "dummy" in metrics_in("round")
""",
    ),
}


# Runs the proofs of a JSON file one after the other, each in a folder of its own, and tells what
# each said.
PROVE = """
import json, os, sys, traceback
told = {}
for number, (kind, proof) in enumerate(json.loads(sys.stdin.read()).items()):
    os.makedirs(f"proof-{number}")
    os.chdir(f"proof-{number}")
    try:
        exec(compile(proof, kind, "exec"), {})
        told[kind] = ""
    except BaseException:
        told[kind] = traceback.format_exc()
    os.chdir("..")
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the proof of each addition said, in a library that has all of them; best "".

    No two of them touch the same file, so each is there as if it were the only one.
    """
    library = tmp_path_factory.mktemp("library")
    for package in ("federated", "models"):
        shutil.copytree(
            PROJECT / package, library / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    touched = [name for each in ADDITIONS.values() for name in (*each.new, *each.edits)]
    assert len(set(touched)) == len(touched)
    for addition in ADDITIONS.values():
        _add(addition, library)
    page = f"PAGE = {str(PROJECT / 'docs' / 'one-round.md')!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", PROVE],
        cwd=library,
        env={"PYTHONPATH": str(library), "PATH": "", "CONSILIUM_HOME": str(library / "home")},
        input=json.dumps({kind: page + each.proof for kind, each in ADDITIONS.items()}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _add(addition, library):
    for name, content in addition.new.items():
        assert not (library / name).exists()
        (library / name).write_text(content)
    for name, edits in addition.edits.items():
        text = (library / name).read_text()
        for old, new in edits:
            assert text.count(old) >= 1, old
            text = text.replace(old, new, 1)
        (library / name).write_text(text)


@pytest.mark.parametrize("kind", ADDITIONS)
def test_a_dummy_takes_no_more_files_than_this(told, kind):
    addition = ADDITIONS[kind]
    assert len(addition.new) + len(addition.edits) <= addition.most
    assert not told[kind]
