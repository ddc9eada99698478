"""What names a patient is counted and never told; a pseudonym tells nothing without the secret."""

from dataclasses import asdict

import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from federated.data.folders.dicom.identifiers import identifying
from federated.errors import ConsiliumError
from federated.secrets.pseudonyms import pseudonym, pseudonym_secret
from tests.federated.data.dicom_files import blank, item, pixels, saved, slices_of, voxels

SECRET, OTHER = b"s" * 32, b"t" * 32


def test_attributes_with_a_value_are_counted_and_no_value_is_told(tmp_path):
    made = slices_of(voxels(3))
    made[0].InstitutionName = "St. Elsewhere"
    made[1].RequestAttributesSequence = [item(RequestingPhysician="SMITH^ANN")]
    made[2].PatientName = ""
    for one in made:
        one.BurnedInAnnotation = "NO"
    found = identifying(saved(tmp_path, made))
    assert found.files == 3
    assert found.attributes["PatientID"] == found.attributes["PatientBirthDate"] == 3
    assert found.attributes["PatientName"] == 2
    assert found.attributes["InstitutionName"] == 1
    assert found.attributes["RequestingPhysician"] == 1
    assert "AccessionNumber" not in found.attributes  # it is empty
    assert (found.private, found.burned_in, found.perhaps_burned_in) == (0, 0, 0)
    told = str(asdict(found))
    for value in ("DOE", "4711", "Elsewhere", "SMITH", "1950"):
        assert value not in told


def test_private_attributes_burned_in_names_and_overlays_are_counted(tmp_path):
    capture = pixels(blank(SecondaryCaptureImageStorage, "OT"), voxels(1)[0])
    made = slices_of(voxels(4))
    made[0].private_block(0x0009, "MAKER", create=True).add_new(1, "LO", "DOE^JOHN")
    made[1].BurnedInAnnotation = "YES"
    made[2].add_new(0x60003000, "OW", b"\0\0")
    made[3].PatientIdentityRemoved = "YES"
    found = identifying(saved(tmp_path, [*made, capture]))
    assert (found.private, found.burned_in, found.perhaps_burned_in) == (1, 1, 1)
    assert (found.overlays, found.said_removed) == (1, 1)
    assert "DOE" not in str(found)


def test_a_pseudonym_is_one_name_at_one_site(tmp_path):
    name = pseudonym("MRN-4711", SECRET)
    assert name == pseudonym(" MRN-4711 ", SECRET)
    assert len(name) == 16
    assert name != pseudonym("MRN-4712", SECRET)
    assert name != pseudonym("MRN-4711", OTHER)
    with pytest.raises(ValueError, match="without an ID"):
        pseudonym("  ", SECRET)


def test_the_secret_is_made_once_and_is_its_owners_alone(tmp_path):
    home = tmp_path / "home"
    secret = pseudonym_secret(home)
    assert len(secret) == 32
    assert pseudonym_secret(home) == secret
    assert pseudonym_secret(tmp_path / "other") != secret
    path = home / "pseudonyms.key"
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    with pytest.raises(ConsiliumError, match="for its owner alone"):
        pseudonym_secret(home)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConsiliumError, match="has 5 bytes and not 32"):
        pseudonym_secret(home)
