"""Looking for what a dossier must not hold, in files and in the archives that lie in them."""

import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from zipfile import ZipFile, is_zipfile

# What a stream of zlib begins with, at the levels that programs use.
ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


def contents(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The content of a file, and of all that is packed in it, each with where it lies."""
    yield name, content
    if is_zipfile(io.BytesIO(content)):
        with ZipFile(io.BytesIO(content)) as packed:
            for each in packed.infolist():
                yield f"{name}: name", each.filename.encode()
                yield from contents(f"{name}: {each.filename}", packed.read(each))
    if content.startswith(ZLIB):
        yield from contents(f"{name}: unpacked", zlib.decompress(content))


def found_in(files: Iterable[tuple[str, bytes]], wanted: Iterable[str]) -> list[str]:
    """Where one of some texts stands, in UTF-8, in UTF-16, or with its strokes escaped."""
    forms = {
        form
        for text in wanted
        for form in (text.encode(), text.encode("utf-16-le"), text.replace("/", "\\/").encode())
    }
    return [
        f"{where}: {form!r}"
        for name, file in files
        for where, content in contents(name, file)
        for form in sorted(forms)
        if form in content
    ]


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, and its content."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()
