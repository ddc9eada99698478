"""Tables beside images, as they come back from a spreadsheet."""

import pytest

from federated.data.folders.families import FAMILIES
from federated.data.folders.families.side_table import read_side_table
from federated.errors import ConsiliumError

HEADER = "lesion_id,image_id,dataset\n"
ROWS = "L1,ISIC_1,vienna\nL1,ISIC_2,vienna\nL2,ISIC_3,Zürich\n"


def skin(folder, content, images=3):
    for number in range(1, images + 1):
        for path in (f"images/ISIC_{number}.jpg", f"masks/ISIC_{number}_segmentation.png"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
    (folder / "HAM10000_metadata.csv").write_bytes(content)
    return FAMILIES["skin"].find(folder).cases


SAVED = {
    "plain": (HEADER + ROWS).encode(),
    "a byte order mark": (HEADER + ROWS).encode("utf-8-sig"),
    "semicolons": (HEADER + ROWS).replace(",", ";").encode(),
    "tabs": (HEADER + ROWS).replace(",", "\t").encode(),
    "Latin-1": (HEADER + ROWS).encode("latin-1"),
    "Unicode text of Excel": (HEADER + ROWS).replace(",", "\t").encode("utf-16"),
    "UTF-32": (HEADER + ROWS).encode("utf-32"),
    "UTF-32 the other way round": b"\0\0\xfe\xff" + (HEADER + ROWS).encode("utf-32-be"),
    "Windows' line ends": (HEADER + ROWS).replace("\n", "\r\n").encode(),
    "old line ends": (HEADER + ROWS).replace("\n", "\r").encode(),
    "empty lines": ("\n" + HEADER + ",,\n" + ROWS + "\n,,\n").encode(),
    "a separator that is named": ("sep=;\r\n" + (HEADER + ROWS).replace(",", ";")).encode(),
    "quotes": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in (HEADER + ROWS).splitlines()
    ).encode(),
    "a header in other letters": (" Lesion_ID , IMAGE_ID,Dataset \n" + ROWS).encode(),
    "spaces": (HEADER + ROWS.replace(",", " , ")).encode(),
    "names of files": (HEADER + ROWS.replace("ISIC_1", "ISIC_1.jpg")).encode(),
    "empty columns": (HEADER.replace("\n", ",,\n") + ROWS.replace("\n", ",,\n")).encode(),
    "a note with a separator": (
        "lesion_id,image_id,dataset,note\n" + ROWS.replace("\n", ',"a, b"\n')
    ).encode(),
    "the same line twice": (HEADER + ROWS + ROWS).encode(),
}


@pytest.mark.parametrize("saved", SAVED)
def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path, saved):
    cases = skin(tmp_path, SAVED[saved])
    assert [case.patient for case in cases] == ["L1", "L1", "L2"]
    assert [case.site for case in cases] == ["vienna", "vienna", "Zürich"]
    assert all(case.patient_known for case in cases)


REFUSED = {
    "another column": (
        b"lesion,image_id\nL1,ISIC_1\n",
        r"columns image_id, lesion_id.*'lesion, im",
    ),
    "nothing": (b"", r"columns image_id, lesion_id"),
    "a spreadsheet's own file": (b"PK\x03\x04\0\0", r"Save it as CSV"),
    "a column twice": (b"lesion_id,image_id,image_id\nL1,ISIC_1,ISIC_2\n", r"each once"),
    "other patients": (
        (HEADER + ROWS + "L9,ISIC_1,vienna\nL8,ISIC_3,vienna\n").encode(),
        r"lines 2 and 5 of ISIC_1; lines 4 and 6 of ISIC_3",
    ),
    "too many cells": ((HEADER + "L1,ISIC_1,a,b\n").encode(), r"Line 2 .* has 4 cells.* 3 columns"),
    "other names": (
        b"lesion_id,image_id\nL1,1\nL2,2\n",
        r"column image_id has '1', '2', and the c",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_table_that_is_not_clear_is_refused_with_file_and_column(tmp_path, fault):
    content, said = REFUSED[fault]
    with pytest.raises(ConsiliumError, match=said) as caught:
        skin(tmp_path, content)
    assert "HAM10000_metadata.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nothing", ["", "  ", "NA", "nan", "NULL", "unknown", "-"])
def test_images_without_a_patient_are_not_one_patients(tmp_path, nothing):
    rows = f"{nothing},ISIC_1,\n{nothing},ISIC_2,\nL2,ISIC_3,\n"
    cases = skin(tmp_path, (HEADER + rows).encode(), images=4)
    assert [case.patient for case in cases] == ["ISIC_1", "ISIC_2", "L2", "ISIC_4"]
    assert [case.patient_known for case in cases] == [False, False, True, False]


def brain(folder, table):
    for name in ("1", "2"):
        (folder / name).mkdir(parents=True)
        for kind in ("t1n", "t1c", "t2w", "t2f", "seg"):
            (folder / name / f"{name}-{kind}.nii.gz").touch()
    (folder / "partitioning_1.csv").write_text(table)
    return FAMILIES["brain"].find(folder).cases


def test_numbers_are_read_as_a_spreadsheet_writes_them(tmp_path):
    cases = brain(tmp_path, "Partition_ID;Subject_ID\n3.0;1.0\n04,0;2\n")
    assert [case.site for case in cases] == ["institution-03", "institution-04"]


def test_an_institution_that_is_no_number_is_refused_with_its_column(tmp_path):
    with pytest.raises(ConsiliumError, match=r"Partition_ID of the table .* has 'A' for 2.*number"):
        brain(tmp_path, "Partition_ID,Subject_ID\n3,1\nA,2\n")


@pytest.mark.parametrize("text", ["n.a.", "<NA>", "--", "missing", "Not available", "#REF!"])
def test_more_ways_to_say_that_nothing_is_known(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(f"image_id,lesion_id\na,{text}\nb,{text}\n")
    table = read_side_table(path, ["a", "b"], key="image_id", needed=("lesion_id",))
    assert [row["lesion_id"] for row in table.values()] == ["", ""]


def test_one_patient_in_two_forms_of_unicode_is_one(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image_id,lesion_id\na,\u00e9\nb,e\u0301\n", encoding="utf-8")
    table = read_side_table(path, ["a", "b"], key="image_id", needed=("lesion_id",))
    assert table["a"] == table["b"]


def test_a_quote_that_is_not_closed_swallows_no_line(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('image_id,lesion_id\na,"L1\nb,L2\n')
    with pytest.raises(ConsiliumError, match="cannot be read as CSV"):
        read_side_table(path, ["a", "b"], key="image_id", needed=("lesion_id",))
