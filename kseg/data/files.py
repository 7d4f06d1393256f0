"""Files and folders, local or behind a URL ("gs://...", through tf.io.gfile); writes that are whole; locks."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import socket
import warnings

from kseg.errors import FileAccessError, InputError, MissingFileError

LOCK = ".lock"


def is_url(path) -> bool:
    return "://" in str(path)


def checked_path(path, what: str) -> str:
    """Return a path as text; InputError for what can be none.

    That is another type, an empty text, one with a NUL in it, a name that is too long, a circle of links.

    Args:
        path: as the user gave it. what: names it in the message ("data_dir").
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    why = ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError(f"{what} must be the path of a file or folder, got {path!r}.")
    try:
        os.stat(text)
    except UnicodeEncodeError:
        why = "no name of a file can hold all of it"
    except OSError as error:  # missing or forbidden is for whoever opens it
        why = error.strerror if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else ""
    if why:
        raise InputError(f"{what} must be the path of a file or folder, got {text[:200]!r}: {why}.")
    return text


def open_binary(path: str):
    """Open a file for reading in binary."""
    if is_url(path):
        import tensorflow as tf

        return tf.io.gfile.GFile(path, "rb")
    with reading(path):
        return open(path, "rb")


def list_files(folder: str) -> dict[str, int]:
    """Return file name -> bytes of a folder's files, by name; FileNotFoundError where there is none."""
    missing = f"There is no record folder {folder}. scripts/prepare_data.py makes one."
    if not is_url(folder):
        if not os.path.isdir(folder):
            raise MissingFileError(missing)
        with reading(folder):
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
            return {e.name: e.stat().st_size for e in entries if e.is_file()}
    import tensorflow as tf

    if not tf.io.gfile.isdir(folder):
        raise MissingFileError(missing)
    names = sorted(tf.io.gfile.listdir(folder))
    return {n: tf.io.gfile.stat(f"{folder}/{n}").length for n in names if not n.endswith("/")}


def join(folder: str, name: str) -> str:
    """Return the path of a file in a folder, absolute unless the folder is a URL."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(os.path.abspath(folder), name)


def sha256_of(path: str) -> str:
    """Return a file's sha256 in hexadecimal, read a megabyte at a time."""
    digest = hashlib.sha256()
    with reading(path), open_binary(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path):
    """Give a temporary path beside a local file, which becomes that file, synced, when the block ends well.

    When it does not, the temporary file goes and what was there stays as it was.

    Args:
        path: the file to write. The temporary name begins with .tmp- and ends as its name does.
    Raises:
        OSError: it could not be written (a full disk, a read-only folder); names `path`.
    """
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".tmp-{os.getpid()}-{name}")
    try:
        with writing(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


@contextlib.contextmanager
def reading(path):
    """A block in which an OSError says that `path` could not be read, and why."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no {path}.") from error
    except OSError as error:
        why = error.strerror or str(error).strip().partition("\n")[0]
        raise FileAccessError(f"Cannot read {path}: {why}.") from error


@contextlib.contextmanager
def writing(path):
    """A block in which an OSError says that `path` could not be written, and why."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        why = error.strerror or str(error).strip().partition("\n")[0]
        text = f"Cannot write {path}: {why}. What was there before is intact: mend that and run the same again."
        raise (FileAccessError(error.errno, text) if error.errno else FileAccessError(text)) from error


def write_atomic(path: str, content: bytes) -> None:
    """Write a local file as `replacing` does: all of it is seen or nothing."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def json_text(table, indent: int | None = None) -> str:
    """Return JSON types as text that every reader takes: nan becomes null."""
    table = json.loads(json.dumps(table), parse_constant=lambda nan: None)
    return json.dumps(table, indent=indent, separators=None if indent else (",", ":"))


@contextlib.contextmanager
def locked(folder):
    """Hold a folder for this process alone while the block lasts; the kernel lets go when the process dies.

    The lock is on the file .lock in it. A folder that is missing is made, and goes again if it stays empty. Where the
    file system knows no locks, a warning says so and the block runs.

    Args:
        folder: pathlib.Path.
    Raises:
        ValueError: another process holds it. OSError: it cannot be written.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    path, held = folder / LOCK, False
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        held = _lock(file, path)
        yield
    finally:
        if held:  # while it is: whoever opened it meanwhile sees that it is gone
            with contextlib.suppress(OSError):
                os.remove(path)
        os.close(file)
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def _lock(file: int, path: pathlib.Path) -> bool:
    """Lock the open file; False with a warning where that cannot be done."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 200, 0).decode(errors="replace") or "another process"
        raise InputError(
            f"{path.parent} is in use by {holder}. Wait until that run ends, stop it, or use another workdir."
        ) from None
    except (ImportError, OSError) as error:
        warnings.warn(f"{path.parent} cannot be locked ({error}): start no second run in it.", stacklevel=4)
        return False
    if not (path.exists() and os.path.samestat(os.stat(path), os.fstat(file))):
        raise InputError(f"{path.parent} was in use until this moment. Start again.")
    os.truncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return True
