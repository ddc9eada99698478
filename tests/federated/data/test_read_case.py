"""A photograph and its mask lie on each other, or are refused."""

import numpy as np
import pytest
from PIL import Image

from federated.data.folders.families import FAMILIES, CaseFiles, Listing
from federated.data.folders.phantom import write_phantom
from federated.data.folders.picture_file import as_stored
from federated.data.folders.prepared_case import prepare_case
from federated.data.folders.read_case import read_case
from federated.data.folders.table import folder_tables
from federated.errors import ConsiliumError


class TestAMaskThatDoesNotSayHowItLies:
    """Of a photograph with an EXIF orientation; what shapes tell is used, else it is refused."""

    LABELS = np.zeros((24, 40), np.uint8)
    LABELS[3:9, 5:30] = 1
    PHOTOGRAPH = np.add.outer(np.arange(24) * 5, np.arange(40) * 3).astype(np.uint8)

    @staticmethod
    def save(path, values, orientation=None):
        tag = Image.Exif()
        if orientation:
            tag[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(values)).save(path, exif=tag)
        return path

    def read(self, image, mask):
        images, labels = read_case(CaseFiles("a", (image,), mask, "a"))
        return images[0].values[0], labels.values[0]

    @pytest.mark.parametrize("orientation", range(5, 9))
    @pytest.mark.parametrize("drawn_on", ["what is shown", "what is stored"])
    def test_its_shape_tells(self, tmp_path, orientation, drawn_on):
        stored = as_stored(self.PHOTOGRAPH, orientation)
        image = self.save(tmp_path / "i.png", stored, orientation)
        lies = as_stored(self.LABELS, orientation) if drawn_on == "what is stored" else self.LABELS
        pixels, labels = self.read(image, self.save(tmp_path / "m.png", lies))
        np.testing.assert_array_equal(pixels, self.PHOTOGRAPH)
        np.testing.assert_array_equal(labels, self.LABELS)

    @pytest.mark.parametrize("orientation", range(5, 9))
    def test_a_photograph_without_the_tag_that_its_mask_has_is_turned_with_it(
        self, tmp_path, orientation
    ):
        image = self.save(tmp_path / "i.png", as_stored(self.PHOTOGRAPH, orientation))
        mask = self.save(tmp_path / "m.png", as_stored(self.LABELS, orientation), orientation)
        pixels, labels = self.read(image, mask)
        np.testing.assert_array_equal(pixels, self.PHOTOGRAPH)
        np.testing.assert_array_equal(labels, self.LABELS)

    @pytest.mark.parametrize("orientation", range(2, 9))
    @pytest.mark.parametrize("silent", ["mask", "image"])
    def test_where_the_shape_does_not_tell_it_is_refused(self, tmp_path, orientation, silent):
        square = np.s_[:, :] if orientation < 5 else np.s_[:, :24]
        pictures = {}
        for name, values in (("image", self.PHOTOGRAPH), ("mask", self.LABELS)):
            stored = as_stored(values[square], orientation)
            tag = None if name == silent else orientation
            pictures[name] = self.save(tmp_path / f"{name}.png", stored, tag)
        with pytest.raises(ConsiliumError, match="nobody can tell") as refusal:
            self.read(pictures["image"], pictures["mask"])
        assert str(pictures["image"]) in str(refusal.value)
        assert str(pictures["mask"]) in str(refusal.value)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("of_the_mask", range(1, 9))
    def test_what_both_say_is_believed(self, tmp_path, orientation, of_the_mask):
        image = as_stored(self.PHOTOGRAPH, orientation)
        mask = as_stored(self.LABELS, of_the_mask)
        pixels, labels = self.read(
            self.save(tmp_path / "i.png", image, orientation),
            self.save(tmp_path / "m.png", mask, of_the_mask),
        )
        np.testing.assert_array_equal(pixels, self.PHOTOGRAPH)
        np.testing.assert_array_equal(labels, self.LABELS)

    @pytest.mark.parametrize("orientation", range(2, 9))
    def test_a_tiff_that_says_upright_says_nothing(self, tmp_path, orientation):
        """It is the format's default, and what SimpleITK writes of masks on stored pixels."""
        image = self.save(tmp_path / "i.png", as_stored(self.PHOTOGRAPH, orientation), orientation)
        mask = self.save(tmp_path / "m.tif", as_stored(self.LABELS, orientation), 1)
        if orientation < 5:
            with pytest.raises(ConsiliumError, match="nobody can tell"):
                self.read(image, mask)
        else:
            np.testing.assert_array_equal(self.read(image, mask)[1], self.LABELS)

    def test_a_mask_that_lies_alike_either_way_is_not_refused(self, tmp_path):
        image = self.save(tmp_path / "i.png", self.PHOTOGRAPH, 3)
        _, labels = self.read(image, self.save(tmp_path / "m.png", np.zeros_like(self.LABELS)))
        assert not labels.any()

    def test_metadata_that_cannot_be_read_say_nothing(self, tmp_path):
        path = tmp_path / "i.png"
        Image.fromarray(self.PHOTOGRAPH).save(path, exif=b"Exif\0\0MM\0*garbage")
        pixels, _ = self.read(path, self.save(tmp_path / "m.png", self.LABELS))
        np.testing.assert_array_equal(pixels, self.PHOTOGRAPH)

    def test_an_orientation_that_is_upright_asks_nothing_of_a_mask(self, tmp_path):
        image = self.save(tmp_path / "i.png", self.PHOTOGRAPH, 1)
        mask = self.save(tmp_path / "m.png", self.LABELS)
        _, labels = self.read(image, mask)
        np.testing.assert_array_equal(labels, self.LABELS)

    def test_validation_names_it_and_so_does_preparing(self, tmp_path):
        family = FAMILIES["skin"]
        write_phantom(family, tmp_path, 1, seed=0, shape=(64, 80))
        case = family.find(tmp_path).cases[0]
        photograph = np.asarray(Image.open(case.images[0]))
        self.save(case.images[0], photograph, 3)
        table = folder_tables(family, {"a": Listing((case,), ())})["a"]
        assert "nobody can tell" in table["unreadable"][0]
        with pytest.raises(ConsiliumError, match="nobody can tell"):
            prepare_case(family, case)
