"""The key of homomorphic encryption of one run, as a site keeps it in its own home.

``sealing.key`` is what others seal the run's key to, ``secret.key`` the run's key itself, and
``context.json`` what everybody knows of it. All are open to their owner alone and are erased when
the run has ended; a run that was stopped goes on with the key that it had, as long as its plan has
the participants that the key was made for. Of several makers that are tried, the keys that the site
has taken stay until one of them is used. ``made-for.json`` says of each key of the run that the
site has ever had for whom it was made: with others the site takes it no more. ``openings.json``
counts how often the site has opened sums with which key, since the noise of CKKS is made for so
many openings and no more. Both stay, so that a key that is handed out again is known.
"""

import secrets
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, why_unreadable
from federated.files import PRIVATE, atomic_path, locked, read_json, write_json
from federated.protection.keys import PublicContext, RunKey
from federated.secrets.home import private_folder, refuse_open
from federated.secrets.sealing import SEALING_KEY_BYTES, new_sealing_key
from federated.site.home import SiteHome

SECRET_FILE = "secret.key"  # noqa: S105 - a file name
SEALING_FILE = "sealing.key"
PUBLIC_FILE = "context.json"
PARTICIPANTS = "participants"


@dataclass(frozen=True)
class KeyStore:
    """The key of one run in the home of a site; ``place`` is the site's folder of that run."""

    place: Path
    home: Path

    @staticmethod
    def of(home: SiteHome, run_id: str) -> "KeyStore":
        """The store of a run in a home."""
        return KeyStore(home.run(run_id).root, home.root)

    @property
    def folder(self) -> Path:
        """The folder of the run's key, which changes as a whole."""
        return self.place / "key"

    def sealing_key(self) -> bytes:
        """The private key to which others seal, 32 bytes; it is made if it is not there.

        Raises:
            ConsiliumError: others can open the file or a folder of it, or it is damaged.
        """
        private_folder(self.place, self.home)
        path = self.place / SEALING_FILE
        if not path.exists():
            with atomic_path(path, PRIVATE) as temporary:
                temporary.write_bytes(new_sealing_key())
        refuse_open(path)
        private = path.read_bytes()
        if len(private) != SEALING_KEY_BYTES:
            raise ConsiliumError(
                f"The key {path}, to which others seal what is for this site, is damaged: it has "
                f"{len(private)} bytes. Remove it and resume the run, which makes another."
            )
        return private

    def sealed_once(self, label: str, seal: Callable[[], bytes]) -> bytes:
        """What was sealed under a label, or what ``seal`` gives now, which is stored first.

        A key that is sealed again is other bytes, and two different messages count for nothing.
        """
        path = self.folder / f"{sha256(label.encode()).hexdigest()[:32]}.sealed"
        if not path.is_file():
            content = seal()
            with atomic_path(path, PRIVATE) as temporary:
                temporary.write_bytes(content)
        return path.read_bytes()

    def public(self) -> dict[str, Any] | None:
        """What is known of the key without the secret, and when it was kept; ``None`` without one.

        Raises:
            ConsiliumError: the file is damaged.
        """
        path = self.folder / PUBLIC_FILE
        if not path.is_file():
            return None
        try:
            value = dict(read_json(path))
            PublicContext.from_json(value)
            return value
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unusable(path, f"cannot be read ({why_unreadable(error)})") from error

    def find(self) -> RunKey | None:
        """The key that the site has of the run; ``None`` if it has none.

        Raises:
            ConsiliumError: it is damaged, or others can read it.
        """
        told = self.public()
        if told is None:
            return None
        public, path = PublicContext.from_json(told), self.folder / SECRET_FILE
        try:
            refuse_open(path)
            key = RunKey.from_bytes(public.parameters, path.read_bytes())
        except (OSError, ValueError) as error:
            raise self._unusable(path, f"cannot be read ({why_unreadable(error)})") from error
        if key.public != public:
            raise self._unusable(path, "is damaged: it is not the one that was kept")
        return key

    def made_for(self) -> frozenset[bytes]:
        """The public keys of the participants that the kept key is for; empty where none are known.

        Raises:
            ConsiliumError: the file is damaged.
        """
        told = self.public() or {}
        try:
            return frozenset(bytes.fromhex(key) for key in told.get(PARTICIPANTS, []))
        except (ValueError, TypeError) as error:
            raise self._unusable(
                self.folder / PUBLIC_FILE, f"cannot be read ({why_unreadable(error)})"
            ) from error

    def keep(self, key: RunKey, participants: Collection[bytes]) -> None:
        """Store a key as the last one; key and context change together or not at all.

        The one before stays until it is known which of them is used.

        Args:
            key: the key.
            participants: the public keys of those whom it is for.

        Raises:
            ConsiliumError: the folder is open to others, or cannot be written to.
        """
        fresh = self.folder.with_name(f".key.{secrets.token_hex(4)}")
        try:
            private_folder(fresh, self.home)
            with atomic_path(fresh / SECRET_FILE, PRIVATE) as temporary:
                temporary.write_bytes(key.to_bytes())
            told = key.public.to_json() | {
                "made": datetime.now(UTC).isoformat(),
                PARTICIPANTS: sorted(each.hex() for each in participants),
            }
            write_json(fresh / PUBLIC_FILE, told, PRIVATE)
            ever = {key.secret_digest: frozenset(participants)} | self._ever_had()
            written = {had: sorted(each.hex() for each in ever[had]) for had in ever}
            write_json(self._ever_had_path, written, PRIVATE)
            self._put_aside()
            fresh.rename(self.folder)
        except OSError as error:
            raise ConsiliumError(
                f"The key of the run cannot be stored in {self.folder}: {error.strerror}. Make the "
                "folder writable, or free some space, and resume the run."
            ) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _put_aside(self) -> None:
        """Move the last key to those before it."""
        told = self.public()
        if told is not None:
            private_folder(self._before, self.home)
            there = self._before / told["key_id"]
            shutil.rmtree(there, ignore_errors=True)
            self.folder.rename(there)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _before(self) -> Path:
        """The folders of the keys that were kept before the last one, by the names of these."""
        return self.place / "keys-before"

    def once_made_for(self, key: RunKey) -> frozenset[bytes] | None:
        """For whom a key was that the site has had at any time; ``None`` if it never had it.

        It is known by the secret, however that is packed, and whatever a maker tells of it.

        Raises:
            ConsiliumError: the file is damaged.
        """
        return self._ever_had().get(key.secret_digest)

    @property
    def _ever_had_path(self) -> Path:
        return self.place / "made-for.json"

    def _ever_had(self) -> dict[str, frozenset[bytes]]:
        path = self._ever_had_path
        try:
            told = dict(read_json(path)) if path.is_file() else {}
            return {key: frozenset(map(bytes.fromhex, told[key])) for key in told}
        except (OSError, ValueError, TypeError) as error:
            raise ConsiliumError(
                f"{path}, which says for whom each key of the run was made, cannot be read "
                f"({why_unreadable(error)}). Restore it; without it the site could take a key that "
                "others have, who take part no more."
            ) from error

    def settle(self, used: PublicContext) -> None:
        """Keep the key that is used alone, of those that were kept in turn.

        Raises:
            ConsiliumError: what the site keeps of its key is damaged.
        """
        if not self._before.is_dir():
            return
        there, told = self._before / used.key_id, self.public()
        if there.is_dir() and (told is None or told["key_id"] != used.key_id):
            shutil.rmtree(self.folder, ignore_errors=True)
            there.rename(self.folder)
        shutil.rmtree(self._before)

    def read(self, expected: PublicContext) -> RunKey:
        """The key of the run, which has to be the one ``expected``; it is the one kept from then.

        Raises:
            ConsiliumError: it is missing, another one, damaged, or readable by others.
        """
        self.settle(expected)
        key = self.find()
        if key is None or key.public != expected:
            has = "no key" if key is None else f"the key {key.public.fingerprint}"
            raise ConsiliumError(
                f"{self.home.name} has {has} of run {self.place.name} in {self.folder}, and the "
                f"run's is {expected.fingerprint}. Resume the run: it is sealed to the site anew."
            )
        return key

    def count_opening(self, public: PublicContext) -> int:
        """Count an opening of a sum before it happens; return how many they are with this key.

        Raises:
            ConsiliumError: the noise of the key's openings is made for no more of them.
        """
        flooding, path = public.parameters.flooding, self.place / "openings.json"
        with locked(self.place / "openings.lock"):
            counts = dict(read_json(path)) if path.is_file() else {}
            done = int(counts.get(public.key_id, 0))
            if flooding is not None and done >= flooding.openings_each:
                raise ConsiliumError(
                    f"This site has opened {done} sums with the key of run {self.place.name}, "
                    "which is what the noise of its openings is made for; one more would weaken "
                    "them all. Erase the key at the site that made it, and resume the run, which "
                    f"makes another: consilium keys erase NAME --run {self.place.name}"
                )
            write_json(path, counts | {public.key_id: done + 1}, PRIVATE)
        return done + 1

    def erase(self) -> bool:
        """Remove the run's key and what others seal to; return whether there was a key.

        Overwriting would not reach the copies that file systems and disks keep; whoever needs more
        than that no file is left keeps the folder on an encrypted disk.
        """
        found = (self.folder / SECRET_FILE).is_file()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self._before, ignore_errors=True)
        (self.place / SEALING_FILE).unlink(missing_ok=True)
        return found

    def _unusable(self, path: Path, why: str) -> ConsiliumError:
        return ConsiliumError(
            f"The run's key {path} {why}. Erase it and resume the run, which makes another or has "
            f"it sealed to the site anew: consilium keys erase NAME --run {self.place.name}"
        )
