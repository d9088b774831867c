"""The headers of a tar file (POSIX.1-2017 pax, ustar, GNU long names), without unpacking it.

The input may be hostile: sizes and checksums are checked before they are used.
"""

from collections.abc import Callable, Iterator

from imgcls_jax.errors import DataError

BLOCK = 512
ZEROS = bytes(BLOCK)
NAME_LIMIT = 1 << 20  # bytes of a long name or of the records of a pax header
FILE, FOLDER = "file", "folder"
KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"5": FOLDER, b"1": "hard link",
         b"2": "symbolic link", b"3": "character device", b"4": "block device", b"6": "named pipe"}
LONG_NAME, LONG_LINK, NEXT, ALL = b"L", b"K", b"x", b"g"


def entries(read: Callable[[int, int], bytes], begin: int,
            end: int) -> Iterator[tuple[bytes, str, int, int]]:
    """(name, kind, offset of its bytes, how many) of every member between two offsets.

    read: (offset, length) -> bytes. Raises DataError, without `where`, unless it is a whole tar.
    """
    for_all, for_next = {}, {}
    place, last = begin, "its beginning"
    while True:
        if place + BLOCK > end:
            raise DataError(f"the tar file is cut off after {last}: its end mark is missing")
        header = read(place, BLOCK)
        if header == ZEROS:
            return
        kind_byte = header[156:157]
        if sum(header) - sum(header[148:156]) + 8 * 32 != _number(header[148:156]):
            raise DataError(f"there is no tar header at byte {place:,}, after {last}")
        size, data = _number(header[124:136]), place + BLOCK
        if kind_byte in (LONG_NAME, LONG_LINK, NEXT, ALL):
            if size > min(NAME_LIMIT, end - data):
                raise DataError(f"a tar header has {size:,} bytes, after {last}")
            text = read(data, size)
            if kind_byte in (NEXT, ALL):
                (for_all if kind_byte == ALL else for_next).update(_pax(text))
            elif kind_byte == LONG_NAME:
                for_next[b"path"] = text.partition(b"\0")[0]
        else:
            extra, for_next = {**for_all, **for_next}, {}
            name = extra.get(b"path") or _name(header)
            size = int(extra.get(b"size", size))
            kind = KINDS.get(kind_byte, f"member of type {kind_byte!r}")
            if any(key.startswith(b"GNU.sparse") for key in extra):
                kind = "sparse file"
            if kind == FILE and name.endswith(b"/"):  # as tar wrote folders before POSIX
                kind = FOLDER
            if kind != FILE:
                size = 0
            last = repr(name.decode("utf-8", "backslashreplace"))
            if data + size > end:
                raise DataError(f"the tar file is cut off within {last}")
            yield name, kind, data, size
        place = data + -(-size // BLOCK) * BLOCK


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int:
    """Octal digits, or big-endian bytes after 0x80 for larger numbers."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits and not digits.strip(b"01234567"):
        return int(digits, 8)
    if digits:
        raise DataError(f"a tar header has {digits!r} in place of a number")
    return 0


def _pax(text: bytes) -> dict[bytes, bytes]:
    """Records `length key=value` and a line feed, where length counts itself."""
    records, place = {}, 0
    while place < len(text):
        digits = text[place:place + 20].partition(b" ")[0]
        record = text[place:place + int(digits)] if digits.isdigit() else b""
        key, equals, value = record[len(digits) + 1:-1].partition(b"=")
        if not equals or (key == b"size" and not (value.isdigit() and len(value) < 20)):
            raise DataError("a pax header in the tar file is damaged")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            records[key] = value  # a header for all members is looked at for each of them
        place += len(record)
    return records
