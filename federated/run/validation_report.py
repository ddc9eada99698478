"""``validation.json``: what validation has found, and what of it everyone may read.

Of a private run the shared part names the sites that fail, and how many cases each has left out.
Which rule a case breaks, which case that is, and what was found in it (file names, intensities,
how many cases a class has) stays with the site.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from federated.files import write_json

FILE = "validation.json"
WITHHELD = "this is told in the site's own report"


def write_report(report: Mapping[str, Any], shared: Path, own: Path) -> None:
    """Write the whole report into the folder ``own``, and into ``shared`` what all may read.

    Where the two are the same folder, the whole report is written into it.
    """
    if own == shared:
        write_json(shared / FILE, report)
        return
    write_json(own / FILE, report, 0o600)
    write_json(shared / FILE, shared_part(report))


def shared_part(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report without anything that depends on a single case but how many are left out."""
    dropped = report.get("dropped_cases", {})
    return {
        "on_failure": report["on_failure"],
        "failures": {site: [WITHHELD] for site in report["failures"]},
        "excluded_sites": list(report["excluded_sites"]),
        "dropped": {
            site: {split: len(cases) for split, cases in splits.items()}
            for site, splits in dropped.items()
        },
        "sites": list(report.get("sites", ())),
    }
