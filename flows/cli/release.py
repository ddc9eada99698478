"""release, verify: a registered model with all that a reviewer needs, in one signed folder."""

from pathlib import Path
from typing import Annotated

import typer

from federated.errors import printable
from flows.cli.options import app
from flows.cli.telling import stage, tell


@app.command(epilog="Example: consilium release hippocampus@champion --out dossier")
def release(
    model: Annotated[str, typer.Argument(help="NAME@ALIAS or NAME@VERSION in the registry.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    licence: Annotated[
        str | None, typer.Option(help="Under which the weights are released, as CC-BY-4.0.")
    ] = None,
    attacks: Annotated[
        Path | None, typer.Option(help="A text of what attacks on this model have found.")
    ] = None,
) -> None:
    """Write a registered model with its card, ONNX, a MONAI bundle, hashes and a signature.

    The coordinator of the model's run signs. Send its fingerprint to the reviewer by another way.
    """
    stage(f"reading the model {model} and its run …")
    from tasks.release import release as make

    made = make(model, out, licence, attacks, stage)
    for paragraph in (*made.left_out, made.registry):
        if paragraph:
            tell(f"Note: {paragraph}")
    count = len(made.manifest.files)
    tell(f"{out}: {count} files, signed by {made.manifest.signer.fingerprint}")


@app.command(epilog="Example: consilium verify dossier")
def verify(
    folder: Annotated[Path, typer.Argument(help="The folder of a dossier.")],
    key: Annotated[
        str | None, typer.Option(help="The fingerprint of the coordinator that was to sign it.")
    ] = None,
) -> None:
    """Check that a dossier is as it was signed: no byte changed, nothing missing, nothing added."""
    from tasks.release_folder import verify_folder

    manifest = verify_folder(folder, key)
    known = (
        "That is the key that you named."
        if key
        else "Whose key that is this command cannot know: compare the fingerprint with one that "
        "the coordinator has told you in another way, or give that one with --key."
    )
    named, version, run = (
        printable(text, 100) for text in (manifest.name, manifest.version, manifest.run_id)
    )
    # What only a key's owner can have comes first, and what whoever signed has written last.
    tell(
        f"{folder} is as it was signed by the key with the fingerprint "
        f"{manifest.signer.fingerprint}. {known} It has {len(manifest.files)} files, and says that "
        f"it is of the model {named}, version {version}, of run {run}."
    )
