"""`python -m flows.coordinator_deployments PARAMS RUNS`: begins a consortium's runs for Prefect.

The coordinator starts it, with the addresses of its Prefect and MLflow in the environment. A run
that somebody asks Prefect for becomes a process of its own.
"""

import sys
from pathlib import Path

from federated.configuration.params_file import experiment_names
from flows.serve import serve_deployments

# What makes a run one of the consortium's sites. Whoever gives other overrides repeats it.
OF_SITES = "runner.name=sites"

if __name__ == "__main__":
    _params, _runs = sys.argv[1:]
    serve_deployments(
        experiment_names(Path(_params)),
        {"params": _params, "runs": _runs, "overrides": [OF_SITES]},
    )
