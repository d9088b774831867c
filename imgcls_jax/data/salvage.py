"""What is left of a damaged TFRecord file: all of its records but the damaged ones.

A record is its length (u64), the masked CRC-32C of the length, the payload and the masked CRC-32C
of the payload (tensorflow/core/lib/io/record_writer.h). TensorFlow stops at the first damaged one.
After it the next one begins where its length says, or, if the length itself is damaged, at the
next place whose checksum matches.
"""

import os
import shutil
import tempfile

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow

HEADER, FOOTER = 12, 4
Gap = tuple[int, int, int]  # number of the record, first byte, first byte after it


def gaps(path: str) -> list[Gap] | None:
    """The damaged records of a file; None if it is not a TFRecord file.

    A file that was cut off within a record ends with a damaged one.
    """
    data = np.memmap(path, np.uint8, "r") if os.path.getsize(path) else np.empty(0, np.uint8)
    if len(data) and not _is_header(data[:HEADER]) and _behind(data, 0) == len(data):
        return None
    found, number, begin = [], 0, 0
    while begin < len(data):
        read = _readable(path, begin)
        for _ in range(read):
            begin += HEADER + _length(data, begin) + FOOTER
        number += read
        if begin < len(data):
            end = _behind(data, begin)
            found.append((number, begin, end))
            number, begin = number + 1, end
    return found


def write_without(path: str, damaged: list[Gap], copy: str):
    """Writes a copy in which damaged records are empty, so that the others keep their numbers."""
    zero = np.zeros(8, np.uint8)
    empty = zero.tobytes() + _masked(crc32c(zero[None]))[0].tobytes() + _masked(
        np.zeros(1, np.uint32))[0].tobytes()
    with open(path, "rb") as file, open(copy, "wb") as out:
        for _, begin, end in damaged:
            _copy(file, out, begin - file.tell())
            out.write(empty)
            file.seek(end)
        shutil.copyfileobj(file, out)


def _copy(file, out, count: int):
    while count > 0:
        part = file.read(min(count, 1 << 20))
        out.write(part)
        count -= len(part)


def _readable(path: str, begin: int) -> int:
    """The number of records that TensorFlow reads from a byte on until one is damaged."""
    tf = tensorflow()
    with tempfile.TemporaryDirectory(prefix="imgcls_records_") as folder:
        if begin:
            with open(path, "rb") as file, open(os.path.join(folder, "rest"), "wb") as out:
                file.seek(begin)
                shutil.copyfileobj(file, out)
            path = out.name
        read = 0
        try:
            for _ in tf.data.TFRecordDataset(os.fsencode(path)):
                read += 1
        except tf.errors.OpError:
            pass
        return read


def _behind(data: np.ndarray, begin: int) -> int:
    """Where the record after a damaged one begins."""
    if _is_header(data[begin:begin + HEADER]):
        end = begin + HEADER + _length(data, begin) + FOOTER
        if end == len(data) or _is_header(data[end:end + HEADER]):
            return end
    # The first place after it that is a header: each window of eight bytes may be a length.
    for first in range(begin + 1, len(data) - HEADER + 1, 1 << 20):
        part = data[first:first + (1 << 20) + HEADER - 1]
        windows = np.lib.stride_tricks.sliding_window_view(part, HEADER)
        fits = np.flatnonzero(_masked(crc32c(windows[:, :8])) == _checksums(windows))
        if len(fits):
            return first + int(fits[0])
    return len(data)


def _is_header(head: np.ndarray) -> bool:
    return len(head) == HEADER and bool(
        (_masked(crc32c(head[None, :8])) == _checksums(head[None]))[0])


def _checksums(headers: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(headers[:, 8:HEADER]).view("<u4")[:, 0]


def _length(data: np.ndarray, begin: int) -> int:
    return int(data[begin:begin + 8].view("<u8")[0])


def _tables() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1)
    return table


TABLE = _tables()


def crc32c(rows: np.ndarray) -> np.ndarray:
    """u8[N,n] -> u32[N], CRC-32C (Castagnoli, RFC 3720, appendix B.4) of each row."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        crc = TABLE[(crc ^ column) & 0xFF] ^ crc >> np.uint32(8)
    return ~crc


def _masked(crc: np.ndarray) -> np.ndarray:
    """u32[N], as TensorFlow stores a checksum."""
    return (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(0xA282EAD8)
