"""A model card: what a reader has to know of a released model, as text, tables and lists.

It is a value, from which Markdown and a page are made; what it says of the run is what the run's
report says, in the same words.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from federated.learning import TASKS
from federated.provenance import told_commit
from federated.release.card_blocks import (
    NOT_RUN,
    Block,
    Card,
    Commands,
    Items,
    Section,
    Table,
    Text,
    plain,
    plains,
    texts,
)
from federated.release.card_calibration import calibration_blocks
from federated.release.card_groups import flip_blocks, group_blocks
from federated.release.exported import gives
from federated.release.exported import takes as network_takes
from federated.report import words
from federated.report.drawing import clean
from federated.report.evaluation_part import bound_lines, class_rows, metric_rows
from federated.report.figures import listed_sites, title_of
from federated.report.findings import absences, collapsed
from federated.report.guarantee import NO_PRIVACY
from federated.report.intervals import NONE as NO_INTERVALS
from federated.report.intervals import Intervals, intervals_of
from federated.report.population import population_of
from federated.report.privacy_part import privacy_part
from federated.report.values import Numbers, RunValues, count_of
from federated.weights.model_file import ModelHeader


@dataclass(frozen=True)
class ReleasedModel:
    """What is released.

    Attributes:
        name: of the model in the registry.
        version: its version there.
        aliases: of that version.
        site: whose own model it is; ``None`` where all sites share it.
        header: the model's.
        parameters: how many numbers were trained.
        licence: under which the weights are released; ``None`` where nobody has said it.
        attacks: what attacks on this model have found, as somebody has written it down; ``None``
            where nobody has attacked it.
        formats: for each file of the model what it is and how it was checked, or that the model
            cannot be written so, and why.
        fingerprint: of the key that signs the dossier.
    """

    name: str
    version: str
    aliases: Sequence[str]
    site: str | None
    header: ModelHeader
    parameters: int
    licence: str | None
    attacks: str | None
    formats: Sequence[tuple[str, str]]
    fingerprint: str


def card_of(run: RunValues, model: ReleasedModel) -> Card:
    """The card of a model that a run has trained.

    Args:
        run: the run's values.
        model: what is released of it.
    """
    numbers = Numbers(run.summary)
    intervals = (
        intervals_of(run.statistics, run.info, int(run.summary["seed"]))
        if run.statistics is not None
        else NO_INTERVALS
    )
    first = []
    if run.phantom:
        first.append(
            Text(
                "The data are a phantom: images that a program has generated. No number here says "
                "anything about patients, and the model is of no use on theirs.",
                warns=True,
            )
        )
    first.append(
        Text("This is a model of research software. It is no medical device.", warns=not first)
    )
    return Card(
        clean(f"Model card: {model.name}, version {model.version}"),
        first,
        [
            Section("The model", _model(run, model)),
            Section("What it is for", _use(run, model.header)),
            Section("Data", _data(run)),
            Section("Training", texts(words.training_sentences(run))),
            Section("How good it is", _quality(run, model, numbers, intervals)),
            Section("Sites", _sites(run, model, numbers)),
            Section("Groups of patients", group_blocks(run, numbers)),
            Section("Calibration", calibration_blocks(run, numbers, intervals)),
            Section("Privacy", _privacy(run, numbers)),
            Section("Attacks on this model", _attacks(model)),
            Section("Limits", [Items(words.limits(run))]),
            Section("Licence", _licence(run, model)),
            Section("Files of the model, and how they were checked", _formats(model)),
            Section("How it was made, and how to make it again", _again(run)),
            Section("Who has signed this dossier", _signed(model)),
        ],
    )


def _model(run: RunValues, model: ReleasedModel) -> list[Block]:
    summary, header = run.summary, model.header
    rows = [
        ("model", f"{model.name}, version {model.version}"),
        ("aliases", ", ".join(model.aliases) or "none"),
        ("whose", f"{model.site}'s own" if model.site else "all sites'"),
        ("learned", TASKS[header.goal()].goal),
        ("network", header.network.name),
        ("parameters", count_of(model.parameters, "number")),
        ("run", f"{summary['experiment']} {summary['run_id']}"),
        ("data", f"{run.info.name} ({words.SOURCES[summary['data_source']]})"),
        ("licence of the weights", model.licence or "not stated"),
    ]
    return [Table("The model", ("", ""), [(name, plain(text)) for name, text in rows])]


def _use(run: RunValues, header: ModelHeader) -> list[Block]:
    goal, family = TASKS[header.goal()].goal, header.family()
    kind = "volumes" if header.dims == 3 else "pictures"
    takes = f"It takes {kind} with {count_of(header.channels, 'channel')}"
    if family is None:
        takes += f", of {_times(header.image_shape()[1:])}, as {network_takes(header)}"
    else:
        if family.spacing:
            takes += f", which are resampled to {_times(family.spacing)} mm"
        takes += f"; the network sees {_times(family.shape)} at once"
        scale = (
            "clipped to Hounsfield units of {:g} to {:g}".format(*family.window)
            if family.window
            else f"brought to a standard scale ({header.harmonise})"
            if header.harmonise != "none"
            else "given zero mean and unit variance in each image"
        )
        takes += f". Intensities are {scale}"
    return [
        Text(
            f"For research on {goal} of images like those that it was trained on, "
            f"{plain(run.info.name)}. It may not be used to decide anything about a patient."
        ),
        Text(f"{takes}. It gives {gives(header)}."),
        Text(f"It tells apart: {', '.join(map(plain, header.class_names()))}."),
    ]


def _times(sides: Sequence[float]) -> str:
    return " x ".join(f"{side:g}" for side in sides)


def _data(run: RunValues) -> list[Block]:
    blocks = texts(words.data_sentences(run))
    if lines := absences(run):
        blocks.append(Items([plain(line) for line in lines]))
    population = population_of(run)
    if population is None:
        return [*blocks, Text("Nobody has counted of whom the training cases are.")]
    blocks.append(Text(population.note))
    return [
        *blocks,
        *(
            Table(group.name, (group.name, "training cases"), [plains(row) for row in group.rows])
            for group in population.groups
        ),
    ]


def _quality(
    run: RunValues, model: ReleasedModel, numbers: Numbers, intervals: Intervals
) -> list[Block]:
    rows = [
        plains((row["name"], row["test"], row["interval"] or "–", row["val"], row["better"]))
        for row in metric_rows(run, numbers, intervals)
    ]
    heads = ("metric", "test", "95 % interval", "validation", "better is")
    blocks: list[Block] = []
    if model.site:
        blocks.append(
            Text(
                "Metrics over all sites are those of all sites' own models together; the row of "
                f"{plain(model.site)} under Sites is of this one."
            )
        )
    else:
        blocks += [Text(plain(line), warns=True) for line in collapsed(run)]
    blocks.append(Table("Metrics over the cases of all sites", heads, rows))
    of_classes = class_rows(run, numbers, intervals)
    if of_classes is not None:
        each = [
            plains((row["name"], *(_with_interval(cell) for cell in row["cells"])))
            for row in of_classes["rows"]
        ]
        blocks.append(Table("Test cases, by class", ("class", *of_classes["heads"]), each))
    blocks += texts([*bound_lines(run, numbers), *intervals.how])
    if not intervals.of:
        blocks.append(Text("Intervals are not known: sites have told no statistics of test cases."))
    blocks += flip_blocks(run, numbers)
    return blocks


def _with_interval(cell: Mapping[str, Any]) -> str:
    value = plain(cell["value"])
    return f"{value} ({cell['interval']})" if cell["interval"] else value


def _sites(run: RunValues, model: ReleasedModel, numbers: Numbers) -> list[Block]:
    task = TASKS[run.info.task]
    names = [
        name
        for name in task.metrics_in("site")
        if any(
            numbers.at("per_site", site, "test", name) is not None for site in run.summary["sites"]
        )
    ]
    rows = []
    shown, note = listed_sites(run)
    released = model.site
    if released is not None and released in run.summary["sites"] and released not in shown:
        shown.append(released)
    for site in shown:
        own = [numbers("per_site", site, "test", name) for name in names]
        counts = [run.cases.get(site, {}).get(split, "–") for split in ("train", "val", "test")]
        marked = f"{site} (this model)" if site == model.site else site
        rows.append(plains((marked, *counts, *own)))
    heads = (
        "site",
        "training",
        "validation",
        "test",
        *(title_of(n, run.info.task, run.info.dims) for n in names),
    )
    blocks = [*texts(words.told_by_parties(run))]
    blocks.append(Table("Cases, and metrics of test cases, by site", heads, rows))
    blocks += [Text(note)] if note else []
    if not names:
        blocks.append(
            Text("Sites tell no metrics of their own; they are in those of all sites together.")
        )
    return blocks


def _privacy(run: RunValues, numbers: Numbers) -> list[Block]:
    part = privacy_part(run, numbers)
    blocks = texts(words.protection_sentences(run))
    if part is None:
        blocks.insert(0, Text(" ".join(NO_PRIVACY), warns=True))
    else:
        said = part["words"]
        if said.warning:
            blocks.insert(
                0, Text(f"{said.warning} The ε is what fresh noise would have had.", True)
            )
        blocks.append(Text(plain(said.opening), warns=not part["known"]))
        if said.bounds:
            bounds = [plain(_raised(line)) for line in said.bounds]
            blocks += [Text(f"What that means. {said.question}"), Items(bounds)]
        blocks += texts([*said.notes, *part["patient"]])
        rows = [plains((row["name"], *row["cells"])) for row in part["rows"]]
        blocks.append(Table("Privacy spent at each site", ("site", *part["heads"]), rows))
        blocks += [Text(part["note"])] if part["note"] else []
        if part["unreported"]:
            blocks.append(Text(f"Not told, or not believed: {part['unreported']}."))
        blocks += [Text("The guarantee rests on this:"), Items(plains(said.rests_on))]
    rows = [plains(row) for row in words.left_sites(run)]
    heads = ("what left the sites", "who can read it", "bounded by differential privacy")
    return [*blocks, Table("What left the sites", heads, rows)]


def _raised(line: Markup) -> Markup:
    """A line in which what is raised on a page can be told from what is not."""
    return Markup(str(line).replace("<sup>", "^").replace("</sup>", ""))  # noqa: S704 - our own


def _attacks(model: ReleasedModel) -> list[Block]:
    if model.attacks is None:
        return [
            Text(
                f"{NOT_RUN} Nobody has tried to tell from this model whether a case was in its "
                "training, or to make training images of it again. Attacks on updates of other "
                "models of this software are measured in its docs/privacy.md; they say nothing of "
                "this one."
            )
        ]
    paragraphs = [" ".join(each.split()) for each in re.split(r"\r?\n\s*\n", model.attacks)]
    return [Text("As told by who has released it:"), *texts(list(filter(None, paragraphs)))]


def _licence(run: RunValues, model: ReleasedModel) -> list[Block]:
    stated = (
        f"The weights are released under: {plain(model.licence)}."
        if model.licence
        else "Under which licence the weights are released is not stated. Without one nobody may "
        "use them but by agreement with who has released them."
    )
    return [
        Text(stated),
        Text(
            "The images that it was trained on were drawn by a program and have no licence."
            if run.summary["data_source"] == "phantom"
            else f"Licence of the data that it was trained on: {plain(run.info.licence)}. Whether "
            "it binds the weights too is for who releases them to judge."
        ),
        Text("The program, of which the bundle needs parts, is under Apache-2.0."),
    ]


def _formats(model: ReleasedModel) -> list[Block]:
    rows = [plains(row) for row in model.formats]
    return [Table("Files of the model", ("file", "what it is"), rows)]


def _again(run: RunValues) -> list[Block]:
    summary = run.summary
    facts = [
        ("seed", str(summary["seed"])),
        ("MD5 of the data", summary["data_md5"] or "not told: they are the sites' own"),
        ("commit", told_commit(summary["git_commit"], summary.get("versions", {}))),
        *summary.get("versions", {}).items(),
    ]
    blocks: list[Block] = []
    if commands := words.reproduce(run):
        blocks.append(Commands([clean(line) for line in commands]))
    blocks += texts(words.notes_on_reproduction(run))
    return [*blocks, Table("Where it comes from", ("", ""), [plains(row) for row in facts])]


def _signed(model: ReleasedModel) -> list[Block]:
    return [
        Text(
            "manifest.json has the SHA-256 of every other file, and manifest.json.sig the "
            f"signature of the coordinator whose key has the fingerprint {model.fingerprint}."
        ),
        Text(
            "Check the dossier with the next command, and compare this fingerprint with one that "
            "the coordinator has told you in another way: whoever changes a dossier can sign it "
            "with a key of their own, and write that key's fingerprint here."
        ),
        Commands([f'consilium verify . --key "{model.fingerprint}"']),
    ]
