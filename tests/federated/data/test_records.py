"""A record is told from others by its values alone."""

import os
import stat
from pathlib import Path

import nibabel
import numpy as np
import pytest

from federated.data import kept_digests, records
from federated.data.folders.families import CaseFiles
from federated.data.folders.volume import Volume
from federated.data.records import case_digest, identities, labelled_digests
from federated.errors import ConsiliumError


def test_a_record_is_the_same_under_another_name_compression_and_type(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    digests = set()
    for name, kind in (("a.nii.gz", np.int16), ("b.nii", np.int16), ("c.nii", np.float32)):
        nibabel.save(nibabel.Nifti1Image(values.astype(kind), np.eye(4)), tmp_path / name)
        nibabel.save(
            nibabel.Nifti1Image((values > 3).astype(np.uint8), np.eye(4)), tmp_path / f"m{name}"
        )
        digests.add(case_digest(CaseFiles(name, (tmp_path / name,), tmp_path / f"m{name}", name)))
    assert len(digests) == 1


def test_another_label_voxel_or_shape_is_another_record() -> None:
    images, labels = np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 1])
    one, other = labelled_digests(images, labels)
    assert one != other
    changed = images.copy()
    changed[0, 0, 0, 0] = 1
    assert labelled_digests(changed, labels)[0] != one
    assert labelled_digests(images.reshape(2, 1, 2, 8), labels)[0] != one


def test_taking_a_record_away_leaves_the_names_of_the_others() -> None:
    names = identities(["a", "b", "a", "c"])
    assert len(set(names)) == 4
    assert set(identities(["b", "a", "c"])) == set(names) - {"a-1"}
    assert set(identities(["c", "a", "b", "a"])) == set(names)


class TestKept:
    """A digest is worked out once for files that stay as they are, and never taken for others."""

    @pytest.fixture
    def case(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaseFiles:
        # Files of this moment count as settled.
        monkeypatch.setattr(kept_digests, "SETTLED_NS", 0)
        image, mask = tmp_path / "a.nii", tmp_path / "m.nii"
        self.write(image, 1)
        self.write(mask, 1)
        return CaseFiles("a", (image,), mask, "a")

    @staticmethod
    def write(path: Path, label: int) -> None:
        values = np.zeros((4, 4, 4), np.uint8)
        values[0, 0, 0] = label
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)

    @staticmethod
    def fresh_digest(case: CaseFiles) -> str:
        """As another process works it out."""
        records._digest_of.cache_clear()
        return records.case_digest(case)

    @staticmethod
    def kept_files(home: Path) -> list[Path]:
        return [path for path in (home / "digests").rglob("*") if path.is_file()]

    def test_another_process_reads_no_volume(
        self, case: CaseFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.fresh_digest(case)
        monkeypatch.setattr(records, "read_case", None)
        assert self.fresh_digest(case) == first

    @pytest.mark.parametrize("which", ["image", "mask"])
    def test_a_changed_file_is_read_again_though_size_and_time_are_the_same(
        self, case: CaseFiles, which: str
    ) -> None:
        first = self.fresh_digest(case)
        path = case.images[0] if which == "image" else case.mask
        assert path is not None
        before = path.stat()
        self.write(path, 2)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
        assert records.case_digest(case) != first  # in the same process
        assert self.fresh_digest(case) != first

    def test_a_file_that_has_just_changed_is_not_trusted(
        self, case: CaseFiles, monkeypatch: pytest.MonkeyPatch, consilium_home: Path
    ) -> None:
        monkeypatch.setattr(kept_digests, "SETTLED_NS", 10**12)
        self.fresh_digest(case)
        assert not self.kept_files(consilium_home)

    def test_a_file_that_changes_while_it_is_read_is_not_kept(
        self, case: CaseFiles, monkeypatch: pytest.MonkeyPatch, consilium_home: Path
    ) -> None:
        def meddled(case: CaseFiles) -> tuple[list[Volume], Volume | None]:
            volumes = read(case)
            self.write(case.images[0], 7)
            return volumes

        read = records.read_case
        monkeypatch.setattr(records, "read_case", meddled)
        self.fresh_digest(case)
        assert not self.kept_files(consilium_home)

    def test_other_code_works_it_out_anew(
        self, case: CaseFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fresh_digest(case)
        monkeypatch.setattr(kept_digests, "code_digest", lambda: "another")
        monkeypatch.setattr(records, "_worked_out", lambda _: "f" * 64)
        assert self.fresh_digest(case) == "f" * 64

    @pytest.mark.parametrize("damage", [b"", b"f" * 63, b"F" * 64, b"\xff" * 64])
    def test_a_damaged_one_is_not_believed(
        self, case: CaseFiles, damage: bytes, consilium_home: Path
    ) -> None:
        first = self.fresh_digest(case)
        (kept,) = self.kept_files(consilium_home)
        kept.write_bytes(damage)
        assert self.fresh_digest(case) == first
        assert kept.read_text() == first

    def test_it_is_for_its_owner_alone_and_names_no_file(
        self, case: CaseFiles, consilium_home: Path
    ) -> None:
        self.fresh_digest(case)
        (kept,) = self.kept_files(consilium_home)
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert "a.nii" not in str(kept)
        kept.parent.chmod(0o755)
        with pytest.raises(ConsiliumError, match="permissions 755"):
            self.fresh_digest(case)

    def test_a_home_that_cannot_be_made_stops_nothing(
        self, case: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("CONSILIUM_HOME", str(tmp_path / "file" / "home"))
        assert len(self.fresh_digest(case)) == 64
