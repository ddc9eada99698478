"""Pictures with the full range of every mode, upright; or a message that says why not.

Pillow narrows some pictures when it opens or converts them, drops what is transparent, and leaves
it to its caller to turn a photograph upright. What would change a value without a word is read
another way here, or refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from federated.errors import ConsiliumError, unreadable

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")
# The names that Pillow has for these.
FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP")
# A JPEG with previews after it, as phones make; the previews are not read.
MPO = "MPO"
LOSSY = ("JPEG", MPO)
ORIENTATION = 0x0112
# Tags of TIFF.
BITS, PHOTOMETRIC, FORMAT = 258, 262, 339
SIGNED = 2
# The kinds of values, by TIFF's codes for them.
KINDS = {1: "whole numbers without a sign", 2: "whole numbers", 3: "real numbers"}
WIDE = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
UPRIGHT = 1


@dataclass(frozen=True)
class Picture:
    """The values of a picture, ``(1 or 3, height, width)``, upright.

    ``orientation`` is the EXIF orientation that the file says it has, if any; ``lossy`` is whether
    its compression changes values.
    """

    values: npt.NDArray[Any]
    orientation: int | None
    lossy: bool


def read_picture(path: Path) -> Picture:
    """Read a picture with its own range: uint8, or what it has of more bits.

    Raises:
        ConsiliumError: the file is missing, damaged or of another kind, has more than one frame or
            transparent parts, or colours that are not grey or RGB.
    """
    try:
        # By an open file: Pillow maps one that it opens by name, and of a TIFF that lies on its
        # side it then takes the rows for columns.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as picture:
            return _read(path, picture)
    except ConsiliumError:
        raise
    except UnidentifiedImageError as error:
        raise _unknown_kind(path) or unreadable(path, error) from error
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise unreadable(path, error) from error


def orientation_of(path: Path) -> int:
    """A picture's EXIF orientation, 1 to 8, from its header alone; 1 where it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return _orientation(picture) or UPRIGHT
    except Exception:  # reading it whole is going to say why
        return UPRIGHT


def upright_shape(path: Path) -> tuple[int, int]:
    """A picture's height and width as it is shown, from its header alone.

    Raises:
        ConsiliumError: the file is missing, damaged or of another kind.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            turned = (_orientation(picture) or UPRIGHT) >= 5
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def upright(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Stored values ``(…, height, width)``, turned as EXIF's ``orientation`` says."""
    turned = np.swapaxes(values, -1, -2) if orientation >= 5 else values
    if orientation in (3, 4, 7, 8):
        turned = np.flip(turned, -2)
    if orientation in (2, 3, 6, 7):
        turned = np.flip(turned, -1)
    return turned


def as_stored(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Upright values ``(…, height, width)`` as they are stored: the inverse of :func:`upright`."""
    turned = values
    if orientation in (2, 3, 6, 7):
        turned = np.flip(turned, -1)
    if orientation in (3, 4, 7, 8):
        turned = np.flip(turned, -2)
    return np.swapaxes(turned, -1, -2) if orientation >= 5 else turned


def write_picture(file: BinaryIO, grey: npt.NDArray[np.uint8], orientation: int) -> None:
    """Write an upright mask ``(height, width)`` in the frame of a file with this orientation.

    It is PNG where that is upright, and otherwise TIFF, in which readers honour the tag of the
    orientation.
    """
    stored = Image.fromarray(np.ascontiguousarray(as_stored(grey, orientation)))
    if orientation == UPRIGHT:
        stored.save(file, format="PNG")
    else:
        tag = {ORIENTATION: orientation}
        stored.save(file, format="TIFF", compression="tiff_adobe_deflate", tiffinfo=tag)


def write_real_picture(file: BinaryIO, values: npt.NDArray[np.float32], orientation: int) -> None:
    """Write upright real numbers ``(height, width)`` as TIFF in the frame of such a file."""
    stored = Image.fromarray(np.ascontiguousarray(as_stored(values, orientation), np.float32))
    tag = {} if orientation == UPRIGHT else {ORIENTATION: orientation}
    stored.save(file, format="TIFF", compression="tiff_adobe_deflate", tiffinfo=tag)


def _unknown_kind(path: Path) -> ConsiliumError | None:
    """The error for a TIFF that is whole, but whose values Pillow knows nothing of."""
    try:
        with path.open("rb") as file:
            tags: Any = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        bits, kinds = tags[BITS], tags.get(FORMAT, (1,))
        kind = KINDS.get(kinds[0], f"values of the kind {kinds[0]}")
        said = f"{len(bits)} x {bits[0]} bits a pixel, {kind}"
    except Exception:  # it is not a TIFF, or damaged
        return None
    order = "big-endian " if tags.prefix == b"MM" else ""
    return ConsiliumError(
        f"The picture {path} is a {order}TIFF of {said}, which cannot be read. Save it as PNG of 8 "
        "or 16 bits, or as little-endian TIFF of one real number of 32 bits a pixel."
    )


def _orientation(picture: Image.Image) -> int | None:
    try:
        value: Any = picture.getexif().get(ORIENTATION)
    except Exception:  # metadata that cannot be read say nothing
        return None
    return int(value) if value in range(1, 9) else None


def _read(path: Path, picture: Image.Image) -> Picture:
    form = str(picture.format)
    frames = int(getattr(picture, "n_frames", 1))
    if frames > 1 and form != MPO:
        raise ConsiliumError(
            f"The file {path} holds {frames} pictures. Save the one that is meant as a file of its "
            "own."
        )
    # Before EXIF, which of PNG is read by loading all.
    tiles = [str(tile.args) for tile in getattr(picture, "tile", ())]
    tags: Any = getattr(picture, "tag_v2", {})
    wide = any(";16" in tile for tile in tiles) or max(tags.get(BITS, (8,))) > 8
    narrowed = wide and picture.mode not in WIDE
    unsigned = picture.mode == "I" and tags.get(BITS) == (32,) and tags.get(FORMAT, (1,)) == (1,)
    # Pillow takes these for unsigned.
    signed = picture.mode == "L" and tags.get(BITS) == (8,) and tags.get(FORMAT) == (SIGNED,)
    inverted = _stays_inverted(path, picture)
    compression = str(picture.info.get("compression", ""))
    said = _orientation(picture)
    if form == "TIFF" and said == UPRIGHT:
        said = None  # the format's default, which programs write that know nothing of orientations
    orientation = said or UPRIGHT
    picture.load()
    values = _wide_colours(path, picture, orientation) if narrowed else _values(path, picture)
    if unsigned:
        values = values.view(np.uint32)
    if signed:
        values = values.view(np.int8)
    if inverted:
        values = np.iinfo(values.dtype).max - values
    if form != "TIFF":  # which Pillow has turned already
        values = upright(values, orientation)
    lossy = form in LOSSY or "jpeg" in compression
    return Picture(np.ascontiguousarray(values), said, lossy)


def _stays_inverted(path: Path, picture: Image.Image) -> bool:
    """Whether 0 is white, and Pillow leaves it so, as it does in TIFF of more than 8 bits."""
    tags: Any = getattr(picture, "tag_v2", {})
    if picture.mode not in WIDE or tags.get(PHOTOMETRIC, 1) != 0:
        return False
    if not picture.mode.startswith("I;16"):
        raise ConsiliumError(
            f"In the file {path} 0 is white (PhotometricInterpretation 0), and its values are of "
            f"Pillow's mode {picture.mode}. Save it with 0 for black."
        )
    return True


def _values(path: Path, picture: Image.Image) -> npt.NDArray[Any]:
    """The values of a picture, ``(1 or 3, height, width)``."""
    mode = picture.mode
    if mode in WIDE:
        grey = np.asarray(picture)
        key = picture.info.get("transparency")
        if key is not None and (grey == key).any():
            raise _transparent(path)
        return grey.astype(grey.dtype.newbyteorder("="))[np.newaxis]
    if picture.has_transparency_data or mode in ("LA", "RGBA", "PA"):
        return _opaque(path, np.asarray(picture.convert("LA" if mode == "LA" else "RGBA")))
    if mode in ("1", "L"):
        return np.asarray(picture.convert("L"))[np.newaxis]
    if mode in ("P", "RGB", "YCbCr"):
        return np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    raise ConsiliumError(
        f"The picture {path} is of Pillow's mode {mode}; grey and RGB can be read. Save it as one "
        "of these."
    )


def _opaque(path: Path, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The colours of ``(height, width, colours and alpha)``, where alpha is one value."""
    if values[..., -1].min() != values[..., -1].max():
        raise _transparent(path)
    return np.moveaxis(values[..., :-1], -1, 0)


def _transparent(path: Path) -> ConsiliumError:
    return ConsiliumError(
        f"Parts of the picture {path} are transparent, so it does not say what is there. Save it "
        "without an alpha channel."
    )


def _wide_colours(path: Path, picture: Image.Image, orientation: int) -> npt.NDArray[Any]:
    """A picture of 16 bits a colour, of which Pillow has kept the upper eight bits alone."""
    # Importing it takes a moment.
    import SimpleITK as sitk  # noqa: N813 - as everywhere

    try:
        wide = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        wide = np.zeros(0, np.uint16)
    narrow = np.asarray(picture)
    if wide.shape == (1, *narrow.shape):  # of one slice
        wide = wide[0]
    turned = picture.format == "TIFF" and orientation != UPRIGHT
    same = wide.dtype == np.uint16 and wide.shape == narrow.shape
    if turned or not same or not np.array_equal(wide >> 8, narrow):
        raise ConsiliumError(
            f"The picture {path} has 16 bits a colour in a form that cannot be read without losing "
            "some. Save it upright as PNG, grey or RGB."
        )
    return _opaque(path, wide) if wide.shape[-1] == 4 else np.moveaxis(wide, -1, 0)
