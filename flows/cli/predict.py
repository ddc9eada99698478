"""predict: what a trained model predicts of files."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import app


@app.command(
    epilog="Example: consilium predict --model hippocampus@champion --out masks scan.nii.gz"
)
def predict(
    files: Annotated[
        list[Path], typer.Argument(help="NIfTI, pictures or .npz; a folder for each case of brain.")
    ],
    model: Annotated[
        str, typer.Option(help="NAME@ALIAS or NAME/VERSION in the registry, or a file.")
    ],
    out: Annotated[Path, typer.Option(help="Write masks, or probabilities.csv, here.")],
    site: Annotated[
        str | None, typer.Option(help="Whose model, where each site has its own.")
    ] = None,
) -> None:
    """Predict files: masks on each file's own grid, or class probabilities as CSV."""
    from federated.files import require_writable
    from federated.inference.prediction import predict_files
    from tasks.registered_model import registered_weights

    console = Console()
    require_writable(out, "--out", private=False)
    weights, whose = registered_weights(model)
    for path in predict_files(weights, files, out, site or whose):
        console.print(path, soft_wrap=True, highlight=False)
