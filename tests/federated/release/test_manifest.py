"""A dossier is as it was signed, or it is said what is not: attacks first."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from federated.errors import ConsiliumError
from federated.exchange.identity import Identity
from federated.release.manifest import (
    CONTEXT,
    MANIFEST,
    MOST_MANIFEST,
    SIGNATURE,
    Manifest,
    signed,
)
from flows.cli.release import verify
from tasks import release_folder
from tasks.release_folder import new_folder, sign_folder, verify_folder

COORDINATOR = Identity("coordinator", bytes(range(32)))
STRANGER = Identity("coordinator", bytes(range(1, 33)))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "release"
    (place / "bundle" / "models").mkdir(parents=True)
    (place / "bundle" / "models" / "model.pt").write_bytes(b"weights")
    (place / "card.md").write_text("# Card\n")
    sign_folder(place, "tiny", "3", "20260101-000000-abcd", COORDINATOR)
    return place


def refused(folder, key=None):
    with pytest.raises(ConsiliumError) as error:
        verify_folder(folder, key)
    said = str(error.value)
    assert "\n" not in said
    return said


def test_what_was_signed_is_found_as_it_was(folder):
    manifest = verify_folder(folder)
    assert (manifest.name, manifest.version) == ("tiny", "3")
    assert set(manifest.files) == {"bundle/models/model.pt", "card.md"}
    fingerprint = COORDINATOR.public.fingerprint
    assert verify_folder(folder, fingerprint) == manifest
    assert verify_folder(folder, fingerprint.replace(" ", "").upper()) == manifest


def test_every_bit_of_every_file_counts(folder):
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = path.read_bytes()
        for place in range(len(content)):
            for bit in (0, 5):  # the sixth changes a letter's case
                changed = bytearray(content)
                changed[place] ^= 1 << bit
                path.write_bytes(changed)
                with pytest.raises(ConsiliumError):
                    verify_folder(folder)
        path.write_bytes(content)
    verify_folder(folder)


def test_bytes_after_the_end_count(folder):
    for name in (MANIFEST, SIGNATURE, "card.md"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b"\n")
        refused(folder)
        (folder / name).write_bytes(content)


def test_a_changed_file_is_named(folder):
    (folder / "bundle/models/model.pt").write_bytes(b"weighty")
    said = refused(folder)
    assert "changed: bundle/models/model.pt" in said
    assert COORDINATOR.public.fingerprint in said


def test_missing_and_additional_files_are_named(folder):
    (folder / "card.md").rename(folder / ".card.md")
    said = refused(folder)
    assert "missing: card.md" in said
    assert "not part of it: .card.md" in said


def test_a_folder_with_nothing_in_it_is_added_too(folder):
    (folder / "scripts" / "empty").mkdir(parents=True)
    assert "not part of it: scripts/empty" in refused(folder)
    (folder / "scripts" / "empty").rmdir()
    (folder / "scripts").rmdir()
    verify_folder(folder)


@pytest.mark.parametrize("name", ["card.md", "more.md"])
def test_links_and_pipes_are_no_part_of_a_release(folder, name):
    # With the same content, which who owns the other end can change at any time.
    shutil.copy(folder / "card.md", folder.parent / "elsewhere")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder.parent / "elsewhere")
    assert name in refused(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert name in refused(folder)  # and does not wait for someone to write into it


def test_a_folder_behind_a_link_is_no_part_of_a_release(folder):
    (folder / "bundle").rename(folder.parent / "bundle")
    (folder / "bundle").symlink_to(folder.parent / "bundle")
    assert "missing: bundle/models/model.pt" in refused(folder)


def test_who_signs_a_changed_release_anew_is_told_by_the_fingerprint(folder):
    (folder / "card.md").write_text("# Better\n")
    (folder / MANIFEST).unlink()
    (folder / SIGNATURE).unlink()
    sign_folder(folder, "tiny", "3", "20260101-000000-abcd", STRANGER)
    assert verify_folder(folder).signer == STRANGER.public
    said = refused(folder, COORDINATOR.public.fingerprint)
    assert STRANGER.public.fingerprint in said
    assert "not of whom you name" in said


def test_a_signature_of_another_key_does_not_hold(folder):
    content = (folder / MANIFEST).read_bytes()
    (folder / SIGNATURE).write_bytes(STRANGER.sign(CONTEXT + content))
    assert "signature of the dossier does not hold" in refused(folder)


def test_a_signature_made_for_something_else_does_not_hold(folder):
    """A party that signs what others give it, but never a dossier, cannot be used for one."""
    content = (folder / MANIFEST).read_bytes()
    (folder / SIGNATURE).write_bytes(COORDINATOR.sign(content))
    assert "signature of the dossier does not hold" in refused(folder)


@pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "a/../../b", "", "a//b"])
def test_a_manifest_cannot_lead_out_of_its_folder(folder, path):
    value = json.loads((folder / MANIFEST).read_bytes())
    value["files"][path] = {"bytes": 1, "sha256": "0" * 64}
    content = json.dumps(value).encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / SIGNATURE).write_bytes(COORDINATOR.sign(CONTEXT + content))
    assert "no manifest of a dossier" in refused(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"form": "consilium release v1"}'],
)
def test_what_is_no_manifest_is_refused(folder, content):
    (folder / MANIFEST).write_bytes(content)
    assert "no manifest of a dossier" in refused(folder)


def test_what_is_no_release_is_refused(folder, tmp_path):
    assert "There is no folder" in refused(tmp_path / "nothing")
    assert "no dossier" in refused(tmp_path)
    (folder / SIGNATURE).unlink()
    assert "manifest.json.sig" in refused(folder)


def test_nobody_signs_in_the_name_of_another():
    manifest = Manifest("tiny", "3", "run", STRANGER.public, {})
    with pytest.raises(ValueError, match="another signer"):
        signed(manifest, COORDINATOR)


def mounted(disk):
    """What is said of a dossier where an empty file system of its own is mounted."""
    script = f"""
        from pathlib import Path
        from federated.errors import ConsiliumError
        from tasks.release_folder import new_folder
        try:
            with new_folder(Path({str(disk)!r})):
                pass
        except ConsiliumError as error:
            print(error)
    """
    mount = 'mount -t tmpfs none "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", disk, sys.executable, dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine does not let a test mount something")
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestNewFolder:
    """The folder is there whole or not at all."""

    def test_nothing_is_left_where_writing_fails(self, tmp_path):
        def write():
            with new_folder(tmp_path / "a" / "out") as place:
                (place / "x").write_text("x")
                raise ConsiliumError("no room")

        with pytest.raises(ConsiliumError, match="no room"):
            write()
        assert list((tmp_path / "a").iterdir()) == []

    def test_a_release_is_never_written_over_something(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "x").write_text("x")
        with pytest.raises(ConsiliumError, match="is there already"), new_folder(tmp_path / "out"):
            pass
        assert (tmp_path / "out" / "x").read_text() == "x"

    def test_the_working_folder_is_no_place_for_a_dossier(self, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        for out in (Path(), tmp_path / "here"):
            with pytest.raises(ConsiliumError, match="the folder that you are in"), new_folder(out):
                pass
        assert Path.cwd().samefile(tmp_path / "here")
        assert [path.name for path in tmp_path.iterdir()] == ["here"]

    def test_where_a_disk_is_mounted_no_dossier_appears(self, tmp_path):
        """Linux renames nothing onto it: that it is empty is no leave."""
        (tmp_path / "disk").mkdir()
        told = mounted(tmp_path / "disk")
        assert "where a disk is mounted" in told
        assert str(tmp_path / "disk" / "dossier") in told
        assert list(tmp_path.iterdir()) == [tmp_path / "disk"]
        assert list((tmp_path / "disk").iterdir()) == []

    def test_what_appears_there_meanwhile_is_not_replaced(self, tmp_path):
        def write():
            with new_folder(tmp_path / "out") as place:
                (place / "x").write_text("x")
                (tmp_path / "out").mkdir()
                (tmp_path / "out" / "mine").write_text("mine")

        with pytest.raises(ConsiliumError, match=r"Cannot write to the folder .*out"):
            write()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert (tmp_path / "out" / "mine").read_text() == "mine"

    def test_what_a_killed_process_left_is_removed_by_the_next_and_nothing_else(self, tmp_path):
        killed = f"""
            import os, signal
            from pathlib import Path
            from tasks.release_folder import new_folder
            with new_folder(Path({str(tmp_path / "out")!r})) as place:
                (place / "weights").write_bytes(b"x")
                os.kill(os.getpid(), signal.SIGKILL)
        """
        done = subprocess.run([sys.executable, "-c", dedent(killed)], check=False)
        assert done.returncode == -signal.SIGKILL
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".out")
        # What somebody else has there, under whatever name.
        others = {".out", ".out.backup", left.name.replace(".out", ".out2"), ".out" + "x" * 9}
        for name in others:
            (tmp_path / name).mkdir()
            (tmp_path / name / "kept").write_text("kept")
        (tmp_path / "elsewhere").mkdir()
        linked = left.with_name(f"{left.name}x")
        linked.symlink_to(tmp_path / "elsewhere")
        with new_folder(tmp_path / "out"):
            assert not left.exists()
        there = {path.name for path in tmp_path.iterdir()}
        assert there == {*others, "out", "elsewhere", linked.name}

    def test_two_that_write_at_once_leave_each_other_alone(self, tmp_path):
        def second():
            with new_folder(tmp_path / "out") as place:
                (place / "second").write_text("x")

        def first():
            with new_folder(tmp_path / "out") as place:
                (place / "first").write_text("x")
                second()
                assert (place / "first").read_text() == "x"

        with pytest.raises(ConsiliumError, match="Directory not empty"):
            first()
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["second"]
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_others_can_read_it(self, tmp_path):
        (tmp_path / "out").mkdir()  # an empty one may be there
        with new_folder(tmp_path / "out") as place:
            (place / "x").write_text("x")
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
        assert (tmp_path / "out" / "x").read_text() == "x"


def test_who_signs_comes_before_what_they_have_written(folder, capsys):
    """Words in the place of a fingerprint, and so many that the true one is cut off."""
    claimed = COORDINATOR.public.fingerprint
    lie = f"tiny, by the key with the fingerprint {claimed}. That is the key that you named."
    for own in (MANIFEST, SIGNATURE):
        (folder / own).unlink()
    sign_folder(folder, lie + " " * 4000, "3", "run", STRANGER)
    verify(folder)
    said = " ".join(capsys.readouterr().out.split())
    first = said.index(STRANGER.public.fingerprint)
    assert first < said.index("Whose key that is this command cannot know") < said.index("it is of")
    assert claimed not in said or first < said.index(claimed)


def test_a_folder_that_cannot_be_looked_into_is_no_dossier(folder, monkeypatch):
    inner, looked = folder / "bundle" / "models", os.scandir

    def closed(path):
        if str(path) == str(inner):
            raise PermissionError(errno.EACCES, "Permission denied", str(inner))
        return looked(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert "bundle/models" in refused(folder)


@pytest.fixture
def read_files(monkeypatch):
    """The names of the files that are read to be compared."""
    read, fact = [], release_folder._fact

    def noted(path):
        read.append(path.name)
        return fact(path)

    monkeypatch.setattr(release_folder, "_fact", noted)
    return read


def test_of_a_file_that_the_manifest_does_not_name_nothing_is_read(folder, read_files):
    with (folder / "huge").open("wb") as file:
        file.truncate(200 * 2**30)  # of which nothing is on the disk
    (folder / "small").write_text("x")
    assert "not part of it: huge, small" in refused(folder)
    assert sorted(read_files) == ["card.md", "model.pt"]


def test_of_a_file_of_another_size_nothing_is_read(folder, read_files):
    with (folder / "card.md").open("ab") as file:
        file.truncate(200 * 2**30)
    assert "changed: card.md" in refused(folder)
    assert read_files == ["model.pt"]


def test_before_a_signature_holds_no_file_is_read(folder, read_files):
    (folder / SIGNATURE).write_bytes(bytes(64))
    refused(folder)
    assert read_files == []


def test_a_manifest_of_more_than_any_dossier_has_is_not_read_to_its_end(folder, monkeypatch):
    value = json.loads((folder / MANIFEST).read_bytes())
    content = json.dumps(value | {"more": " " * MOST_MANIFEST}).encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / SIGNATURE).write_bytes(COORDINATOR.sign(CONTEXT + content))
    monkeypatch.setattr(Manifest, "from_bytes", lambda *_: pytest.fail("it was parsed"))
    assert "larger than that of any dossier" in refused(folder)
    with (folder / MANIFEST).open("wb") as file:
        file.truncate(200 * 2**30)
    assert "larger than that of any dossier" in refused(folder)
