"""Whole or absent, whatever happens in between."""

import errno
import os
from pathlib import Path

import pytest

from sb3_diayn.files import check_writable, replacing, write_bytes


class DiskIsFull(OSError):
    pass


def fill_disk():
    raise DiskIsFull(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_new_content_takes_the_place_of_the_old(tmp_path):
    file = tmp_path / "new" / "a.json"
    write_bytes(file, b"old")
    with replacing(file) as temporary:
        assert temporary.parent == file.parent and temporary.suffix == ".json"
        temporary.write_bytes(b"new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new" and names(file.parent) == ["a.json"]


@pytest.mark.parametrize("error", [DiskIsFull, KeyboardInterrupt, ValueError])
def test_whatever_is_raised_the_old_file_stays_whole(tmp_path, error):
    file = tmp_path / "a.json"
    write_bytes(file, b"old")
    with pytest.raises(error), replacing(file) as temporary:
        temporary.write_bytes(b"ne")
        raise error
    assert file.read_bytes() == b"old" and names(tmp_path) == ["a.json"]


def test_a_full_disk_is_noticed_when_the_file_is_flushed(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_bytes(file, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: fill_disk())
    with pytest.raises(OSError, match="No space left on device"):
        write_bytes(file, b"new")
    assert file.read_bytes() == b"old" and names(tmp_path) == ["a.json"]


def test_what_a_killed_process_left_is_removed_in_time(tmp_path):
    with replacing(tmp_path / "a.json") as temporary:
        pass_by = temporary
        temporary.write_bytes(b"1")
    pass_by.write_bytes(b"a long rest of a killed process")
    write_bytes(tmp_path / "a.json", b"1")
    assert pass_by.exists()  # its writer may be alive
    os.utime(pass_by, (0, 0))
    write_bytes(tmp_path / "a.json", b"2")
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_bytes() == b"2"


def test_a_folder_is_whole_or_absent(tmp_path):
    folder = tmp_path / "step_10"
    with pytest.raises(DiskIsFull), replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / "first").write_text("1")
        fill_disk()
    assert names(tmp_path) == []
    with replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / "first").write_text("1")
        assert not folder.exists()
    assert names(tmp_path) == ["step_10"] and (folder / "first").read_text() == "1"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file' is, or lies in, a file; expected a folder"):
        check_writable(tmp_path / "file")
    with pytest.raises(OSError, match="file' is, or lies in, a file; expected a folder"):
        write_bytes(tmp_path / "file" / "a.json", b"")
    assert check_writable(tmp_path / "new") == tmp_path / "new"


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    """The probe has a name that nobody knows."""

    def refuse(**kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path / "tmp_x"))

    monkeypatch.setattr("sb3_diayn.files.TemporaryFile", refuse)
    with pytest.raises(PermissionError, match=r"folder='.*' cannot be written to.*Choose another"):
        check_writable(tmp_path)
    monkeypatch.setattr(Path, "mkdir", lambda *args, **kwargs: refuse())
    with pytest.raises(PermissionError, match=r"folder='.*new' cannot be written to"):
        check_writable(tmp_path / "new")
