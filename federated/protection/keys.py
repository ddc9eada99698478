"""Keys of homomorphic encryption: made at a site for one run, and never at the coordinator.

All sites of a run share one secret key. Whoever has it can decrypt every site's payload of that
run: the coordinator does not have it, but a site that colludes with the coordinator could read
another site's update. Where that is not acceptable, use ``secagg_plus`` or ``rlwe_secagg``, in
which there is no such key.

A secret key is a file with permissions 0600 below ``CONSILIUM_KEYS``, or ``keys`` in the site's
home. The coordinator gets ``context.json``, which has the parameters and the fingerprint. The key
is erased when its run has ended; a run that was stopped goes on with it. No state of a run needs a
key that was lost, so a run may go on with another one. Beside a key, this site counts how often it
has opened sums with it, since the noise of CKKS is made for so many openings and no more.
"""

import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, why_unreadable
from federated.files import locked, read_json, write_json
from federated.protection.parameters import Parameters
from federated.protection.seal import seal_context, through_file
from federated.secrets.home import consilium_home, private_folder
from federated.secrets.key_derivation import derive_key

SECRET_FILE = "secret.key"  # noqa: S105 - a file name
PUBLIC_FILE = "context.json"
OPENINGS_FILE = "openings.json"


@dataclass(frozen=True)
class PublicContext:
    """What the coordinator knows: the parameters, and to which key ciphertexts belong."""

    parameters: Parameters
    key_id: str

    @property
    def fingerprint(self) -> str:
        """Thirty-two hexadecimal digits that differ between parameters and between keys."""
        text = f"{self.parameters.digest}:{self.key_id}"
        return sha256(text.encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """The context as plain values."""
        return {
            "parameters": self.parameters.to_json(),
            "key_id": self.key_id,
            "fingerprint": self.fingerprint,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "PublicContext":
        """The context from plain values that :meth:`to_json` gave."""
        return PublicContext(Parameters.from_json(value["parameters"]), value["key_id"])


@dataclass(frozen=True)
class SecretContext:
    """What a site knows: the public context, and SEAL's secret key."""

    public: PublicContext
    key: Any
    # What the sites derive other keys from that they have in common; see ``tags.py``.
    common: bytes = b""


def keys_root() -> Path:
    """The folder of all keys, as an absolute path."""
    return Path(os.environ.get("CONSILIUM_KEYS") or consilium_home() / "keys").resolve()


def run_keys_folder(experiment: str, run_id: str) -> Path:
    """The folder in which the keys of a run lie."""
    return keys_root() / experiment / "runs" / run_id


def key_folder(experiment: str, run_id: str, parameters: Parameters) -> Path:
    """The folder of the key of a run for some parameters; a key fits no others."""
    return run_keys_folder(experiment, run_id) / parameters.digest


def key_folders(experiment: str) -> list[Path]:
    """The folders of all keys of an experiment's runs, oldest first."""
    found = (keys_root() / experiment).glob(f"runs/*/*/{PUBLIC_FILE}")
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def erase_keys(experiment: str, run_id: str) -> int:
    """Remove the keys of a run from this site, and return how many there were.

    Overwriting would not reach the copies that file systems and disks keep; whoever needs more than
    that no file is left keeps the folder on an encrypted disk.
    """
    place = run_keys_folder(experiment, run_id)
    found = len(list(place.glob(f"*/{SECRET_FILE}")))
    shutil.rmtree(place, ignore_errors=True)
    return found


def new_key(
    experiment: str, run_id: str, parameters: Parameters, *, replace: bool = False
) -> PublicContext:
    """Make the secret key of a run and store it, readable by its owner alone.

    Args:
        experiment: the experiment's name.
        run_id: the run's id.
        parameters: what the key is made for.
        replace: whether a key that is there already is replaced.

    Raises:
        ConsiliumError: there is one already and ``replace`` is not set, or the folder is not
            writable.
    """
    import tenseal.sealapi as seal

    folder = key_folder(experiment, run_id, parameters)
    if (folder / PUBLIC_FILE).exists() and not replace:
        raise ConsiliumError(
            f"There is a key for run {run_id} of {experiment} already, in {folder}. Use it, or "
            f"replace it with `consilium keys rotate {experiment} --run {run_id}`; what was "
            "encrypted with it is lost then."
        )
    secret = seal.KeyGenerator(seal_context(parameters)).secret_key()
    public = PublicContext(parameters, secrets.token_hex(16))
    # In a folder beside it first, so that a key and its context change together or not at all.
    fresh = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        private_folder(fresh, keys_root())
        handle = os.open(fresh / SECRET_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(through_file(secret.save))
            file.flush()
            os.fsync(file.fileno())
        write_json(fresh / PUBLIC_FILE, public.to_json() | {"made": datetime.now(UTC).isoformat()})
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except OSError as error:
        raise ConsiliumError(
            f"The key cannot be stored in {folder}: {error.strerror}. Make the folder writable, or "
            "name another with CONSILIUM_KEYS."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return public


def read_public(folder: Path) -> PublicContext:
    """The public half of the key in a folder.

    Raises:
        ConsiliumError: it is missing or damaged.
    """
    try:
        return PublicContext.from_json(read_json(folder / PUBLIC_FILE))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConsiliumError(
            f"There is no usable key in {folder} ({PUBLIC_FILE}: {why_unreadable(error)}). Copy "
            "the folder from the site that made it, or resume the run at a site that may make one."
        ) from error


def read_secret(experiment: str, run_id: str, expected: PublicContext) -> SecretContext:
    """A site's secret key of a run.

    Raises:
        ConsiliumError: the key is missing, readable by others, damaged, or not the one
            ``expected``.
    """
    import tenseal.sealapi as seal

    folder = key_folder(experiment, run_id, expected.parameters)
    public = read_public(folder)
    if public.fingerprint != expected.fingerprint:
        raise ConsiliumError(
            f"The key in {folder} is {public.fingerprint}, but this run uses "
            f"{expected.fingerprint}. Copy the folder from a site that has that key, or resume the "
            f"run after `consilium keys rotate {experiment} --run {run_id}`."
        )
    path = folder / SECRET_FILE
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise ConsiliumError(
                f"The secret key {path} has permissions {mode:03o}, so others may have read it. "
                f"Make a new one with `consilium keys rotate {experiment} --run {run_id}`."
            )
        common = derive_key(path.read_bytes(), "consilium common key")
        key = seal.SecretKey()
        key.load(seal_context(public.parameters), str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise ConsiliumError(
            f"The secret key {path} cannot be read ({why_unreadable(error)}). Copy the folder from "
            "another site, or make a new key with "
            f"`consilium keys rotate {experiment} --run {run_id}`."
        ) from error
    return SecretContext(public, key, common)


def count_opening(experiment: str, run_id: str, public: PublicContext) -> int:
    """Count an opening of a sum at this site before it happens; return the number of openings.

    Raises:
        ConsiliumError: the noise of the key's openings is made for no more of them.
    """
    folder = key_folder(experiment, run_id, public.parameters)
    flooding = public.parameters.flooding
    with locked(folder / "openings.lock"):
        path = folder / OPENINGS_FILE
        done = int(read_json(path)) if path.is_file() else 0
        if flooding is not None and done >= flooding.openings_each:
            raise ConsiliumError(
                f"This site has opened {done} sums with the key of run {run_id}, which is what the "
                "noise of its openings is made for; one more would weaken them all. Make another "
                f"key with `consilium keys rotate {experiment} --run {run_id}`, and resume the run."
            )
        write_json(path, done + 1, 0o600)
    return done + 1
