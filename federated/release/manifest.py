"""What a dossier holds, file by file, and who vouches for that.

``manifest.json`` has the SHA-256 and the size of every other file, and the public key of who signs.
``manifest.json.sig`` is the Ed25519 signature, 64 bytes, over :data:`CONTEXT` and the manifest's
bytes. A signature says that whoever has the key has released these bytes; whose key it is, a person
learns over another channel, by its fingerprint.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from federated.errors import ConsiliumError, printable
from federated.exchange.identity import Identity, PublicIdentity

MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
FORM = "consilium release v1"
# Before what is signed: no message between parties begins with it.
CONTEXT = b"consilium signed release v1\x00"
SHA256_DIGITS = 64
# In bytes; of a dossier's twenty files it has some four thousand.
MOST_MANIFEST = 2**20
# How many files of a kind are named where something is wrong with them.
NAMED = 5


@dataclass(frozen=True)
class FileFact:
    """The size of a file in bytes, and its SHA-256 as hexadecimal digits."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a dossier holds.

    Attributes:
        name: of the model in the registry.
        version: its version there.
        run_id: the run that trained it.
        signer: who signs.
        files: every file but manifest and signature, by its path in the dossier.
    """

    name: str
    version: str
    run_id: str
    signer: PublicIdentity
    files: Mapping[str, FileFact]

    def to_bytes(self) -> bytes:
        """The content of ``manifest.json``."""
        value = {
            "form": FORM,
            "model": self.name,
            "version": self.version,
            "run_id": self.run_id,
            "signer": self.signer.to_json(),
            "files": {
                path: {"bytes": fact.size, "sha256": fact.sha256}
                for path, fact in sorted(self.files.items())
            },
        }
        return (json.dumps(value, indent=2) + "\n").encode()

    @staticmethod
    def from_bytes(content: bytes, where: str) -> "Manifest":
        """The manifest that :meth:`to_bytes` gave; ``where`` is for the message.

        Raises:
            ConsiliumError: the content is something else.
        """
        try:
            value = json.loads(content)
            if value["form"] != FORM:
                raise ValueError("it is of another form")
            told = (value["model"], value["version"], value["run_id"])
            if not all(isinstance(text, str) for text in told):
                raise ValueError("a name in it is no text")
            files = {path: _fact(path, each) for path, each in value["files"].items()}
            signer = PublicIdentity.from_json(value["signer"], where)
            return Manifest(*told, signer, files)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConsiliumError(
                f"{where} is no manifest of a dossier: it is damaged, or was not written by "
                "`consilium release`. Get the dossier again from who has made it."
            ) from error


def _fact(path: str, value: Any) -> FileFact:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
        raise ValueError("a path leads out of the dossier")
    size, digest = value["bytes"], value["sha256"]
    if type(size) is not int or not isinstance(digest, str) or len(digest) != SHA256_DIGITS:
        raise ValueError("a file's facts have another form")
    return FileFact(size, digest)


def signed(manifest: Manifest, identity: Identity) -> tuple[bytes, bytes]:
    """The contents of ``manifest.json`` and ``manifest.json.sig``.

    Args:
        manifest: which names the identity as its signer.
        identity: with its private key.

    Raises:
        ValueError: the manifest names another signer.
    """
    if manifest.signer != identity.public:
        raise ValueError("the manifest names another signer")
    content = manifest.to_bytes()
    return content, identity.sign(CONTEXT + content)


def check(content: bytes, signature: bytes, key: str | None) -> Manifest:
    """Check who vouches for a manifest, and that it is as they have signed it.

    Args:
        content: of ``manifest.json``.
        signature: of ``manifest.json.sig``.
        key: the fingerprint that the signer is known by, with or without spaces; ``None`` where
            nobody has told it.

    Returns:
        The manifest. Whether the files are as it says, :func:`refuse_other_files` finds.

    Raises:
        ConsiliumError: it is no manifest, of another signer, or not as it was signed.
    """
    manifest = Manifest.from_bytes(content, MANIFEST)
    signer = manifest.signer
    if key is not None and _digits(key) != _digits(signer.fingerprint):
        raise ConsiliumError(
            f"The dossier is not of whom you name: it is signed by a key with the fingerprint "
            f"{signer.fingerprint}, and you gave {printable(key, 100)}. Do not use it before you "
            "have asked who was to release it."
        )
    if not signer.verifies(signature, CONTEXT + content):
        raise ConsiliumError(
            f"The signature of the dossier does not hold: {MANIFEST} or {SIGNATURE} was changed "
            f"after it was signed by the key {signer.fingerprint}, or that key has not signed it. "
            "Do not use it; get the dossier again from who has made it."
        )
    return manifest


def refuse_other_files(manifest: Manifest, found: Mapping[str, FileFact | None]) -> None:
    """Refuse files that are not those of a manifest.

    Args:
        manifest: as :func:`check` has it.
        found: every file that is there but manifest and signature, by its path; ``None`` is what
            cannot be any of those that were signed.

    Raises:
        ConsiliumError: a file was changed, is missing or was added; the message names some.
    """
    if faults := _faults(manifest.files, found):
        raise ConsiliumError(
            "The dossier is not as it was signed by the key "
            f"{manifest.signer.fingerprint}: {'; '.join(faults)}. Do not use it; get it again from "
            "who has made it."
        )


def _faults(released: Mapping[str, FileFact], found: Mapping[str, FileFact | None]) -> list[str]:
    changed = {path for path in released.keys() & found if found[path] != released[path]}
    return [
        f"{said} {_named(paths)}"
        for said, paths in (
            ("changed:", changed),
            ("missing:", released.keys() - found.keys()),
            ("not part of it:", found.keys() - released.keys()),
        )
        if paths
    ]


def _named(paths: Iterable[str]) -> str:
    ordered = sorted(paths)
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(printable(path, 200) for path in ordered[:NAMED]) + more


def _digits(fingerprint: str) -> str:
    return "".join(fingerprint.split()).lower().replace(":", "")
