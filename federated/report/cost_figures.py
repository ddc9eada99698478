"""The figures of what a run has cost: privacy, bytes and time."""

from federated.report.charts import Bar, Frame, Line, bar_chart, line_chart
from federated.report.drawing import Text, clean
from federated.report.epsilon import power
from federated.report.figures import MOST_SMALL, Figure, few_names
from federated.report.values import RunValues, is_number, size_of, time_of

STAGE_NAMES = {
    "advertise": "exchange of keys",
    "share": "sharing of secrets",
    "style": "styles",
    "local_train": "training",
    "compress": "compression",
    "protect": "protection",
    "aggregate": "summing up",
    "unmask": "unmasking",
    "decrypt": "decryption",
    "evaluate": "evaluation",
}


def privacy_bars(run: RunValues) -> Figure | None:
    """The ε that each site has spent in the run."""
    per_site = run.summary["privacy"].get("per_site", {})
    told = {s: own["epsilon"] for s, own in per_site.items() if own.get("epsilon") is not None}
    spent = {site: value for site, value in told.items() if is_number(value)}
    unbounded = few_names([site for site in told if site not in spent])
    if not spent:
        return None
    shown = list(spent.items())
    if len(shown) > MOST_SMALL:
        shown = sorted(shown, key=lambda item: -item[1])[:MOST_SMALL]
    bars = [Bar(site, value, f"{value:.3g}") for site, value in shown]
    budgets = {own["budget"] for own in per_site.values() if is_number(own["budget"])}
    limit = budgets.pop() if len(budgets) == 1 else None
    all_ = len(shown) == len(spent)
    which = "each site" if all_ else f"the {len(shown)} sites that have spent most"
    text = Text(
        "epsilon-sites",
        "ε that each site has spent in this run",
        "; ".join(f"{clean(site)} {value:.3g}" for site, value in shown)
        + (f". The budget of each is {limit:g}." if limit is not None else "."),
    )
    said = " The line is the budget." if limit is not None else ""
    said += f" Without a bound, and not drawn: {unbounded}." if unbounded else ""
    return Figure(bar_chart(text, bars, limit), f"ε spent by {which}, composed over the run.{said}")


def attack_figure(epsilon: float, delta: float) -> Figure:
    """The power that an attacker's test has at most, against its false alarms."""
    steps = [number / 100 for number in range(101)]
    bound = [(alarms, power(epsilon, delta, alarms)) for alarms in steps]
    text = Text(
        "attack",
        f"What ε {epsilon:.3g} lets an attacker do at most",
        "The share of training units that any test recognises, at most, against the share of "
        "others that it wrongly accuses: "
        + "; ".join(f"{power(epsilon, delta, a):.1%} at {a:.0%}" for a in (0.01, 0.05, 0.1, 0.5))
        + ". The diagonal is guessing.",
    )
    frame = Frame((0, 1), (0, 1), "wrongly accused", "recognised, at most")
    lines = [Line("guessing", [(0, 0), (1, 1)], muted=True), Line("bound", bound)]
    return Figure(
        line_chart(text, frame, lines),
        "The bound on any attack that follows from ε and δ alone; the grey line is guessing. It "
        "says nothing of how good known attacks are.",
    )


def byte_bars(run: RunValues) -> Figure:
    """The bytes that travelled, beside what dense updates would have taken."""
    sizes = run.summary["bytes"]
    names = {"up": "up, from sites", "down": "down, to sites", "up_dense_float32": "up, if dense"}
    bars = [
        Bar(name, float(sizes[key]), size_of(sizes[key]), 2 if key == "up_dense_float32" else 0)
        for key, name in names.items()
    ]
    return _bars_said(
        "bytes",
        "Bytes that travelled in all rounds",
        bars,
        "Bytes of all sites in all rounds. “If dense” is what whole updates of 32 bits a value "
        "would have taken.",
    )


def _bars_said(name: str, title: str, bars: list[Bar], caption: str) -> Figure:
    """Bars, each of which is said in the text that stands for the figure."""
    said = "; ".join(f"{bar.name}: {bar.said}" for bar in bars) + "."
    return Figure(bar_chart(Text(name, title, said), bars), caption)


def time_bars(run: RunValues) -> Figure | None:
    """Wall-clock seconds by stage; nothing for a private run, whose times are not told."""
    seconds = run.summary["seconds"]
    rows = [(name, seconds.get(key)) for key, name in STAGE_NAMES.items()]
    known = [(name, float(value)) for name, value in rows if is_number(value) and value]
    if not known:
        return None
    startup = [
        (f"start: {key}", float(value))
        for key, value in seconds["startup"].items()
        if is_number(value) and value
    ]
    bars = [Bar(name, value, time_of(value)) for name, value in known]
    bars += [Bar(name, value, time_of(value), 2) for name, value in startup]
    return _bars_said(
        "times",
        "Time of each stage, in which at least one site was in it",
        bars,
        "Wall-clock time in which at least one site was in a stage, over all rounds; stages of "
        "different sites overlap.",
    )
