"""Files that are whole or absent, files that are damaged, and extras that are missing."""

import glob
import io
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

LEFTOVER_SECONDS = 3600.0  # no write takes so long


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """
    A place for new content, which takes the name ``path`` once the block is through. A process
    that is killed, a full disk or any other exception leaves what was there before as it was::

        with replacing("model.zip") as temporary:
            write_through_memory(temporary, model.save)

    What a killed process left under its temporary name is removed by the next one that writes the
    same file, once it has not changed for an hour.

    :param path: a file, or a folder that does not exist yet; its parents are created
    :return: where to write: a name in the same folder, since renaming is atomic on one file
        system only, and with the same ending, since SB3 and ffmpeg tell the format from it.
        The block creates a folder itself
    :raises OSError: if it cannot be written or renamed
    """
    path = Path(path)
    make_folder(path.parent)
    remove_leftovers(path.parent, path.stem, seconds=LEFTOVER_SECONDS)
    # A name of its own for each writer: two must not write into one file.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        for file in [*temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _flush(file)
        os.replace(temporary, path)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it met
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """
    :param path: a file to write or to replace
    :param content: all of it
    :raises OSError: if it cannot be written; the old file then stays as it was
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_through_memory(path: Path, save: Callable[[io.BytesIO], object]) -> None:
    """
    PyTorch's own writer answers a full disk with a ``RuntimeError`` about positions in a file, and
    so does SB3, which saves through it. Python's says what it is.

    :param path: a file to write
    :param save: writes its content into a buffer
    :raises OSError: if it cannot be written
    """
    buffer = io.BytesIO()
    save(buffer)
    path.write_bytes(buffer.getbuffer())


def make_folder(folder: Path) -> Path:
    """
    :param folder: created if need be, with its parents
    :return: it
    :raises FileExistsError: if it, or one of its parents, is a file
    :raises OSError: if it cannot be created
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise FileExistsError(
            f"folder={str(folder)!r} is, or lies in, a file; expected a folder. Choose another "
            "name, or move the file away."
        ) from error
    except PermissionError as error:
        raise _not_writable(folder) from error
    return folder


def check_writable(folder: str | os.PathLike[str]) -> Path:
    """
    Find out before the work, not after it.

    :param folder: created if need be
    :return: it
    :raises OSError: if nothing can be written there
    """
    folder = make_folder(Path(folder))
    try:
        TemporaryFile(dir=folder).close()
    except PermissionError as error:  # it names a file that nobody knows
        raise _not_writable(folder) from error
    return folder


def _not_writable(folder: Path) -> PermissionError:
    return PermissionError(
        f"folder={str(folder)!r} cannot be written to; expected one that can. Choose another one, "
        "or change its permissions."
    )


def remove_leftovers(folder: Path, stem: str = "*", *, seconds: float = 0.0) -> None:
    """
    Remove what processes that were killed have left under temporary names.

    :param folder: where to look, not necessarily there
    :param stem: of the files that they were to become; all by default
    :param seconds: only what has not changed for so long, since its writer may be alive
    """
    stem = stem if stem == "*" else glob.escape(stem)
    for path in [*folder.glob(f".{stem}.part*"), *folder.glob(f".{stem}.*.part*")]:
        with suppress(OSError):  # another process may remove it meanwhile
            newest = max(each.stat().st_mtime for each in [path, *path.rglob("*")])
            if time.time() - newest >= seconds:
                _remove(path)


def _flush(file: Path) -> None:
    """Onto the disk, so that a power cut cannot leave the new name with old blocks."""
    if file.is_file():
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


MAX_REASON = 300  # characters: a reason can quote a whole file


def brief(reason: object) -> str:
    """
    :param reason: an error, or words
    :return: the text in one line, at most about 300 characters
    """
    words = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason)
    text = " ".join(words.split())
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} ..."


@contextmanager
def reading(
    path: str | os.PathLike[str], expected: str, *, argument: str = "path"
) -> Iterator[None]:
    """
    Say which file is damaged, whatever its reader raises::

        with reading(file, "the zip that model.save() writes"):
            model = SAC.load(file)

    :param path: the file that is read in the block
    :param expected: what it should hold
    :param argument: the argument or option that names the file
    :raises FileNotFoundError: if it is not there
    :raises OSError: if the file cannot be opened, and the error names it
    :raises ValueError: if the block raises anything else
    """
    try:
        yield
    except FileNotFoundError as error:
        if Path(path).exists():
            raise
        raise FileNotFoundError(
            f"{argument}={str(path)!r} is missing; expected {expected}."
        ) from error
    except Exception as error:  # a damaged pickle, zip or YAML file can raise nearly anything
        if isinstance(error, OSError) and str(path) in str(error):
            raise
        raise ValueError(
            f"{argument}={str(path)!r} cannot be read ({brief(error)}); expected {expected}."
        ) from error


@contextmanager
def require_extra(name: str) -> Iterator[None]:
    """
    Say which extra brings a library that is missing within the block::

        with require_extra("zoo"):
            import joblib

    :param name: the extra
    :raises ImportError: if a library is missing
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"This needs {error.name}. Install it: pip install 'sb3-diayn[{name}]'"
        ) from error
