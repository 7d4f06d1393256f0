"""Files and folders, local or at a URL ("gs://...", tf.io.gfile): atomic writes, and locks."""

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket

from kseg.io.errors import FileAccessError, InputError, MissingFileError, warn_user

StrPath = str | os.PathLike[str]  # how a user may write a path
LOCK = ".lock"
_TEMPORARY = re.compile(r"\.tmp-\d+-(.+)")  # of a process that may be gone


def is_url(path) -> bool:
    """Whether a path is an address such as gs://bucket/folder."""
    return "://" in str(path)


def checked_path(path, what: str) -> str:
    """Return a path as text; InputError if it cannot be a path.

    It cannot if it has another type, is empty, contains a NUL, has a name that is too long, or is a circle of links.

    Args:
        path: as the user gave it. what: names it in the message ("data_dir").
    """
    text = path
    why = ""
    if isinstance(path, os.PathLike):
        text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError(f"{what} must be the path of a file or folder, got {path!r}.")
    try:
        os.stat(text)
    except UnicodeEncodeError:
        why = "it has characters that a file name cannot have"
    except OSError as error:  # missing or forbidden is for whoever opens it
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            why = error.strerror
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
    """Return file name -> size in bytes for a folder's files, sorted; FileNotFoundError if there is no folder."""
    missing = f"There is no record folder {folder}. Make one with kseg prepare."
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
    if is_url(folder):
        return f"{folder.rstrip('/')}/{name}"
    return os.path.join(os.path.abspath(folder), name)


def sha256_of(path: str) -> str:
    """Return a file's sha256 in hexadecimal, read a megabyte at a time."""
    digest = hashlib.sha256()
    with reading(path), open_binary(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path):
    """Give a temporary path beside a local file. If the block succeeds, it is synced and renamed to that file.

    If the block fails, the temporary file is deleted and the old file stays as it was. A symbolic link stays a link:
    the file it leads to is written.

    Args:
        path: the file to write; its folder is made if missing. The temporary name begins with .tmp- and ends as its
            name does.
    Raises:
        OSError: the file could not be written (a full disk, a read-only folder); the message names `path`.
    """
    place = os.fspath(path)
    if os.path.islink(path):
        place = os.path.realpath(path)
    folder, name = os.path.split(place)
    temporary = os.path.join(folder, f".tmp-{os.getpid()}-{name}")
    try:
        with writing(path):
            os.makedirs(folder or ".", exist_ok=True)
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, place)
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


def _first_line(error):
    """What an OSError without a number says; of those that shutil.copytree collected, the first."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return f"{error.args[0][0][2]}"
    return str(error).strip().partition("\n")[0]


@contextlib.contextmanager
def writing(path):
    """A block in which an OSError says that `path` could not be written, and why."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        why = error.strerror or _first_line(error)
        text = f"Cannot write {path}: {why}. Earlier files are intact: fix this and run the same again."
        if error.errno:
            raise FileAccessError(error.errno, text) from error
        raise FileAccessError(text) from error


def write_atomic(path: str, content: bytes) -> None:
    """Write a local file as `replacing` does: completely or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def clear_unfinished(folder: pathlib.Path, *patterns: str) -> None:
    """Remove the temporary files of `replacing` that a killed process left in a folder, and nothing else.

    Args:
        folder: locked by this process. patterns: the names that were to be written, as for fnmatch.
    """
    for path in folder.glob(".tmp-*"):
        name = _TEMPORARY.fullmatch(path.name)
        ours = name and any(fnmatch.fnmatchcase(name[1], pattern) for pattern in patterns)
        if ours and path.is_file() and not path.is_symlink():
            path.unlink()


@contextlib.contextmanager
def replacing_content(folder, own: re.Pattern, marker: str, last: str):
    """Give an empty folder. If the block succeeds, its content replaces that of `folder`; otherwise it is deleted.

    The folder itself stays, so it may be a link or a mount point. During the block no other process can fill it
    (`locked`). `last` is removed first and added last: if it is there, the content is complete.

    Args:
        folder: new, empty, or holding only what an earlier call wrote.
        own: fullmatch of each path in the content ("photos/" is a folder). marker: a JSON file in it with the key
            "kseg_version", which shows that kseg wrote it. last: another file in it.
    Raises:
        InputError: the folder holds anything else, before or after the block, or another process is filling it.
        OSError: the folder could not be written; its earlier content is intact.
    """
    folder = pathlib.Path(os.path.realpath(folder))
    check_own(folder, own, marker)
    with locked(folder):
        for path in folder.iterdir():  # of a process that was killed
            if _is_stage(path):
                shutil.rmtree(path, ignore_errors=True)
        new, old = (folder / f".tmp-{os.getpid()}-{name}" for name in ("new", "old"))
        try:
            with writing(folder):
                new.mkdir()
            yield new
            check_own(folder, own, marker)  # much may have happened meanwhile
            with writing(folder):
                old.mkdir()
                _swap(folder, new, old, marker, last)
        finally:
            for path in (new, old):
                shutil.rmtree(path, ignore_errors=True)


def check_own(folder: pathlib.Path, own: re.Pattern, marker: str) -> None:
    """Raise InputError if a folder holds anything but what `replacing_content` put there."""
    if not os.path.lexists(folder):
        return
    advice = "Choose another output folder, or empty this one."
    if not folder.is_dir():
        raise InputError(f"{folder} must be a folder, but is a file. {advice}")
    found = list(_content(folder))
    foreign = next((name for name in found if not own.fullmatch(name)), None)
    if foreign:
        raise InputError(f"{folder} holds {foreign}, which kseg did not write. {advice}")
    if found and not _says_kseg(folder / marker):
        raise InputError(f"{folder} holds {found[0]} but no {marker} from kseg, so kseg did not write it. {advice}")


def _content(folder, above=""):
    """Yield the paths in a folder; a folder's ends with a slash, a link (never followed) says so."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if not above and (entry.name == LOCK or _is_stage(pathlib.Path(entry.path))):
            continue
        if entry.is_symlink():
            yield f"the link {above}{entry.name}"
        elif entry.is_dir():
            yield f"{above}{entry.name}/"
            yield from _content(entry.path, f"{above}{entry.name}/")
        else:
            yield f"{above}{entry.name}"


def _is_stage(path) -> bool:
    name = _TEMPORARY.fullmatch(path.name)
    return bool(name) and name[1] in ("new", "old") and path.is_dir() and not path.is_symlink()


def _says_kseg(path) -> bool:
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and "kseg_version" in table


def _swap(folder, new, old, marker, last):
    """Move what the folder holds to `old` and what `new` holds into it; all moves are undone if one fails."""

    def order(names):
        return sorted(names, key=lambda name: (name == marker, name != last))

    before = [path.name for path in folder.iterdir() if path.name != LOCK and not _is_stage(path)]
    moves = [(folder / name, old / name) for name in order(before)]
    moves += [(new / name, folder / name) for name in reversed(order(os.listdir(new)))]
    done = []
    try:
        for move in moves:
            done.append(move)
            os.replace(*move)
    except BaseException:
        for source, target in reversed(done):
            if not os.path.lexists(source):
                os.replace(target, source)
        raise


def json_text(table, indent: int | None = None) -> str:
    """Return JSON types as text that every JSON reader accepts: nan becomes null."""
    table = json.loads(json.dumps(table), parse_constant=lambda nan: None)
    if indent:
        return json.dumps(table, indent=indent)
    return json.dumps(table, separators=(",", ":"))


def write_json(path, table, indent: int | None = 1) -> None:
    """Write JSON types to a file, nan as null, indented or (indent=None) compact; completely or not at all."""
    write_atomic(os.fspath(path), f"{json_text(table, indent)}\n".encode())


@contextlib.contextmanager
def locked(folder):
    """Lock a folder for this process during the block; the kernel releases the lock when the process dies.

    The lock is on the file .lock in the folder. A missing folder is made, and removed again if it stays empty. If the
    file system has no locks, a warning says so and the block runs.

    Args:
        folder: pathlib.Path.
    Raises:
        ValueError: another process has the lock, or .lock is not kseg's file. OSError: the folder cannot be written.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / LOCK
    held = False
    file = None
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        held = _lock(file, path)
        yield
    finally:
        if held:  # while it is: whoever opened it meanwhile sees that it is gone
            with contextlib.suppress(OSError):
                os.remove(path)
        if file is not None:
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
            f"{path.parent} is in use by {holder}. Wait until that ends, stop it, or use another folder."
        ) from None
    except (ImportError, OSError) as error:
        warn_user(f"{path.parent} cannot be locked ({error}): do not start anything else in it.")
        return False
    if not (path.exists() and os.path.samestat(os.stat(path), os.fstat(file))):
        raise InputError(f"{path.parent} was in use until just now. Start again.")
    content = os.pread(file, 200, 0)
    if content and not content.startswith(b"process "):
        raise InputError(f"{path} was not written by kseg, whose lock needs that name. Move it, or use another folder.")
    os.truncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return True
