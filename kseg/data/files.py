"""Files and folders, local or behind a URL ("gs://...", through tf.io.gfile); writes that are whole."""

import hashlib
import json
import os


def is_url(path) -> bool:
    return "://" in str(path)


def open_binary(path: str):
    """Open a file for reading in binary."""
    if is_url(path):
        import tensorflow as tf

        return tf.io.gfile.GFile(path, "rb")
    return open(path, "rb")


def list_files(folder: str) -> dict[str, int]:
    """Return file name -> bytes of a folder's files, by name; FileNotFoundError where there is none."""
    missing = f"There is no record folder {folder}. scripts/prepare_data.py makes one."
    if not is_url(folder):
        if not os.path.isdir(folder):
            raise FileNotFoundError(missing)
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
        return {e.name: e.stat().st_size for e in entries if e.is_file()}
    import tensorflow as tf

    if not tf.io.gfile.isdir(folder):
        raise FileNotFoundError(missing)
    names = sorted(tf.io.gfile.listdir(folder))
    return {n: tf.io.gfile.stat(f"{folder}/{n}").length for n in names if not n.endswith("/")}


def join(folder: str, name: str) -> str:
    """Return the path of a file in a folder, absolute unless the folder is a URL."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(os.path.abspath(folder), name)


def sha256_of(path: str) -> str:
    """Return a file's sha256 in hexadecimal, read a megabyte at a time."""
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomic(path: str, content: bytes) -> None:
    """Write a local file under a temporary name in its folder, sync, rename: all of it is seen or nothing."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".tmp-{name}-{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def json_text(table, indent: int | None = None) -> str:
    """Return JSON types as text that every reader takes: nan becomes null."""
    table = json.loads(json.dumps(table), parse_constant=lambda nan: None)
    return json.dumps(table, indent=indent, separators=None if indent else (",", ":"))
