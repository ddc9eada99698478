"""What is read of NIfTI files, and what is refused, with its value, in one paragraph."""

import gzip
import struct
import warnings

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated.data.folders.families import FAMILIES
from federated.data.folders.prepared_case import prepare_volumes
from federated.data.folders.read_volume import read_mask, read_volume
from federated.data.folders.volume import Volume, affine_gap
from federated.errors import ConsiliumError

VALUES = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)


def image(values=VALUES, affine=None, kind=nibabel.Nifti1Image):
    return kind(values, np.eye(4) if affine is None else affine)


def written(path, made):
    nibabel.save(made, path)
    return path


def patched(path, made, changes):
    """A file whose header has some bytes changed: by offset, ``struct``'s format and values."""
    content = bytearray(made.to_bytes())
    for offset, form, *values in changes:
        struct.pack_into(form, content, offset, *values)
    path.write_bytes(bytes(content))
    return path


def refused(path, read=read_volume):
    with pytest.raises(ConsiliumError) as error:
        read(path)
    said = str(error.value)
    assert str(path) in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize(("unit", "per_mm"), [("micron", 1000.0), ("meter", 0.001), ("mm", 1.0)])
def test_the_unit_of_length_is_honoured(tmp_path, unit, per_mm):
    affine = np.diag([0.8, 1.0, 2.0, 1.0])
    affine[:3, 3] = 5, -7, 9
    in_unit = affine.copy()
    in_unit[:3] *= per_mm
    made = image(affine=in_unit)
    made.header.set_xyzt_units(unit)
    read = read_volume(written(tmp_path / "a.nii.gz", made))
    np.testing.assert_allclose(read.affine, affine, rtol=1e-6)


def test_a_unit_that_there_is_not_is_refused_by_its_number(tmp_path):
    assert "unit of length 5" in refused(patched(tmp_path / "a.nii", image(), [(123, "B", 5)]))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["sform_code", "qform_code"])
@pytest.mark.parametrize("code", [99, 6, -1])
def test_a_code_of_a_form_that_there_is_not_is_refused_by_its_number(tmp_path, kind, name, code):
    """Readers take it for 0, and then the file's own affine is not that of the image."""
    made = image(affine=np.diag([-1.0, 1.0, 1.0, 1.0]), kind=kind)
    made.header[name] = code
    (tmp_path / "a.nii").write_bytes(made.to_bytes())
    assert f"has the {name} {code}; NIfTI knows 0 to 5" in refused(tmp_path / "a.nii")


@pytest.mark.parametrize(("length", "off", "same"), [(5, 0, True), (9, 0, True), (5, 0.02, False)])
def test_a_rotation_of_half_a_turn_as_quaternion_and_as_matrix_is_one(tmp_path, length, off, same):
    """NIfTI leaves out the quaternion's first number, which is small there and loses digits."""
    axis = np.array([0.15532571, -0.96765772, 0.19877743])
    turn = nibabel.quaternions.angle_axis2mat(3.1403933801731188, axis)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.9, 0.9, length])
    matrix, quaternion = image(affine=affine.copy()), image()
    quaternion.set_sform(None, 0)
    affine[0, 3] = off
    quaternion.set_qform(affine, 1)
    files = [written(tmp_path / "i.nii", matrix), written(tmp_path / "l.nii", quaternion)]
    gap = affine_gap([read_volume(path) for path in files])
    assert (gap == 0) is same


def test_a_mirror_that_is_not_clear_is_refused_where_it_counts(tmp_path):
    made = image()
    made.set_qform(np.diag([1.0, 1.0, -2.0, 1.0]), 1)
    made.set_sform(None, 0)
    assert "pixdim[0] = -3" in refused(patched(tmp_path / "a.nii", made, [(76, "<f", -3)]))
    made.set_sform(np.diag([1.0, 1.0, -2.0, 1.0]), 1)
    read = read_volume(patched(tmp_path / "b.nii", made, [(76, "<f", -3)]))
    np.testing.assert_array_equal(read.affine, np.diag([1.0, 1.0, -2.0, 1.0]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((40, "<h", 9), "9 axes (dim[0])"),
        ((40, "<h", 0), "0 axes (dim[0])"),
        ((70, "<h", 0), "data type 0"),
        ((70, "<h", 7777), "data type 7777"),
        ((108, "<f", 16), "begin at byte 16"),
        ((108, "<f", 349), "begin at byte 349"),
        ((108, "<f", 352.5), "begin at byte 352.5"),
        ((252, "<h", 77), "qform_code 77"),
        ((80, "<f", -1), None),
        ((76, "<f", 0), None),
    ],
)
def test_a_person_reads_our_text_alone(tmp_path, caplog, capfd, change, said):
    path = patched(tmp_path / "a.nii", image(), [change])
    if said:
        assert said in refused(path)
    else:
        read_volume(path)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_fourth_axis_without_any_voxels_is_said_to_have_none(tmp_path):
    path = patched(tmp_path / "a.nii", image(VALUES[..., np.newaxis]), [(40, "<5h", 4, 5, 6, 7, 0)])
    assert "it has 5x6x7x0 voxels" in refused(path)


@pytest.mark.parametrize("side", [1e-3, 0.0, 500.0])
def test_voxels_of_an_impossible_size_are_refused_with_their_size(tmp_path, side):
    rows = [(280, "<12f", side, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)]
    said = refused(patched(tmp_path / "a.nii", image(), rows))
    assert f"{side:.6g} x 1 x 1 mm" in said


def test_an_affine_of_zeros_and_one_whose_axes_lie_in_a_plane_are_refused(tmp_path):
    zero = patched(tmp_path / "a.nii", image(), [(280, "<12f", *[0.0] * 12)])
    assert "0 x 0 x 0 mm" in refused(zero)
    flat = patched(tmp_path / "b.nii", image(), [(280, "<12f", 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)])
    assert "axes lie in a plane" in refused(flat)
    nan = patched(tmp_path / "c.nii", image(), [(280, "<f", float("nan"))])
    assert "no 4x4 matrix of numbers" in refused(nan)


def test_a_file_with_a_qform_alone_lies_as_that_says(tmp_path):
    affine = np.array([[0, -2, 0, 4], [1, 0, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]], float)
    made = image()
    made.set_qform(affine, 1)
    made.set_sform(None, 0)
    made.header["srow_x"] = 0
    np.testing.assert_allclose(
        read_volume(written(tmp_path / "a.nii", made)).affine, affine, atol=1e-5
    )


def test_a_file_that_does_not_say_how_it_lies_is_read_with_a_warning(tmp_path):
    made = nibabel.Nifti1Image(VALUES, None)
    with pytest.warns(UserWarning, match=r"a\.nii does not say how it lies"):
        read_volume(written(tmp_path / "a.nii", made))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_volume(written(tmp_path / "b.nii", image()))


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), r"128 \(RGB\)"),
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")]), r"2304 \(RGBA\)"),
        (np.complex64, r"32 \(complex64\)"),
    ],
)
def test_colours_and_complex_numbers_are_refused_by_their_name(tmp_path, dtype, name):
    path = written(tmp_path / "a.nii.gz", image(np.zeros((4, 5, 6), dtype)))
    for read in (read_volume, read_mask):
        with pytest.raises(ConsiliumError, match=name):
            read(path)


def test_an_unknown_data_type_is_refused(tmp_path):
    refused(patched(tmp_path / "a.nii", image(), [(70, "<h", 7777)]))
    refused(patched(tmp_path / "b.nii", image(), [(70, "<h", 1), (72, "<h", 1)]))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("sides", [(32767, 32767, 32767), (900, 900, 900), (5, 0, 7), (5, -6, 7)])
def test_sizes_are_compared_with_the_file_before_memory_is_taken(tmp_path, name, sides):
    path = tmp_path / name
    patched(path, image(), [(42, "<3h", *sides)])
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert "The header of the file" in refused(path)


def test_one_volume_in_four_axes_is_read_and_more_are_refused(tmp_path):
    single = written(tmp_path / "a.nii", image(VALUES[..., np.newaxis]))
    assert read_volume(single).values.shape == (1, 5, 6, 7)
    five = written(tmp_path / "b.nii", image(VALUES[..., np.newaxis, np.newaxis]))
    assert read_volume(five).values.shape == (1, 5, 6, 7)
    assert "4 axes, 5x6x7x2" in refused(
        written(tmp_path / "c.nii", image(np.stack([VALUES] * 2, -1)))
    )
    said = refused(written(tmp_path / "d.nii", image(VALUES[..., 0])))
    assert "2 axes, 5x6" in said
    assert "all slices of the image as one file" in said


def test_nifti_2_big_endian_and_any_case_of_the_ending_are_read(tmp_path):
    expected = VALUES[np.newaxis].astype(np.float32)
    for name, made in (
        ("a.nii", image(kind=nibabel.Nifti2Image)),
        ("B.NII.GZ", image()),
        ("c.Nii", nibabel.Nifti1Image(VALUES, np.eye(4), nibabel.Nifti1Header(endianness=">"))),
    ):
        content = made.to_bytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("GZ") else content)
        read = read_volume(tmp_path / name)
        assert read.values.dtype.isnative
        np.testing.assert_array_equal(read.values, expected)


def test_a_file_that_is_half_there_is_refused(tmp_path):
    whole = image(np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16))
    plain = whole.to_bytes()
    packed = gzip.compress(plain)
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # of the checksum
    for name, content in {
        "a.nii": plain[:-5],
        "b.nii": plain[:300],
        "c.nii.gz": packed[:-20],
        "d.nii.gz": bytes(flipped),
        "e.nii": b"",
        "f.nii": b"a note",
    }.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)
    assert "cannot be read" in refused(tmp_path / "absent.nii")


def test_one_of_a_pair_of_files_and_analyze_are_refused(tmp_path):
    assert ".hdr and .img" in refused(patched(tmp_path / "a.nii", image(), [(344, "4s", b"ni1\0")]))
    assert "Analyze" in refused(patched(tmp_path / "b.nii", image(), [(344, "4s", b"\0\0\0\0")]))


def test_large_numbers_keep_their_digits(tmp_path):
    large = VALUES.astype(np.int32) + 2**28
    read = read_volume(written(tmp_path / "a.nii", image(large)))
    np.testing.assert_array_equal(read.values[0], large)
    assert read_volume(written(tmp_path / "b.nii", image())).values.dtype == np.float32


@pytest.mark.parametrize(("kind", "value"), [(np.int64, -(2**53) - 1), (np.uint64, 2**64 - 1)])
def test_whole_numbers_that_would_be_rounded_are_refused(tmp_path, kind, value):
    values = VALUES.astype(kind)
    values[1, 2, 3] = value
    made = nibabel.Nifti1Image(values, np.eye(4), dtype=kind)
    assert str(value) in refused(written(tmp_path / "a.nii", made))
    refused(written(tmp_path / "a.nii", made), read_mask)
    with pytest.raises(ConsiliumError, match=str(value)):
        Volume(values[np.newaxis], np.eye(4))
    values[1, 2, 3] = 2**53
    made = nibabel.Nifti1Image(values, np.eye(4), dtype=kind)
    assert read_volume(written(tmp_path / "b.nii", made)).values.max() == 2**53


@pytest.mark.parametrize("row", [(0, 0, 0, 2), (0, 0, 0, 0), (1e-3, 0, 0, 1)])
def test_an_affine_with_another_last_row_is_refused(row):
    with pytest.raises(ConsiliumError, match="last row of the affine of the image x is"):
        Volume(VALUES[np.newaxis], np.array([*np.eye(4)[:3], row]), "x")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_with_count_and_place(tmp_path, wrong):
    values = VALUES.astype(np.float64)
    values[1, 2, 3] = values[4, 0, 0] = wrong
    said = refused(written(tmp_path / "a.nii", image(values)))
    assert "2 of 210 voxels" in said
    assert "(1, 2, 3)" in said
    assert "2 of 210 voxels" in refused(tmp_path / "a.nii", read_mask)


def test_numbers_too_large_for_the_network_are_refused(tmp_path):
    values = VALUES.astype(np.float64)
    values[0, 0, 1] = 1e300
    assert "1 of 210 voxels" in refused(written(tmp_path / "a.nii", image(values)))


class TestMasks:
    @pytest.mark.parametrize("kind", [np.int16, np.uint8, np.int32])
    def test_labels_come_back_from_the_slope_that_nibabel_chooses(self, tmp_path, kind):
        labels = np.random.default_rng(0).integers(0, 5, (6, 7, 8))
        made = image(labels.astype(np.float64))
        made.set_data_dtype(kind)
        read = read_mask(written(tmp_path / "m.nii.gz", made))
        np.testing.assert_array_equal(read.values[0], labels)

    @pytest.mark.parametrize("value", [0.9, 1.5, 0.01, 1.000123456789])
    def test_what_is_no_label_is_printed_with_its_digits_and_place(self, tmp_path, value):
        labels = np.zeros((4, 5, 6))
        labels[1, 2, 3] = value
        said = refused(written(tmp_path / "m.nii", image(labels)), read_mask)
        assert f"for example {value!r} at (1, 2, 3)" in said

    @pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.5), (0.8, 0.0), (0.5, 0.0), (2.5, 0)])
    def test_a_slope_that_makes_labels_unclear_is_refused(self, tmp_path, slope, intercept):
        made = image(np.arange(4, dtype=np.uint8).reshape(1, 2, 2).repeat(2, 0))
        made.header.set_slope_inter(slope, intercept)
        path = tmp_path / "m.nii"
        patched(path, made, [(112, "<2f", slope, intercept)])
        refused(path, read_mask)

    def test_a_label_beyond_all_sense_is_not_wrapped(self, tmp_path):
        labels = np.zeros((4, 5, 6), np.uint32)
        labels[0, 0, 0] = 2**32 - 1
        assert "4294967295" in refused(written(tmp_path / "m.nii", image(labels)), read_mask)
        real = labels.astype(np.float64)
        real[0, 0, 0] = -1e12
        assert "-1000000000000.0" in refused(written(tmp_path / "m.nii", image(real)), read_mask)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.dictionaries(st.integers(0, 351), st.integers(0, 255), min_size=1, max_size=8),
    nifti2=st.booleans(),
    packed=st.booleans(),
    cut=st.one_of(st.none(), st.integers(0, 700)),
)
def test_whatever_a_header_says_a_person_reads_one_paragraph(
    tmp_path, changes, nifti2, packed, cut
):
    content = bytearray(
        image(kind=nibabel.Nifti2Image if nifti2 else nibabel.Nifti1Image).to_bytes()
    )
    for offset, byte in changes.items():
        content[offset] = byte
    path = tmp_path / "f.nii"
    path.write_bytes(gzip.compress(bytes(content[:cut])) if packed else bytes(content[:cut]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (read_volume, read_mask):
            try:
                volume = read(path)
                assert np.isfinite(volume.values).all()
                if read is read_volume:
                    prepare_volumes(FAMILIES["hippocampus"], "f", [volume])
            except ConsiliumError as error:
                assert "\n" not in str(error)  # noqa: PT017 - either way is right
