"""What was done in a run, in sentences: what was trained, on which data, with which protection."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from federated.learning import TASKS
from federated.provenance import UNKNOWN
from federated.report.drawing import clean
from federated.report.values import RunValues, count_of
from federated.settings.sections import Parties, Share
from federated.strategies.base import Strategy

# What each site has sent of its validation and test cases, for a person.
SHARED: Mapping[Share, str] = {
    "statistics": (
        "counts and sums over its validation and test cases, and of no case a label or a prediction"
    ),
    "sums": (
        "counts and sums over its validation and test cases, protected, so that the coordinator "
        "learned only those of all sites together"
    ),
    "metrics": "its own metrics on validation and test cases, and of how many cases they are",
    "predictions": "of every validation and test case the label and the model's prediction",
}
SOURCES = {
    "phantom": "generated images (phantoms)",
    "medmnist": "a published MedMNIST set",
    "files": "files of the sites",
}
PARTITIONS = {
    "iid": "dealt to simulated sites at random",
    "dirichlet": "dealt to simulated sites that differ in their classes (Dirichlet, β = {})",
    "pathological": "dealt to simulated sites so that each has few of the classes",
    "quantity": "dealt to simulated sites so that sites differ in size",
    "natural": "at the sites that the data themselves name",
}


def said_of(choice: Any) -> str:
    """An implementation by its name and, in the words of its module, what it does."""
    module = sys.modules[type(choice).__module__]
    sentence = _first(module.__doc__ or type(choice).__name__)
    called, _, rest = sentence.partition(": ")
    plain = "".join(c for c in called.lower() if c.isalnum())
    if rest and plain == "".join(c for c in choice.name.lower() if c.isalnum()):
        sentence = rest
    return f"{choice.name} ({_lower(sentence)})"


def _first(text: str) -> str:
    """The first line of a docstring, without its marks."""
    return text.strip().splitlines()[0].rstrip(".").replace("`", "")


def _lower(sentence: str) -> str:
    """A sentence as a part of another: a name, or a word of capitals, stays as it is."""
    word = sentence.split()[0]
    return sentence[:1].lower() + sentence[1:] if word[1:] == word[1:].lower() else sentence


def training_sentences(run: RunValues) -> list[str]:
    """What was trained, and how."""
    summary, experiment = run.summary, run.experiment
    goal = TASKS[run.info.task].goal
    rounds, sites = int(summary["rounds_done"]), list(summary["sites"])
    network = _first(type(experiment.model).__doc__ or experiment.model.name)
    began = (
        "from random weights"
        if experiment.model.init == "random"
        else "from pretrained weights (transfer.json of the run says what of them was used)"
    )
    kept = int(summary["kept_round"])
    chosen = experiment.selection
    why = (
        f"it has the best {chosen.metric} of all rounds that were evaluated"
        if chosen.keep == "best"
        else "it is the last one that was evaluated"
    )
    lost = len(summary.get("rounds_lost", ()))
    lines = [
        f"A neural network ({experiment.model.name}: {_lower(network)}) was trained for {goal} "
        f"over {count_of(len(sites), 'site')} in {count_of(rounds, 'round')}, {began}.",
        _brought_together(experiment.strategy),
        f"The model of round {kept} is kept, because {why}.",
    ]
    if lost:
        lines.append(
            f"{count_of(lost, 'round')} of these were lost: the model stayed as it was in them."
        )
    return lines


def _brought_together(strategy: Strategy) -> str:
    """How one model came of what sites have learned, or that none did."""
    if strategy.pools_cases:
        return f"It was trained on the cases of all sites together: {said_of(strategy)}."
    if not strategy.sends_updates:
        return f"No model of all sites came of it, each has its own: {said_of(strategy)}."
    return f"Sites' updates became one model by {said_of(strategy)}."


def data_sentences(run: RunValues) -> list[str]:
    """On which data, and where these were."""
    experiment, settings = run.experiment, run.experiment.data
    totals = {
        split: sum(own.get(split, 0) for own in run.cases.values())
        for split in ("train", "val", "test")
    }
    said = SOURCES[run.summary["data_source"]]
    dealt = PARTITIONS[experiment.sites.partition].format(experiment.sites.beta)
    if isinstance(experiment.runner, Parties):
        dealt = "at the sites of a consortium, which each kept their own"
    name = run.info.name
    called = name if name == settings.dataset else f"{name} ({settings.dataset})"
    lines = [
        f"{called}: {said}, {dealt}.",
        f"{count_of(totals['train'], 'training case')}, "
        f"{count_of(totals['val'], 'validation case')} and "
        f"{count_of(totals['test'], 'test case')} took part.",
    ]
    if experiment.sites.scanner_shift:
        lines.append("Each simulated site shows its images as a scanner of its own would.")
    absent = run.summary.get("classes_absent", {}).get("test", ())
    if absent:
        lines.append(f"No test case has the class {', '.join(map(str, absent))}.")
    if run.summary["data_source"] != "phantom":
        lines.append(f"Licence of the data: {run.info.licence}.")
    return lines


def protection_sentences(run: RunValues) -> list[str]:
    """What protected the sites' data on the way, and what did not."""
    experiment = run.experiment
    protection, privacy, compression = (
        experiment.protection,
        experiment.privacy,
        experiment.compression,
    )
    lines = [
        "The cases of all sites were trained on in one place, which no federation may do; this is "
        "a yardstick."
        if experiment.strategy.pools_cases
        else "No image and no mask of a training case left a site; what travelled are numbers."
    ]
    # A site that sends no update has nothing that could be protected on its way.
    if experiment.strategy.sends_updates:
        lines.append(f"Updates on their way: {said_of(protection)}.")
    hides = protection.hides_updates_from or frozenset()
    if hides == {"coordinator"}:
        lines.append(
            "A site of the run that colludes with the coordinator could read another's update."
        )
    if privacy.unit is None:
        lines.append(
            "There is no differential privacy: what a trained model remembers of its training "
            "cases has no bound in this run."
        )
    else:
        lines.append(f"Differential privacy for each {privacy.unit}: {said_of(privacy)}.")
    if compression.name != "none" or compression.bits is not None:
        bits = f" {compression.bits} bits a value." if compression.bits is not None else ""
        lines.append(f"Compression: {said_of(compression)}.{bits}")
    lines.append(f"Of its evaluation each site sent {SHARED[experiment.evaluation.share]}.")
    if run.pictures:
        lines.append("Pictures of some test cases left the sites, and are on this page.")
    return lines


def told_by_parties(run: RunValues) -> list[str]:
    """Where the numbers of a consortium's sites are from, and what its coordinator was not told.

    In a simulated run, whose sites are on the machine that made it, there is nothing to say of it.
    """
    experiment = run.experiment
    if not isinstance(experiment.runner, Parties):
        return []
    sent = SHARED[experiment.evaluation.share]
    lines = [
        "The coordinator has no case of any site, and has evaluated nothing itself. Each site "
        f"evaluated the model and sent, signed by its own key, {sent}. All metrics here "
        "follow from these messages. That they fit a site's cases nobody but that site can check.",
    ]
    unknown = [
        *([] if run.summary["data_md5"] else ["which files the sites have (their MD5)"]),
        *([] if run.validation else ["what validation found at each site"]),
    ]
    if unknown:
        lines.append(
            f"The coordinator was not told, so that it is not here: {', and '.join(unknown)}."
        )
    return lines


def left_sites(run: RunValues) -> list[tuple[str, str, str]]:
    """What left the sites: what it is, who could read it, and whether privacy bounds it."""
    experiment = run.experiment
    hides = experiment.protection.hides_updates_from or frozenset()
    readers = {
        frozenset[str](): "the coordinator, of each site",
        frozenset({"coordinator"}): "the coordinator and sites the sum; who has the run's key each",
        frozenset({"coordinator", "sites"}): "the coordinator the sum over the sites alone",
    }.get(frozenset(hides), "see protection in summary.json")
    seeded = run.private and run.summary["privacy"].get("noise") == "seeded"
    bound = "yes" if run.private and not seeded else "no"
    rows = [("updates of the model", readers, bound)]
    if experiment.strategy.pools_cases:
        rows = [("all training cases, to one place", "whoever trained on them there", "no")]
    elif not experiment.strategy.sends_updates:
        allowed = "the coordinator, of each site whose policy allows it"
        rows = [("each site's own model, at the end", allowed, "no")]
    if not (hides or run.private or experiment.strategy.pools_cases):
        loss = "the mean loss over training cases, each round"
        rows.append((loss, "the coordinator, of each site", "no"))
    if run.planned:
        what = "counts of training cases, for the plan: labels, shapes, intensities, attributes"
        noisy = experiment.statistics.epsilon is not None
        rows.append((what, f"{readers}{', with noise' if noisy else ''}", "yes" if noisy else "no"))
    share = experiment.evaluation.share
    told = {
        "statistics": ("statistics of validation and test cases", "the coordinator, of each site"),
        "sums": (
            "statistics of validation and test cases",
            "the coordinator, of all sites together",
        ),
        "metrics": ("metrics on validation and test cases", "the coordinator, of each site"),
        "predictions": ("labels and predictions of test cases", "the coordinator, of each case"),
    }[share]
    rows.append((*told, "no"))
    if experiment.evaluation.calibrates:
        kept = "a temperature or thresholds of prediction sets, of validation cases"
        rows.append((kept, "whoever has the model", "no"))
    whose = "all sites together" if share == "sums" else "each site"
    reads = f"the coordinator, of {whose}"
    if experiment.evaluation.subgroups is not None:
        rows.append(("statistics of test cases by groups of patients", reads, "no"))
    if experiment.evaluation.uncertainty != "none":
        rows.append(("sums of how masks change with images flipped", reads, "no"))
    rows.append(("numbers of cases", "the coordinator and all sites", "no"))
    if run.pictures:
        rows.append(("pictures of test cases", "whoever reads this page", "no"))
    if experiment.strategy.introduction():
        rows.append(("a style of the training images", "the coordinator and all sites", bound))
    return rows


def limits(run: RunValues) -> list[str]:
    """What this page does not show."""
    lines = []
    if run.phantom:
        lines.append("The images are phantoms. No number here says anything about patients.")
    lines += [
        "This is a result of research software. The model is no medical device, and nobody has "
        "looked at whether it is safe or useful for any patient.",
        "Test cases are of the sites that trained. How good the model is at another hospital, on "
        "another scanner or at another time is not known from this page.",
        "Intervals tell how a metric varies with the test cases that happened to be there. One "
        "run has one seed; how results vary with it is told by a comparison of several.",
    ]
    lines.append(_groups_not_shown(run))
    if not run.private:
        lines.append("Whether training cases can be told from the model was not tried in this run.")
    else:
        lines.append(
            "The privacy guarantee is about training cases. Validation and test cases are not "
            "covered by it."
        )
    return lines


def _groups_not_shown(run: RunValues) -> str:
    asked = run.experiment.evaluation.subgroups
    if asked is None:
        return (
            "How good the model is for women and men, for young and old, or for each scanner is "
            "not known: nobody asked for metrics of such groups."
        )
    named = clean(", ".join(asked))
    return (
        f"Groups of patients are those by {named}, one attribute at a time. How good the model is "
        "for other groups, or for several attributes together, is not known."
    )


def reproduce(run: RunValues) -> list[str]:
    """The commands that make the run again."""
    summary = run.summary
    overrides: Sequence[str] | None = summary.get("overrides")
    if overrides is None:
        return []
    commit = str(summary["git_commit"]).removesuffix("-dirty")
    lines = [] if commit == UNKNOWN else [f"git checkout {commit}"]
    if isinstance(run.experiment.runner, Parties):
        # It is none of what a run is compared by, and without it simulated sites would be asked.
        overrides = [*overrides, "runner.name=sites"]
    sets = "".join(f" --set {_quoted(item)}" for item in dict.fromkeys(overrides))
    return [*lines, f"consilium run {summary['experiment']}{sets}"]


def _quoted(item: str) -> str:
    """An argument for a shell."""
    from shlex import quote

    return quote(item)


def notes_on_reproduction(run: RunValues) -> list[str]:
    """What else is needed, or will differ."""
    summary: Mapping[str, Any] = run.summary
    notes = []
    if str(summary["git_commit"]).endswith("-dirty"):
        notes.append("The code had changes that are not in this commit, so it may not come out.")
    if summary["git_commit"] == UNKNOWN:
        notes.append(
            "Which commit the program was of is not known: it was installed, and not from a "
            "repository. Its version is among the facts."
        )
    if summary.get("overrides") is None:
        notes.append(
            "The settings are in config.json of the run's folder; params.yaml has no such entry."
        )
    if run.private and run.summary["privacy"].get("noise") == "secret":
        notes.append("Noise is fresh in every run: weights and metrics will differ by it.")
    if summary["privacy"].get("noise") == "seeded":
        notes.append("Noise follows the seed, so the run can be repeated, and protects nobody.")
    if isinstance(run.experiment.runner, Parties):
        notes.append("It needs the sites of the consortium, with the data that they had.")
    return notes
