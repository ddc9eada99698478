"""A proposal as text: ``dataset.yaml``, ``cases.csv``, and an experiment to begin with."""

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from federated.data.folders.described.doubt import unnamed
from federated.settings.description import Description

# What stands above the things that a person has to look at, and before each of them.
PROPOSED = "# Proposed by `consilium data init`. To be looked at:"
ANSWERED = "# (`consilium data check` counts these lines: take out each that is settled)"
UNSURE = "# - "


def description_text(description: Mapping[str, Any], doubts: Sequence[str]) -> str:
    """``dataset.yaml`` with a key a line, and before them as comments what is unsure.

    The file is not for one site alone: comments have no names of files or folders.
    """
    lines = [PROPOSED, ANSWERED] if doubts else ["# Proposed by `consilium data init`."]
    lines += [f"{UNSURE}{' '.join(unnamed(doubt).split())}" for doubt in doubts]
    for key, value in description.items():
        if isinstance(value, Mapping) and value:
            lines.append(f"{key}:")
            lines += [f"  {_plain(name)}: {_plain(inner)}" for name, inner in value.items()]
        else:
            lines.append(f"{key}: {_plain(value)}")
    return "\n".join(lines) + "\n"


def open_doubts(text: str) -> list[str]:
    """What :func:`description_text` has said to be unsure and nobody has taken out since."""
    lines = text.splitlines()
    if not any(line.startswith(PROPOSED) for line in lines):
        return []
    found = [line.removeprefix(UNSURE).strip() for line in lines if line.startswith(UNSURE)]
    return [doubt for doubt in found if doubt != "nothing that was seen"]


def table_text(rows: Sequence[Mapping[str, str]]) -> str:
    """``cases.csv`` with a line a case."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# What an experiment has to state, and what is printed where the parameter file has no default.
STATED = {"strategy": "fedavg", "privacy": "none", "compression": "none", "protection": "plain"}


def experiment_text(
    name: str, description: Description, sites: int, defaults: Collection[str] = ()
) -> str:
    """An entry of ``experiments:`` in params.yaml for a described set, to begin with.

    Args:
        name: the data set's, which the experiment gets too.
        description: what it is, with numbers in place of ``auto``.
        sites: how many sites its table names; 0 where it names none.
        defaults: the sections that params.yaml has a default for. What an experiment has to state
            is a part of the entry where it is none of these, and never lies over one of them.
    """
    natural = "natural" if sites else "iid"
    dealt = f"{{count: {sites or 3}, partition: {natural}, min_cases: 2}}"
    # A site of few cases has no typical size that one of them could be far from.
    judged = "{outlier: 12}" if description.segments else "{}"
    common = f"    sites: {dealt}\n    validate: {judged}"
    for section, choice in STATED.items():
        if section not in defaults:
            common += f"\n    {section}: {{name: {choice}}}"
    data = f"    data: {{dataset: {name}, source: files}}"
    if description.segments:
        patches = "" if description.passes_whole else ", patches_per_case: 4"
        return (
            f"  {name}:\n    seed: 0\n    rounds: 20\n"
            "    model: {name: unet, norm: instance, width: 8}\n"
            "    training: {lr: 3.0e-3, schedule: cosine, batch_size: 4, local_epochs: 1"
            f"{patches}}}\n"
            "    selection: {metric: val/dice, keep: last, every: 5}\n"
            f"{data}\n{common}\n"
        )
    judge = "    selection: {metric: val/r2}\n" if description.task == "regression" else ""
    return f"  {name}:\n    seed: 0\n    rounds: 20\n{judge}{data}\n{common}\n"


def _plain(value: Any) -> str:
    """A value as YAML of one line that JSON is too; simple words without quotes."""
    if isinstance(value, str) and value.isidentifier() and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


# What YAML reads as something else than text.
WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf")
