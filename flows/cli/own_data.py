"""data init, data check: bringing data of one's own."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import Program, app
from flows.cli.telling import stage

data_app = Program(
    no_args_is_help=True,
    help="Data of your own: describe them, check them.",
    epilog="Example: consilium data init data/sarcoma",
)
app.add_typer(data_app, name="data")

Folder = Annotated[Path, typer.Argument(help="The data set's folder; its name is the set's.")]


@data_app.command(epilog="Example: consilium data init data/sarcoma")
def init(folder: Folder) -> None:
    """Look at a folder, and propose its dataset.yaml and, where it has no table, cases.csv.

    What is there already is never changed. What was guessed is said.
    """
    from flows.own_data import init as propose_files

    console = Console()
    stage(f"looking at {folder} …")
    for line in propose_files(folder):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


@data_app.command(epilog="Example: consilium data check data/sarcoma --out sarcoma-check")
def check(
    folder: Folder,
    out: Annotated[
        Path, typer.Option(help="Write thumbnails, which show patients, and the report here.")
    ] = Path("data-check"),
) -> None:
    """Check a folder as a run would, with counts, spacings and thumbnails of each site."""
    stage(f"reading {folder} …")
    from flows.own_data import (
        FACTS,
        counts,
        described_by,
        facts,
        identifiers,
        look,
        verdict,
        write_sheet,
        written_to,
    )
    from flows.tables import show, table
    from tasks.validate import validate

    looked = look(folder)
    show([described_by(folder), table(FACTS, counts(looked)), *facts(looked), *identifiers(looked)])
    stage("drawing thumbnails …")
    write_sheet(looked, out)
    show([written_to(out)])
    stage("checking every case …")
    validate.fn(looked.experiment, looked.dataset, looked.partition, out)
    show(verdict(folder, out))
