"""Pictures keep every grey level and lie upright, or are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from federated.data.folders.picture_file import as_stored, upright
from federated.data.folders.read_volume import read_mask, read_volume
from federated.errors import ConsiliumError

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)
COLOURS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def saved(path, picture, **how):
    picture.save(path, **how)
    return path


def refused(path, read, said):
    with pytest.raises(ConsiliumError, match=said) as error:
        read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("step", [1, 16, 257])
def test_all_grey_levels_of_sixteen_bits_survive(tmp_path, name, step):
    read = read_volume(saved(tmp_path / name, Image.fromarray(RAMP * np.uint16(step))))
    assert read.values.shape == (3, 16, 16)
    for channel in read.values:
        np.testing.assert_array_equal(channel, RAMP * step)


def test_real_numbers_and_32_bits_of_tiff_survive(tmp_path):
    real = RAMP.astype(np.float32) / 255
    read = read_volume(saved(tmp_path / "a.tif", Image.fromarray(real)))
    np.testing.assert_array_equal(read.values[1], real)
    wide = RAMP.astype(np.int32) * 70000
    read = read_volume(saved(tmp_path / "b.tif", Image.fromarray(wide)))
    np.testing.assert_array_equal(read.values[2], wide)


def test_32_bits_without_a_sign_are_not_negative(tmp_path):
    import tifffile

    wide = RAMP.astype(np.uint32) * 2**24
    tifffile.imwrite(tmp_path / "a.tif", wide)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").values[0], wide)


def test_sixteen_bits_in_planes_or_with_alpha_are_read_whole_or_refused(tmp_path):
    import tifffile

    planes = np.random.default_rng(1).integers(0, 2**16, (3, 9, 14)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    refused(tmp_path / "a.tif", read_volume, "16 bits a colour")
    row = b"\0" + bytes(range(16)) * 2
    header = struct.pack(">IIBBBBB", 8, 2, 16, 4, 0, 0, 0)  # grey and alpha
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(row * 2)), (b"IEND", b""))
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    refused(tmp_path / "a.png", read_volume, "16 bits a colour")


@pytest.mark.parametrize("shape", [(1, 14), (9, 1), (1, 1)])
def test_colours_of_sixteen_bits_in_one_row_are_read(tmp_path, shape):
    import SimpleITK as sitk  # noqa: N813

    wide = np.random.default_rng(1).integers(0, 2**16, (*shape, 3)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(wide, isVector=True), str(tmp_path / "a.png"))
    np.testing.assert_array_equal(np.moveaxis(read_volume(tmp_path / "a.png").values, 0, -1), wide)


@pytest.mark.parametrize(
    ("values", "order", "said"),
    [
        (RAMP / 255, "<", "a TIFF of 1 x 64 bits a pixel, real numbers"),
        (RAMP.astype(np.float16), "<", "a TIFF of 1 x 16 bits a pixel, real numbers"),
        (RAMP.astype(np.uint32), ">", "a big-endian TIFF of 1 x 32 bits a pixel, whole numbers wi"),
        (np.ones((4, 5, 3), np.float32), "<", "a TIFF of 3 x 32 bits a pixel, real numbers"),
    ],
)
def test_what_no_reader_knows_is_refused_by_its_kind_and_not_as_damaged(
    tmp_path, values, order, said
):
    import tifffile

    kind = "rgb" if values.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order, photometric=kind)
    refused(tmp_path / "a.tif", read_volume, said)
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:20])
    refused(tmp_path / "b.tif", read_volume, "damaged")


def test_big_endian_tiff_is_read_as_it_is_meant(tmp_path):
    big = Image.fromarray(RAMP.astype(">u2") * np.uint16(200))
    read = read_volume(saved(tmp_path / "a.tif", big))
    assert read.values.dtype.isnative
    np.testing.assert_array_equal(read.values[0], RAMP * 200)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_sixteen_bits_are_not_narrowed(tmp_path, channels):
    import SimpleITK as sitk  # noqa: N813

    wide = np.random.default_rng(1).integers(0, 2**16, (9, 14, channels)).astype(np.uint16)
    if channels == 4:
        wide[..., 3] = 2**16 - 1
    sitk.WriteImage(sitk.GetImageFromArray(wide, isVector=True), str(tmp_path / "a.png"))
    with Image.open(tmp_path / "a.png") as narrowed:
        assert np.asarray(narrowed).dtype == np.uint8
    read = read_volume(tmp_path / "a.png")
    np.testing.assert_array_equal(np.moveaxis(read.values, 0, -1), wide[..., :3])


def test_where_0_is_white_it_is_turned_round(tmp_path):
    grey = RAMP.astype(np.uint16) * np.uint16(100)
    tag = {262: 0}
    path = saved(tmp_path / "a.tif", Image.fromarray(65535 - grey), tiffinfo=tag)
    content = bytearray(path.read_bytes())
    with Image.open(path) as made:
        stays = made.tag_v2[262]
    if stays != 0:  # Pillow writes its own; the tag is a short in the directory
        at = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00")
        content[at + 8] = 0
        path.write_bytes(bytes(content))
    np.testing.assert_array_equal(read_volume(path).values[0], grey)


def test_palettes_one_bit_and_an_opaque_alpha_are_read(tmp_path):
    picture = Image.fromarray(COLOURS)
    palette = picture.quantize(8)
    expected = np.moveaxis(np.asarray(palette.convert("RGB")), -1, 0)
    read = read_volume(saved(tmp_path / "p.png", palette))
    np.testing.assert_array_equal(read.values, expected)
    alpha = picture.copy()
    alpha.putalpha(200)
    read = read_volume(saved(tmp_path / "a.png", alpha))
    np.testing.assert_array_equal(np.moveaxis(read.values, 0, -1), COLOURS)
    bits = Image.fromarray(RAMP > 99)
    assert set(np.unique(read_volume(saved(tmp_path / "b.png", bits)).values)) == {0, 255}


@pytest.mark.parametrize("read", [read_volume, read_mask])
def test_transparent_parts_frames_and_inks_are_refused(tmp_path, read):
    picture = Image.fromarray(COLOURS)
    hole = Image.fromarray((COLOURS[..., 0] > 9).astype(np.uint8) * 255)
    for mode in ("LA", "RGBA"):
        holed = picture.convert(mode)
        holed.putalpha(hole)
        refused(saved(tmp_path / f"{mode}.png", holed), read, "transparent")
    keyed = picture.convert("L")
    value = int(np.asarray(keyed)[0, 0])
    refused(saved(tmp_path / "key.png", keyed, transparency=value), read, "transparent")
    wide = Image.fromarray(RAMP * np.uint16(9))
    refused(saved(tmp_path / "wide.png", wide, transparency=9), read, "transparent")
    for name in ("a.tif", "a.gif", "a.png"):
        pages = [Image.fromarray(COLOURS[..., 0]), Image.fromarray(COLOURS[..., 1])]
        path = saved(tmp_path / name, pages[0], save_all=True, append_images=pages[1:])
        refused(path, read, "holds 2 pictures")
    refused(saved(tmp_path / "inks.tif", picture.convert("CMYK")), read, "mode CMYK")
    refused(saved(tmp_path / "lab.tif", picture.convert("LAB")), read, "mode LAB")


class TestMasks:
    def test_grey_ones_are_read_in_any_mode(self, tmp_path):
        labels = np.zeros((9, 14), np.uint8)
        labels[2:5, 3:8] = 255
        made = {
            "l.png": Image.fromarray(labels),
            "one.png": Image.fromarray(labels > 0),
            "rgb.png": Image.fromarray(labels).convert("RGB"),
            "rgba.png": Image.fromarray(labels).convert("RGBA"),
            "la.png": Image.fromarray(labels).convert("LA"),
            "p.gif": Image.fromarray(labels),
            "wide.png": Image.fromarray(labels.astype(np.uint16)),
            "real.tif": Image.fromarray(labels.astype(np.float32)),
        }
        for name, picture in made.items():
            read = read_mask(saved(tmp_path / name, picture))
            np.testing.assert_array_equal(read.values, labels[np.newaxis], err_msg=name)

    def test_real_numbers_are_not_cut(self, tmp_path):
        values = np.zeros((9, 14), np.float32)
        values[4, 6] = 0.9
        path = saved(tmp_path / "m.tif", Image.fromarray(values))
        refused(path, read_mask, r"1 values that are no labels.*0\.8999.* at \(4, 6\)")

    def test_a_sixteen_bit_label_is_itself(self, tmp_path):
        labels = np.zeros((9, 14), np.uint16)
        labels[1, 1] = 300
        read = read_mask(saved(tmp_path / "m.png", Image.fromarray(labels)))
        assert set(np.unique(read.values)) == {0, 300}

    def test_colours_are_refused(self, tmp_path):
        refused(saved(tmp_path / "m.png", Image.fromarray(COLOURS)), read_mask, "coloured")
        palette = Image.fromarray(COLOURS).quantize(4)
        refused(saved(tmp_path / "p.png", palette), read_mask, "coloured")

    def test_what_jpeg_has_changed_is_refused(self, tmp_path):
        labels = np.zeros((24, 40), np.uint8)
        labels[5:13, 7:22] = 255
        path = saved(tmp_path / "m.jpg", Image.fromarray(labels), quality=60)
        refused(path, read_mask, "compressed as JPEG")
        clean = saved(tmp_path / "c.jpg", Image.fromarray(np.zeros((16, 16), np.uint8)))
        assert not read_mask(clean).values.any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_photograph_and_its_mask_are_turned_upright_each_by_its_own_tag(
    tmp_path, orientation, name
):
    smooth = np.add.outer(np.arange(24) * 5, np.arange(40) * 3).astype(np.uint8)
    assert np.array_equal(upright(as_stored(smooth, orientation), orientation), smooth)
    tag = Image.Exif()
    tag[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(as_stored(smooth, orientation)))
    read = read_volume(saved(tmp_path / name, stored, exif=tag))
    assert read.values.shape == (3, 24, 40)
    assert np.abs(read.values[0].astype(int) - smooth).max() <= 8  # JPEG's
    mask = read_mask(saved(tmp_path / "m.png", Image.fromarray(smooth)))
    np.testing.assert_array_equal(mask.values[0], smooth)


def test_pillow_turns_as_we_do(tmp_path):
    from PIL import ImageOps

    for orientation in range(1, 9):
        tag = Image.Exif()
        tag[0x0112] = orientation
        content = io.BytesIO()
        Image.fromarray(COLOURS).save(content, "PNG", exif=tag)
        shown = np.asarray(ImageOps.exif_transpose(Image.open(content)))
        ours = upright(np.moveaxis(COLOURS, -1, 0), orientation)
        np.testing.assert_array_equal(np.moveaxis(ours, 0, -1), shown)


@pytest.mark.parametrize("content", [b"", b"a note", b"\x89PNG\r\n\x1a\n" + bytes(30), b"GIF89a"])
def test_what_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", read_volume, "cannot be read")


def test_a_picture_cut_short_is_refused(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif", "a.gif", "a.bmp"):
        path = saved(tmp_path / name, Image.fromarray(np.tile(COLOURS, (20, 20, 1))))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refused(path, read_volume, "cannot be read")


@pytest.mark.parametrize("order", "<>")
def test_signed_bytes_stay_signed(tmp_path, order):
    """Pillow takes SampleFormat 2 of eight bits for unsigned: -50 becomes 206."""
    values = np.arange(-50, 50, dtype=np.int8).reshape(10, 10)

    def short(tag, value):
        return struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)

    def long(tag, value):
        return struct.pack(f"{order}HHII", tag, 4, 1, value)

    tags = [short(256, 10), short(257, 10), short(258, 8), short(259, 1), short(262, 1)]
    tags += [long(273, 10 + 12 * 10 + 4), short(277, 1), short(278, 10), long(279, 100)]
    tags += [short(339, 2)]
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    path = tmp_path / "a.tif"
    path.write_bytes(start + b"".join(tags) + bytes(4) + values.tobytes())
    np.testing.assert_array_equal(read_volume(path).values[0], values)


def test_a_pixel_that_is_no_number_is_called_so_and_counted_once(tmp_path):
    values = np.zeros((4, 5), np.float32)
    values[1, 2] = np.nan
    path = saved(tmp_path / "a.tif", Image.fromarray(values))
    for read in (read_volume, read_mask):
        refused(path, read, "1 of 20 voxels that are NaN")
