"""TFRecord files record by record, whatever is damaged: what one flipped bit costs is one record.

A record is its length (u64), the checksum of that, the data and its checksum, little-endian; a
checksum is the CRC-32C masked as in tensorflow/core/lib/hash/crc32c.h. TensorFlow's own reader ends
at the first that is wrong. This one looks for the next length whose checksum is right.
"""

import functools
import mmap
import os
from collections.abc import Iterator

import numpy as np

HEADER = 12  # bytes before the data; 4 follow it
WINDOW = 1 << 20  # bytes searched at a time for the next record


def scan(path: str | bytes) -> Iterator[tuple[bytes | None, str]]:
    """(data, "") of each record in order; (None, what is wrong) of one that is damaged."""
    if not os.path.getsize(path):
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = 0
        while place < len(data):
            end = _end(data, place)
            if end is None:
                yield None, "the checksum of its length is wrong"
                place = _next(data, place + 1)
            elif end > len(data):
                yield None, "the file ends within it"
                return
            else:
                payload = data[place + HEADER:end - 4]
                right = _masked(crc32c(payload)) == int.from_bytes(data[end - 4:end], "little")
                yield (payload, "") if right else (None, "the checksum of its data is wrong")
                place = end


def has_records(path: str | bytes) -> bool:
    """Whether a whole length with its checksum stands near the beginning of the file."""
    if os.path.getsize(path) < HEADER:
        return False
    with open(path, "rb") as file:
        head = file.read(WINDOW)
    return _matches(head).size > 0


def _end(data, place: int) -> int | None:
    """Where the record at `place` ends; None if its length is damaged."""
    head = data[place:place + HEADER]
    if len(head) < HEADER:
        return len(data) + 1
    if _masked(crc32c(head[:8])) != int.from_bytes(head[8:], "little"):
        return None
    return place + HEADER + int.from_bytes(head[:8], "little") + 4


def _next(data, place: int) -> int:
    """The first place from which a record that fits into the file begins, or the file's end."""
    while place + HEADER <= len(data):
        for found in _matches(data[place:place + WINDOW + HEADER]):
            if _end(data, place + int(found)) <= len(data):
                return place + int(found)
        place += WINDOW
    return len(data)


def _matches(data: bytes) -> np.ndarray:
    """Places in the data at which 8 bytes and their checksum stand."""
    values = np.frombuffer(data, np.uint8)
    count = len(values) - HEADER + 1
    if count < 1:
        return np.zeros(0, int)
    state = np.full(count, 0xFFFFFFFF, np.uint32)
    for i in range(8):
        state = _step(state, values[i:i + count])
    told = sum(values[8 + i:8 + i + count].astype(np.uint32) << np.uint32(8 * i) for i in range(4))
    return np.flatnonzero(_masked(~state) == told)


# ---- CRC-32C (Castagnoli), in numpy -------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """The bytes are cut into pieces of 256, worked off side by side, and joined two by two.

    Bytes of zero in front do not change a checksum that starts from 0, and starting from ones is
    inverting the first four bytes.
    """
    values = np.frombuffer(data, np.uint8)
    if len(values) < 4:
        state = np.full(1, 0xFFFFFFFF, np.uint32)
        for value in values:
            state = _step(state, np.array([value]))
        return int(~state[0])
    pieces = 1 << (max(len(values) - 1, 0) // 256).bit_length()
    padded = np.zeros(pieces * 256, np.uint8)
    padded[-len(values):] = values
    padded[len(padded) - len(values):][:4] ^= 0xFF
    state = np.zeros(pieces, np.uint32)
    for column in padded.reshape(pieces, 256).T:
        state = _step(state, column)
    doublings = 8
    while len(state) > 1:
        state = _apply(_zeros(doublings), state[0::2]) ^ state[1::2]
        doublings += 1
    return int(~state[0])


def _masked(crc):
    """As the format stores it."""
    crc, word = np.asarray(crc, np.uint64), np.uint64(0xFFFFFFFF)
    turned = (crc >> np.uint64(15) | crc << np.uint64(17)) & word
    return (turned + np.uint64(0xA282EAD8)) & word


def _step(state: np.ndarray, byte: np.ndarray) -> np.ndarray:
    return _table()[(state ^ byte) & np.uint32(0xFF)] ^ state >> np.uint32(8)


@functools.cache
def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1)
    return table.astype(np.uint32)


@functools.cache
def _zeros(doublings: int) -> np.ndarray:
    """u32[4,256]: what 2**doublings bytes of zero make of each byte of a state."""
    if doublings == 0:
        states = np.arange(256, dtype=np.uint32) << np.uint32(8) * np.arange(
            4, dtype=np.uint32)[:, None]
        return _step(states, np.uint8(0))
    half = _zeros(doublings - 1)
    return _apply(half, half)


def _apply(operator: np.ndarray, state: np.ndarray) -> np.ndarray:
    return functools.reduce(np.bitwise_xor, (
        operator[i][state >> np.uint32(8 * i) & np.uint32(0xFF)] for i in range(4)))
