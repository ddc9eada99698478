"""The releases of a site: each is made once, stored at the site, and sent as it is stored.

A release is whatever leaves a site with noise of a privacy on it. A release that is asked for
again, after a crash or by a coordinator that asks twice, is not made again: the stored bytes are
sent. Which release it is follows from everything it is computed from (:class:`Sources`). From other
sources it is another release: its noise is fresh, and it has a ledger entry of its own.

The order is: entered in the ledger, computed, stored here, sent. If the site is killed before a
release is stored, one is entered that never was, which counts too much; if it is killed after that,
the same bytes are sent. A stored release that turns out damaged is reported in a warning and made
anew, with fresh noise and a further entry, never with the noise that it had.

One file holds a release: the SHA-256 of all that follows, a line of JSON, and the parts. It is in
the site's home and open to its owner alone, since beside what is sent it holds what the site keeps.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from federated.errors import ConsiliumError
from federated.files import PRIVATE, atomic_path, locked
from federated.secrets.home import private_folder, refuse_open
from federated.update import Arrays, RoundState, Vector

# The kinds of release: a site's style, before round 1; its update with the noise on it; its
# quantised values, where the noise is added to those; its counts for statistics, with noise.
Kind = Literal["style", "update", "quantised", "counts"]
# What a stage has made: by what they are, the bytes of the files that it writes.
Parts = Mapping[str, bytes]

RECORD = "released.jsonl"
SUFFIX = ".release"
DIGEST = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Everything that a release is computed from, but for the noise.

    ``round_number`` is the round in which it is asked for; for a style it is the first.
    ``experiment`` is the resolved configuration, ``participants`` are all sites of the run, and
    ``records`` the digests of the site's training cases in their order. ``plan`` is what is entered
    in the ledger (noise multiplier, sampling rate, steps, clipping norm) and other numbers that the
    stage is given. ``inputs`` are digests of the arrays that it starts from: the state, the site's
    own memory. ``code`` is the digest of the program.
    """

    kind: Kind
    run: str
    site: str
    round_number: int
    experiment: Mapping[str, Any]
    participants: tuple[str, ...]
    records: tuple[str, ...]
    plan: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: str

    @property
    def digest(self) -> str:
        """Sixty-four hexadecimal digits that differ wherever anything above does."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def arrays_digest(arrays: Arrays) -> str:
    """The SHA-256, in hexadecimal digits, of the names, types, shapes and values of arrays."""
    digest = sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def weights_digest(weights: Vector) -> str:
    """The SHA-256, in hexadecimal digits, of weights ``(size,)`` as a model computes with them.

    What makes no difference to a model makes none here: more digits than its float32 have, the sign
    of a zero, and which of the many numbers that are none stands for one.
    """
    plain = weights.astype(np.float32) + np.float32(0)
    plain[np.isnan(plain)] = np.nan
    return arrays_digest({"weights": plain})


def state_digest(state: RoundState) -> str:
    """The SHA-256, in hexadecimal digits, of what a round starts from, whatever file it lies in."""
    parts = {"broadcast": state.broadcast, "compression": state.compression}
    value = {
        "weights": arrays_digest({"weights": state.weights}),
        **{name: arrays_digest(arrays) for name, arrays in parts.items()},
        "layout": [state.layout.entries, sorted(state.layout.personal)],
        "round": state.round_number,
        "clip": state.clip,
    }
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class ReleaseStore:
    """The stored releases of one site in one run.

    Args:
        place: their folder.
        home: the site's home, from where down to ``place`` every folder has to be closed to others.
    """

    def __init__(self, place: Path, home: Path) -> None:
        self.place, self.home = place, home

    def once(self, sources: Sources, make: Callable[[], Parts]) -> Parts:
        """The release of these sources: the stored one, or what ``make`` returns, stored first.

        ``make`` enters it in the ledger and computes it. Whoever asks for the same at the same time
        waits, and gets the same. Once it is stored, nothing of the site's earlier rounds is asked
        for any more, and their releases are removed.

        Raises:
            ConsiliumError: others can open the store, it cannot be written to, or ``make`` fails.
                Nothing was sent then.
        """
        with self._held():
            parts = self._read(sources)
            if parts is None:
                parts = make()
                self._keep(sources, parts)
            return parts

    def forget(self, round_number: int, kind: Kind) -> None:
        """Remove a release, so that it is made anew when it is next asked for."""
        self._path(round_number, kind).unlink(missing_ok=True)

    def has(self, round_number: int) -> bool:
        """Whether a release of a round is stored, of whatever kind and sources."""
        return any(self.place.glob(f"round-{round_number:03d}.*{SUFFIX}"))

    def close(self) -> None:
        """Remove all releases, once the run is over; the record of their digests stays."""
        for path in self.place.glob(f"*{SUFFIX}"):
            path.unlink()

    def _path(self, round_number: int, kind: Kind) -> Path:
        return self.place / f"round-{round_number:03d}.{kind}{SUFFIX}"

    @contextmanager
    def _held(self) -> Iterator[None]:
        with ExitStack() as held:
            try:
                private_folder(self.place, self.home)
                held.enter_context(locked(self.place / "lock"))
            except OSError as error:
                raise ConsiliumError(
                    f"Releases cannot be stored in {self.place}: {error.strerror}. Nothing is sent "
                    "that is not stored first. Make the folder writable, or name another home with "
                    "CONSILIUM_HOME."
                ) from error
            yield

    def _read(self, sources: Sources) -> Parts | None:
        """The stored parts; ``None`` where there are none of these sources, or they are damaged."""
        path = self._path(sources.round_number, sources.kind)
        if not path.is_file():
            return None
        refuse_open(path)
        content = path.read_bytes()
        if sha256(memoryview(content)[DIGEST:]).hexdigest().encode() != content[:DIGEST]:
            log.warning(
                "The stored release %s is damaged, so %s makes round %d anew, with other noise and "
                "a further entry in its ledger.",
                path,
                sources.site,
                sources.round_number,
            )
            return None
        start = content.index(b"\n") + 1
        header = json.loads(content[DIGEST:start])
        if header["sources"] != sources.digest:
            return None
        parts = {}
        for name, size in header["parts"].items():
            parts[name] = content[start : start + size]
            start += size
        return parts

    def _keep(self, sources: Sources, parts: Parts) -> None:
        sizes = {name: len(part) for name, part in parts.items()}
        header = json.dumps({"sources": sources.digest, "parts": sizes}).encode() + b"\n"
        digest = sha256(header)
        for part in parts.values():
            digest.update(part)
        path = self._path(sources.round_number, sources.kind)
        with atomic_path(path, PRIVATE) as temporary, temporary.open("wb") as file:
            for piece in (digest.hexdigest().encode(), header, *parts.values()):
                file.write(piece)
        self._record(sources, digest.hexdigest())
        for old in self.place.glob(f"*{SUFFIX}"):
            if int(old.name.split(".")[0].removeprefix("round-")) < sources.round_number:
                old.unlink()

    def _record(self, sources: Sources, digest: str) -> None:
        """Write down what was released, for people; nothing depends on it."""
        line = {
            "time": datetime.now(UTC).isoformat(),
            "round": sources.round_number,
            "kind": sources.kind,
            "sources": sources.digest,
            "sha256": digest,
        }
        handle = os.open(self.place / RECORD, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(line) + "\n")
