"""Zip and tar archives read in place: an index of the members, and any member by its number.

Nothing is written to disk. An archive may be hostile: names that would leave the folder it is
unpacked in, links, devices, and sizes or compression rates beyond any image are refused.
"""

import array
import bz2
import gzip
import json
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from imgcls_jax import untrusted
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import _paths, _tar
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup

SIZE_LIMIT = 1 << 29  # unpacked bytes of a member: beyond 100 million pixels of three bytes
RATIO_LIMIT = 100  # unpacked to packed, above one megabyte: images hardly compress
MEMBER_LIMIT = 1 << 25  # ImageNet-21k has 14 million
MEMORY_LIMIT = 1 << 30  # unpacked bytes of a compressed tar, which is held in memory
NAME_LIMIT, DEPTH_LIMIT = 4096, 64  # bytes and folders of a member's name, as of a path on Linux
CACHED = 10_000  # members from which on a tar's index is kept: to find them, all of it is read
COMPRESSED = {b"\x1f\x8b": (gzip.open, "gunzip"), b"BZh": (bz2.open, "bunzip2"),
              b"\xfd7zXZ\0": (lzma.open, "unxz")}
DEFLATED = zipfile.ZIP_DEFLATED


class Archive:
    """An archive stays the same while it is open, even if its name is given to another.

    names: of every file, relative, as bytes; a tar within a tar counts as a folder of its name
    without `.tar`. folders: names of the folders listed as such.

    Of two members of one name the later counts, as in unpacking. read() may be called from any
    number of threads. Raises DataError for what is not an archive, damaged or not safe to unpack,
    and for one that is changed while it is open.
    """

    def __init__(self, path: str | bytes):
        self.path = os.fsencode(path)
        try:
            self._file = _Disk(self.path)
        except OSError as error:
            raise DataError(f"the archive cannot be opened: {error.strerror}",
                            where=_paths.say(self.path), fix="give the path of a file") from error
        self._storage: _Disk | _Memory = self._file
        self._state = _paths.state(self.path, self._file.status)
        head = self._storage.read(0, _tar.BLOCK)
        self.folders: set[bytes] = set()
        self._is_zip = head[:4] in (b"PK\3\4", b"PK\5\6")
        try:
            if self._is_zip:
                self._index(self._zip_members())
            else:
                for magic, (opener, tool) in COMPRESSED.items():
                    if head.startswith(magic):
                        self._storage = _Memory(self._file, self.path, opener, tool)
                if self._storage.read(257, 5) != b"ustar":
                    raise DataError("the file is neither a zip nor a tar archive")
                self._index_of_tar()
        except DataError as error:
            raise self._fault(error, fix="copy it again, or pack the images as a plain zip or tar"
                              ) from error
        finally:
            self._file.check()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, number: int) -> bytes:
        """The bytes of a member. DataError, naming it, if they are not what the index says."""
        offset, stored, size = (int(column[number]) for column in self._places)
        try:
            if not self._is_zip:
                return self._exactly(offset, size)
            header = self._exactly(offset, 30)
            if header[:4] != b"PK\3\4":
                raise DataError("the zip member has no header")
            skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(
                header[28:30], "little")
            data = self._exactly(offset + 30 + skipped, stored)
            if self._methods[number] == DEFLATED:
                data = _inflate(data, size)
            if zlib.crc32(data) != self._sums[number]:
                raise DataError("the zip member is damaged: its checksum differs")
            return data
        except DataError as error:
            raise self._fault(error, number) from error
        finally:
            if self._storage is self._file:
                self._file.check()

    def where(self, number: int) -> str:
        """The member's name for people."""
        return f"{_paths.say(self.path)}: {_paths.say(self.names[number])}"

    def version(self, number: int) -> str:
        """What changes when the member's bytes do (`_paths.version`)."""
        return json.dumps([self._state, [_paths.say(self.names[number]),
                                         *map(int, self._places[:, number])]])

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._storage.read(offset, length) if offset >= 0 else b""
        if len(data) != length:
            raise DataError("the archive is cut off within the member")
        return data

    def _fault(self, error: DataError, number: int | None = None, fix: str = "") -> DataError:
        where = _paths.say(self.path) if number is None else self.where(number)
        return DataError(error.what, where=error.where or where,
                         fix=error.fix or fix or "copy the archive again")

    def _refuse(self, what: str, name: bytes, fix: str):
        raise DataError(what, where=f"{_paths.say(self.path)}: {_paths.say(name)}", fix=fix)

    # ---- the index ---------------------------------------------------------------------------

    def _index(self, members: Iterator[tuple]):
        """members: (name, offset, stored bytes, unpacked bytes, method, checksum)."""
        numbers: dict[bytes, int] = {}
        rows = array.array("q")
        for count, (name, *row) in enumerate(members):
            numbers[self._clean(name)] = count
            rows.extend(row)
            if count >= MEMBER_LIMIT:
                raise DataError(f"the archive has over {MEMBER_LIMIT:,} members")
            if row[2] > SIZE_LIMIT:
                self._refuse(f"a member has {row[2]:,} bytes, over the limit of {SIZE_LIMIT:,}",
                             name, "remove it: an image that large is over the pixel limit")
            if row[2] > max(1 << 20, RATIO_LIMIT * row[1]):
                self._refuse(f"a member of {row[1]:,} bytes unpacks to {row[2]:,}", name,
                             "remove it, or unpack the archive if you know what it is")
        columns = np.array(rows, np.int64).reshape(-1, 5)
        if columns[:, 1].sum() > self._storage.size:  # each would cost what they cost together
            raise DataError("the members of the archive overlap")
        columns = columns[np.fromiter(numbers.values(), np.int64, len(numbers))]
        self.names: Sequence[bytes] = list(numbers)
        self._places = np.ascontiguousarray(columns[:, :3].T)
        self._methods, self._sums = columns[:, 3], columns[:, 4]

    def _clean(self, name: bytes) -> bytes:
        """The name relative to the folder that it would be unpacked in."""
        parts = name.replace(b"\\", b"/").split(b"/")
        if name[:1] in (b"/", b"\\") or name[1:3] in (b":/", b":\\") or b".." in parts:
            self._refuse("a member's name leaves the folder it would be unpacked in", name,
                         "do not unpack it; pack the images again with relative names")
        if len(name) > NAME_LIMIT or len(parts) > DEPTH_LIMIT:
            self._refuse(f"a member's name has {len(name):,} bytes in {len(parts):,} folders",
                         name[:80], "pack the images again with shorter names")
        if b"\0" in name:
            self._refuse("a member's name has a zero byte", name, "pack the images again")
        return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))

    def _only_files(self, name: bytes, kind: str) -> bool:
        """Whether it is a file; a folder is recorded, anything else refused."""
        if kind == _tar.FOLDER:
            self.folders.add(self._clean(name))
        elif kind != _tar.FILE:
            self._refuse(f"the archive holds a {kind}", name,
                         "pack the files themselves: tar --dereference --hard-dereference")
        return kind == _tar.FILE

    def _zip_members(self) -> Iterator[tuple]:
        try:
            with zipfile.ZipFile(self._file.file) as archive:
                infos = archive.infolist()
        except Exception as error:  # of a damaged directory, any
            raise DataError(f"the zip archive is damaged or cut off: {error}") from error
        windows = not any("/" in info.orig_filename for info in infos)
        for info in infos:
            # zipfile decodes names as text; cp437 has all 256 bytes, so it restores them.
            name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
            if b"\\" in name and (windows or info.create_system == 0):
                self._clean(name)  # a name that leaves the folder is worse
                self._refuse("the zip has backslashes for slashes", name,
                             "pack it again: python -m zipfile -c NAME.zip FOLDER")
            mode = info.external_attr >> 16
            kind = _tar.FILE
            if name.endswith(b"/"):
                kind = _tar.FOLDER
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                kind = "symbolic link" if stat.S_ISLNK(mode) else "special file"
            if not self._only_files(name, kind):
                continue
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, DEFLATED):
                self._refuse("a zip member is encrypted, or neither stored nor deflated",
                             name, "pack the images again: zip -0 -r NAME.zip FOLDER")
            if max(info.header_offset, info.compress_size) > self._storage.size:
                raise DataError("the zip archive is cut off, or does not begin where it should")
            stored = info.compress_size if info.compress_type == DEFLATED else info.file_size
            yield (name, info.header_offset, stored, info.file_size, info.compress_type, info.CRC)

    def _index_of_tar(self):
        """From the cache if the tar is long; the members in it were checked when it was made."""
        folder = _paths.learned([], {"tar": 1, "file": self._state})
        if not (folder / "places.npy").exists():
            self._index(self._tar_members(b"", 0, self._storage.size, 2))
            if len(self.names) < CACHED or isinstance(self._storage, _Memory):
                return
            self._file.check()
            _paths.learn(folder, self._save)
        self._places = np.load(folder / "places.npy")
        self.names = (folder / "names").read_bytes().split(b"\0")[:-1]
        self.folders = set((folder / "folders").read_bytes().split(b"\0")[:-1])

    def _save(self, folder):
        np.save(folder / "places.npy", self._places)
        for name, found in (("names", self.names), ("folders", sorted(self.folders))):
            (folder / name).write_bytes(b"".join(one + b"\0" for one in found))

    def _tar_members(self, above: bytes, begin: int, end: int, depth: int) -> Iterator[tuple]:
        for name, kind, offset, size in _tar.entries(self._storage.read, begin, end):
            self._clean(name)  # before `above` could hide a leading slash
            if not self._only_files(above + name, kind):
                continue
            if depth and name.lower().endswith(b".tar"):
                inner = above + name[:-4] + b"/"
                self.folders.add(self._clean(inner))
                yield from self._tar_members(inner, offset, offset + size, depth - 1)
            else:
                yield above + name, offset, size, size, 0, 0


def lookup(archive: Archive, numbers: np.ndarray, labels: np.ndarray) -> Lookup:
    """A split of the members with these numbers i64[n], with labels i32[n] or f32[n,K]."""
    def read(index):
        tf = tensorflow()
        data = tf.numpy_function(lambda i: archive.read(numbers[i]), [index], tf.string)
        return {"image": tf.ensure_shape(data, ()), "label": tf.gather(labels, index)}

    return Lookup(len(numbers), read, lambda index: archive.where(int(numbers[index])),
                  lambda: labels, lambda index: archive.version(int(numbers[index])),
                  lambda: ([_paths.composed(archive.names[number]) for number in numbers], labels))


class _Disk:
    """A file read at any place by any thread; it stays the same file if its name is reused."""

    def __init__(self, path: bytes):
        self.path, self.file = path, untrusted.opened(path)
        self.status = os.fstat(self.file.fileno())
        self.size = self.status.st_size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.file.fileno(), max(min(length, self.size - offset), 0), offset)

    def check(self):
        """DataError if it has changed since it was opened."""
        _paths.unchanged(self.file.fileno(), self.path, self.status, "archive")


class _Memory:
    """A compressed file, unpacked into memory, as it cannot be read at any place otherwise."""

    def __init__(self, packed: _Disk, path: bytes, opener, tool: str):
        data = bytearray()
        try:
            with opener(packed.file) as file:
                while chunk := file.read(1 << 22):
                    data += chunk
                    if len(data) > min(MEMORY_LIMIT, max(1 << 20, RATIO_LIMIT * packed.size)):
                        raise DataError(f"the compressed archive unpacks to over "
                                        f"{len(data) - 1 >> 20:,} MB",
                                        fix=f"decompress it: {tool} {_paths.say(path)}")
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"the compressed archive is damaged or cut off: {error}") from error
        self._data, self.size = memoryview(data), len(data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset:offset + length])


def _inflate(data: bytes, size: int) -> bytes:
    """Inflates raw deflate data to exactly `size` bytes, and never holds more than that."""
    stream = zlib.decompressobj(-15)
    try:
        unpacked = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise DataError(f"the zip member is damaged: {error}") from error
    if len(unpacked) != size or not stream.eof:
        raise DataError(f"the zip member does not unpack to the {size:,} bytes it declares")
    return unpacked
