"""predict: what a trained model predicts of files."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from federated.data.folders.dicom.rules import OnUnevenGrid
from flows.cli.options import app
from flows.cli.telling import stage, tell


@app.command(
    epilog="Example: consilium predict --model hippocampus@champion --out masks scan.nii.gz"
)
def predict(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="NIfTI, DICOM series (folders), pictures or .npz; a folder for each case of brain."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="NAME@ALIAS or NAME@VERSION in the registry, or a file.")
    ],
    out: Annotated[Path, typer.Option(help="Write masks, or probabilities.csv, here.")],
    site: Annotated[
        str | None,
        typer.Option(help="Whose model, where sites have their own; whose prediction sets."),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(help="Of several DICOM series in a folder, the number or UID of one."),
    ] = None,
    uneven: Annotated[
        OnUnevenGrid, typer.Option(help="What to do with DICOM slices at uneven distances.")
    ] = "refuse",
    tilted: Annotated[
        OnUnevenGrid, typer.Option(help="What to do with DICOM slices of a tilted gantry.")
    ] = "refuse",
    uncertainty: Annotated[
        bool, typer.Option(help="Beside each mask, how its probabilities vary over flips.")
    ] = False,
) -> None:
    """Predict files: masks on each file's own grid, or class probabilities as CSV.

    A classifier with a temperature gives calibrated probabilities, and one with prediction sets
    the set of each image beside them.

    A DICOM series gives a DICOM-SEG that refers to its slices, beside a NIfTI file.
    """
    stage(f"reading the model {model} …")
    from federated.data.folders.dicom.algorithm import Algorithm
    from federated.data.folders.dicom.rules import DicomRules
    from federated.files import writable_folder
    from federated.inference.prediction import predict_files, results_there
    from federated.weights.model_file import personal_sites, read_header
    from tasks.registered_model import registered_weights

    console = Console()
    with writable_folder(out, "--out"):
        found = registered_weights(model)
        by = Algorithm(found.name, found.version) if found.name and found.version else None
        dicom = DicomRules(series, uneven, tilted)
        whose = site or found.site
        header = read_header(found.path)
        calibration = header.calibration
        if header.data_source == "phantom":
            tell(
                "Note: this model was trained on phantoms, which are generated images. What it "
                "says means nothing for any patient."
            )
        if there := results_there(header, files, out):
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            tell(f"Note: what an earlier prediction left there is replaced: {there[0]}{more}.")
        if calibration and (note := calibration.note(whose)):
            tell(f"Note: {note}")
        elif site and not personal_sites(found.path) and not (calibration and calibration.sites):
            tell(f"Note: --site={site} changes nothing: this model is one for all sites.")
        given = "1 file" if len(files) == 1 else f"{len(files)} files"
        stage(f"predicting {given} or {'folder' if len(files) == 1 else 'folders'} …")
        for path in predict_files(found.path, files, out, whose, by, dicom, uncertainty):
            console.print(path, soft_wrap=True, highlight=False)
