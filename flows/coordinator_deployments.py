"""`python -m flows.coordinator_deployments PARAMS RUNS`: begins a consortium's runs for Prefect.

The coordinator starts it, with the addresses of its Prefect and MLflow in the environment. A run
that somebody asks Prefect for becomes a process of its own.
"""

import sys
from pathlib import Path

from federated.configuration.params_file import experiment_names
from flows.consortium_flows import fl_round_of_sites, fl_statistics_of_sites
from flows.serve import serve_deployments

if __name__ == "__main__":
    _params, _runs = sys.argv[1:]
    serve_deployments(
        (fl_round_of_sites, fl_statistics_of_sites),
        experiment_names(Path(_params)),
        {"params": _params, "runs": _runs},
    )
