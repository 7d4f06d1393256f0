"""Zip files from anywhere: a member's declared size is checked before unpacking, and no more is unpacked."""

import os
import struct
import zipfile
import zlib

from kseg.io.errors import InputError

MAX_UNPACKED = 2**30  # bytes: what a compressed file of weights may unpack to (VGG16's are 0.55 GB)
# What opening and reading a zip of arbitrary bytes may raise; NotImplementedError is a RuntimeError.
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OverflowError)
DAMAGED_ARRAYS = (*DAMAGED, LookupError, TypeError, SyntaxError)  # what NumPy raises about an .npz of arbitrary bytes
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a bound


def read_member(archive, name, most):
    """Return the bytes of a zip's member.

    Args:
        archive: zipfile.ZipFile. name: of the member. most: bytes that it may have.
    Raises:
        InputError: no such member; it declares more than `most`; damaged, encrypted, or not compressed with deflate.
    """
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise InputError(f"{name} is not in the zip") from None
    if member.compress_type not in _METHODS:
        raise InputError("not compressed with deflate: zip it again")
    if member.file_size > most:
        raise InputError(f"it claims {member.file_size:,} bytes, but at most {most:,} are read")
    if member.flag_bits & 1:
        raise InputError("it is encrypted: zip it again without a password")
    try:
        with archive.open(member) as file:
            data = file.read(member.file_size)
    except DAMAGED as error:
        raise InputError(f"damaged in the zip ({error})") from None
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:  # zipfile compares at the end of what it holds
        raise InputError(f"damaged in the zip ({len(data)} of {member.file_size} bytes, or a checksum that differs)")
    return data


def check_unpacked(archive, path):
    """Raise InputError if a weights file would unpack to more than its own size and more than MAX_UNPACKED."""
    claimed = sum(member.file_size for member in archive.infolist())
    most = max(os.path.getsize(path), MAX_UNPACKED)
    if claimed > most:
        raise InputError(f"it claims to unpack to {claimed:,} bytes, but at most {most:,} are read")
