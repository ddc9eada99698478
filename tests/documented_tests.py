"""Which test executes each command that README and docs show.

A command is known by its words. The test runs it with data of its own: a few small cases, and an
experiment of the name that it has there. What else stands in a documented command, its experiment
and its settings, is read and resolved for every place where it is documented
(`test_documented_commands.py`).
"""

CLI = "tests/flows/test_cli.py"
PAGES = "tests/flows/test_documented_pages.py::test_a_page_leads_through_its_commands"
CONSORTIUM = (
    "tests/system/test_consortium_docs.py::test_the_page_leads_from_nothing_to_a_registered_model"
)

OTHERS = "tests/flows/test_documented_pages.py::test_commands_that_no_page_leads_through"
AT_REST = "tests/flows/test_documented_pages.py::test_commands_of_a_consortium_that_begin_nothing"
DVC = "tests/system/test_dvc.py::test_the_pipeline_is_reproducible through dvc.yaml"

EXECUTED = {
    "run": PAGES,
    "resume": "tests/system/test_kill_and_resume.py::test_a_killed_run_resumes_to_the_same_weights",
    "pause": OTHERS,
    "compare": PAGES,
    "pretrain": DVC,
    "prepare": DVC,
    "evaluate": DVC,
    "predict": OTHERS,
    "report": OTHERS,
    "release": OTHERS,
    "verify": OTHERS,
    "watch": OTHERS,
    "statistics": OTHERS,
    "doctor": PAGES,
    "serve": "tests/system/test_deployments.py::test_serve_offers_every_experiment_and_both_pages",
    "data init": OTHERS,
    "data check": OTHERS,
    "keys show": f"{CLI}::test_keys_of_a_stopped_run_are_shown_and_erased",
    "keys erase": f"{CLI}::test_keys_of_a_stopped_run_are_shown_and_erased",
    "ledger show": PAGES,
    "ledger budget": PAGES,
    "ledger verify": PAGES,
    "ledger migrate": f"{CLI}::test_an_old_ledger_is_taken_over_by_any_command",
    "sites show": PAGES,
    "sites join": OTHERS,
    "sites enrol": CONSORTIUM,
    "sites list": CONSORTIUM,
    "sites suspend": AT_REST,
    "sites remove": AT_REST,
    "consortium up": "tests/system/test_consortium_up.py"
    "::test_one_command_runs_a_consortium_of_processes_and_leaves_none",
    "coordinator init": CONSORTIUM,
    "coordinator start": CONSORTIUM,
    "coordinator status": CONSORTIUM,
    "site init": CONSORTIUM,
    "site check": CONSORTIUM,
    "site start": CONSORTIUM,
    "site status": CONSORTIUM,
    "site pause": AT_REST,
    "site resume": AT_REST,
    "site show": OTHERS,
    "site approve": OTHERS,
    "site refuse": OTHERS,
}
