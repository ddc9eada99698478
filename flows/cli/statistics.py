"""statistics: what the cases of all sites are like, without seeing one."""

from pathlib import Path

from flows.cli.options import PARAMS, RUNS, ExperimentName, Params, Runs, Sets, app
from flows.cli.running import run_flow


@app.command(epilog="Example: consilium statistics hippocampus --set statistics.epsilon=2")
def statistics(
    experiment: ExperimentName, sets: Sets = None, params: Params = PARAMS, runs: Runs = RUNS
) -> None:
    """Count the training cases of all sites by a secure sum, and report what they are like."""

    def check() -> object:
        from federated.configuration.load import load_experiment
        from federated.stages.statistics import refuse_inexact

        resolved = load_experiment(experiment, sets or [], params, plans=True)
        refuse_inexact(resolved)
        return resolved

    def start() -> Path:
        from flows.site_statistics import fl_statistics

        return Path(fl_statistics(experiment, sets or [], str(params), str(runs)))

    folder = run_flow(check, start)
    from flows.describe import statistics_lines
    from flows.tables import show

    show(statistics_lines(folder))
