"""Archives are read in place, as the standard library reads them, and the hostile refused."""

import concurrent.futures
import io
import os
import tarfile
import time
import zipfile

import numpy as np
import pytest

from imgcls_jax.datasets import _archive
from imgcls_jax.datasets._archive import Archive
from imgcls_jax.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLS_DATA_CACHE", str(tmp_path / "cache"))


def contents(count=40):
    """Names of every kind, and bytes of every length about a tar block's."""
    rng = np.random.default_rng(count)
    names = [f"train/class {i % 3}/{i}.jpg" for i in range(count)]
    names += ["deep/" * 30 + "long.jpg", "x" * 180 + ".png", "line\nfeed/tab\t.png", "ünï/🐝.png",
              "no_extension", "empty"]
    return {name: rng.bytes(int(size)) for name, size in
            zip(names, [*rng.integers(0, 1300, len(names) - 1), 0], strict=True)}


def write_tar(path, members, mode="w", format=tarfile.PAX_FORMAT):
    with tarfile.open(path, mode, format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def read_all(path):
    archive = Archive(path)
    return {os.fsdecode(name): archive.read(number) for number, name in enumerate(archive.names)}


WRITERS = {
    "pax.tar": write_tar,
    "gnu.tar": lambda path, members: write_tar(path, members, format=tarfile.GNU_FORMAT),
    "compressed.tar.gz": lambda path, members: write_tar(path, members, "w:gz"),
    "compressed.tar.bz2": lambda path, members: write_tar(path, members, "w:bz2"),
    "compressed.tar.xz": lambda path, members: write_tar(path, members, "w:xz"),
    "deflated.zip": write_zip,
    "stored.zip": lambda path, members: write_zip(path, members, zipfile.ZIP_STORED)}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_the_standard_library_packs_is_read_back(kind, tmp_path):
    WRITERS[kind](tmp_path / kind, contents())
    assert read_all(tmp_path / kind) == contents()


def test_an_ustar_prefix_is_part_of_the_name(tmp_path):
    members = {"a" * 90 + "/" + "b" * 90: b"prefix"}
    write_tar(tmp_path / "ustar.tar", members, format=tarfile.USTAR_FORMAT)
    assert read_all(tmp_path / "ustar.tar") == members


def test_names_that_are_no_utf8_come_as_their_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9/\xff.png")
    write_tar(tmp_path / "a.tar", {name: b"1"})
    write_tar(tmp_path / "b.tar", {name: b"1"}, format=tarfile.GNU_FORMAT)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("caf?/?.png", b"1")
    data = (tmp_path / "c.zip").read_bytes().replace(b"caf?/?.png", b"caf\xe9/\xff.png")
    (tmp_path / "c.zip").write_bytes(data)
    for path in ("a.tar", "b.tar", "c.zip"):
        archive = Archive(tmp_path / path)
        assert archive.names == [b"caf\xe9/\xff.png"]
        assert archive.read(0) == b"1"
        assert archive.where(0).endswith(r"caf\xe9/\xff.png")


def test_a_tar_within_a_tar_is_a_folder(tmp_path):
    for name in ("n01", "n02"):
        write_tar(tmp_path / f"{name}.tar", {f"{name}_{i}.JPEG": name.encode() for i in (1, 2)})
    inner = {f"{name}.tar": (tmp_path / f"{name}.tar").read_bytes() for name in ("n01", "n02")}
    write_tar(tmp_path / "all.tar", inner)
    assert read_all(tmp_path / "all.tar") == {
        f"{name}/{name}_{i}.JPEG": name.encode() for name in ("n01", "n02") for i in (1, 2)}
    assert Archive(tmp_path / "all.tar").folders == {b"n01", b"n02"}


def test_the_later_of_two_members_of_a_name_counts(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for data in (b"old", b"newer"):
            info = tarfile.TarInfo("a.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert read_all(tmp_path / "a.tar") == {"a.png": b"newer"}


def test_folders_are_known_and_leading_dots_dropped(tmp_path):
    (tmp_path / "in" / "cat").mkdir(parents=True)
    (tmp_path / "in" / "dog").mkdir()
    (tmp_path / "in" / "dog" / "a.png").write_bytes(b"a")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in", ".")
    archive = Archive(tmp_path / "a.tar")
    assert archive.names == [b"dog/a.png"]
    assert archive.folders == {b"", b"cat", b"dog"}


@pytest.mark.parametrize("kind", ["many.tar", "many.zip"])
def test_thousands_of_members_from_many_threads(kind, tmp_path):
    count = 10_500 if kind == "many.tar" else 2_000  # from 10,000 on a tar keeps its index
    members = {f"{i}.png": b"%d" % i * (i % 50) for i in range(count)}
    (write_tar if kind == "many.tar" else write_zip)(tmp_path / kind, members)
    for _ in range(2):  # the second time, a tar comes from the kept index
        archive = Archive(tmp_path / kind)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            found = list(pool.map(archive.read, range(len(archive))))
        assert found == list(members.values())
    assert os.path.isdir(tmp_path / "cache") == (kind == "many.tar")
    write_tar(tmp_path / "many.tar", {"another.png": b"another"})
    assert read_all(tmp_path / "many.tar") == {"another.png": b"another"}


# ---- hostile and damaged archives -------------------------------------------------------------


def add(archive, name, type=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, link
    archive.addfile(info)


def tar_with(*arguments):
    def write(path):
        with tarfile.open(path, "w") as archive:
            add(archive, "fine.png")
            add(archive, *arguments)
    return write


def zip_with(name, mode=0, data=b"x"):
    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fine.png", b"x")
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return write


def nested_tar(path):
    with tarfile.open(path.parent / "inner", "w") as archive:
        add(archive, "../../escaped.png")
    write_tar(path, {"inner.tar": (path.parent / "inner").read_bytes()})
    (path.parent / "inner").unlink()


def lying_zip(path):
    """Declares 1,000 bytes and unpacks to 20 MB; the checksum is that of the 1,000."""
    write_zip(path, {"a.png": bytes(1000)})
    size = len(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[0]
    write_zip(path, {"a.png": bytes(20_000_000)})
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        big = archive.infolist()[0]
    for number in (big.file_size, big.CRC):
        wanted = info.file_size if number == big.file_size else info.CRC
        data = data.replace(number.to_bytes(4, "little"), wanted.to_bytes(4, "little"))
    assert len(data) > size
    path.write_bytes(data)


HOSTILE = {
    "parent.tar": (tar_with("../escaped.png"), "leaves the folder", "../escaped.png"),
    "absolute.tar": (tar_with("/tmp/escaped.png"), "leaves the folder", "/tmp/escaped.png"),
    "nested.tar": (nested_tar, "leaves the folder", "../../escaped.png"),
    "symlink.tar": (tar_with("link", tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link", "link"),
    "hardlink.tar": (tar_with("link", tarfile.LNKTYPE, "../x"), "a hard link", "link"),
    "device.tar": (tar_with("null", tarfile.CHRTYPE), "a character device", "null"),
    "pipe.tar": (tar_with("pipe", tarfile.FIFOTYPE), "a named pipe", "pipe"),
    "parent.zip": (zip_with("a/../../escaped.png"), "leaves the folder", "a/../../escaped.png"),
    "absolute.zip": (zip_with("/tmp/escaped.png"), "leaves the folder", "/tmp/escaped.png"),
    "windows.zip": (zip_with("..\\escaped.png"), "leaves the folder", "..\\escaped.png"),
    "backslashes.zip": (zip_with("photos\\ant\\0.png"), "has backslashes for slashes",
                        "photos\\ant\\0.png"),
    "drive.zip": (zip_with("C:\\escaped.png"), "leaves the folder", "C:\\escaped.png"),
    "symlink.zip": (zip_with("link", 0o120777, b"/etc/passwd"), "a symbolic link", "link"),
    "deep.zip": (zip_with("a/" * 30_000 + "b.png"), "in 30,001 folders", "a/" * 40),
    "deep.tar": (tar_with("a/" * 100 + "b.png"), "in 101 folders", "a/" * 40),
    "long.tar": (tar_with("a" * 5000), "has 5,000 bytes", "a" * 80),
    "bomb.zip": (zip_with("bomb.png", 0, bytes(20_000_000)), "unpacks to 20,000,000", "bomb.png"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_written(kind, tmp_path):
    write, what, member = HOSTILE[kind]
    place = tmp_path / "two" / "below"
    place.mkdir(parents=True)
    write(place / kind)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=what) as error:
        Archive(place / kind)
    assert error.value.where == f"{place / kind}: {member}" and error.value.fix
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.exists("/tmp/escaped.png")


def test_a_zip_that_lies_about_its_size_is_refused_when_read(tmp_path):
    lying_zip(tmp_path / "a.zip")
    archive = Archive(tmp_path / "a.zip")
    with pytest.raises(DataError, match="does not unpack to the 1,000 bytes") as error:
        archive.read(0)
    assert error.value.where.endswith("a.png")


def test_members_that_overlap_are_refused(tmp_path):
    """A few bytes packed once, and unpacked for each of a million names."""
    names = [f"{i:02}.png" for i in range(20)]
    write_zip(tmp_path / "a.zip", {name: bytes(1 << 16) for name in names})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        first = archive.infolist()[0]
    begin = data.index(b"PK\1\2")
    entries = data[begin:data.index(b"PK\5\6")]
    for place in range(0, len(entries), len(entries) // len(names)):
        entries[place + 42:place + 46] = bytes(4)  # the place of the first member
    head = bytes(data[:30 + len(first.filename) + first.compress_size])
    end = data[data.index(b"PK\5\6"):]
    end[16:20] = len(head).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(head + entries + end)
    with pytest.raises(DataError, match="overlap"):
        Archive(tmp_path / "a.zip")


@pytest.mark.parametrize("place", [0, 16])
def test_a_zip_whose_directory_leads_out_of_it_is_refused(place, tmp_path):
    write_zip(tmp_path / "a.zip", {"a.png": b"x" * 200})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    end = data.index(b"PK\5\6")
    if place:  # it begins after where it is: the members, before the file
        data[end + 16:end + 20] = (end - 10).to_bytes(4, "little")
    else:
        entry = data.index(b"PK\1\2")
        data[entry + 42:entry + 46] = b"\xff\xff\xff\x7f"
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError):
        Archive(tmp_path / "a.zip").read(0)


def pax(**records) -> bytes:
    """A tar whose first header holds records for all members, or with one record of any size."""
    def record(key, value):
        text = f" {key}={value}\n".encode()
        length = len(text)
        while length < len(text) + len(str(length)):
            length = len(text) + len(str(length))
        return b"%d%s" % (length, text)

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("all")
        info.type, text = b"g", b"".join(record(*one) for one in records.items())
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
        add(archive, "a.png")
    return file.getvalue()


@pytest.mark.parametrize("size", ["9" * 5000, "9" * 25, "-1", "1e3"])
def test_a_size_in_a_tar_that_is_no_number_of_bytes_is_refused(size, tmp_path):
    (tmp_path / "a.tar").write_bytes(pax(size=size))
    with pytest.raises(DataError, match="a pax header in the tar file is damaged"):
        Archive(tmp_path / "a.tar")


def test_records_for_all_members_that_are_not_needed_are_not_looked_at_for_each(tmp_path):
    from imgcls_jax.datasets import _tar

    data = pax(**{f"key{i}": "" for i in range(1000)}, path="b.png")
    for name, kind, _, size in _tar.entries(lambda o, n: data[o:o + n], 0, len(data)):
        assert (name, kind, size) == (b"b.png", _tar.FILE, 0)
    assert _tar._pax(b"11 comm=ab\n") == {}


@pytest.mark.parametrize("kind", WRITERS)
def test_an_archive_stays_the_one_that_was_opened(kind, tmp_path):
    """Images in the cache are kept under `version`: with that of a file of the same name, those of
    the one were read as those of the other."""
    path, new = tmp_path / kind, tmp_path / f"new {kind}"
    WRITERS[kind](path, {"a.jpg": b"x" * 600})
    WRITERS[kind](new, {"a.jpg": b"y" * 600})
    status, version = path.stat(), Archive(path).version(0)
    archive = Archive(path)
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(path)
    assert (archive.read(0), archive.version(0)) == (b"x" * 600, version)
    assert Archive(path).version(0) != version


@pytest.mark.parametrize("kind", ["pax.tar", "stored.zip"])
def test_an_archive_that_is_changed_while_it_is_open_is_refused(kind, tmp_path):
    path = tmp_path / kind
    WRITERS[kind](path, {"a.jpg": b"x" * 600})
    archive, status, data = Archive(path), path.stat(), path.read_bytes()
    time.sleep(0.05)  # a tick of the file system's clock
    for changed in (data.replace(b"x", b"y"), data[:700]):
        path.write_bytes(changed)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(DataError, match="the archive was changed while it was being read"):
            archive.read(0)


def test_a_zip_within_a_zip_is_a_member_and_no_folder(tmp_path):
    write_zip(tmp_path / "inner.zip", {"a.png": bytes(10_000_000)})
    write_zip(tmp_path / "a.zip", {"inner.zip": (tmp_path / "inner.zip").read_bytes()})
    assert Archive(tmp_path / "a.zip").names == [b"inner.zip"]


@pytest.mark.parametrize("what", ["size", "count", "memory", "ratio"])
def test_limits(what, tmp_path, monkeypatch):
    name, limit, value, said = {
        "size": ("a.tar", "SIZE_LIMIT", 1000, "limit of 1,000"),
        "count": ("a.tar", "MEMBER_LIMIT", 3, "over 3 members"),
        "memory": ("a.tar.gz", "MEMORY_LIMIT", 1 << 20, "gunzip"),
        "ratio": ("a.tar.gz", "RATIO_LIMIT", 100, "gunzip")}[what]
    data = np.random.default_rng(0).bytes(1 << 22) if what == "memory" else bytes(1 << 22)
    write_tar(tmp_path / name, {"a": data, "b": b"", "c": b"", "d": b""},
              "w:gz" if name.endswith("gz") else "w")
    monkeypatch.setattr(_archive, limit, value)
    with pytest.raises(DataError) as error:
        Archive(tmp_path / name)
    assert said in str(error.value) and name in error.value.where


@pytest.mark.parametrize("kind", ["pax.tar", "compressed.tar.gz", "deflated.zip", "stored.zip"])
def test_an_archive_cut_anywhere_is_refused(kind, tmp_path):
    WRITERS[kind](tmp_path / kind, contents(5))
    whole = (tmp_path / kind).read_bytes()
    # Behind its end mark a tar is filled up with zeros, which may be missing.
    last = len(whole.rstrip(b"\0")) // 512 * 512 + 512 if kind == "pax.tar" else len(whole) - 9
    for length in [0, 1, 511, 512, 1024, 1536, *range(100, last, last // 17), last]:
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(DataError) as error:
            Archive(tmp_path / "cut")
        assert error.value.where.startswith(str(tmp_path / "cut"))


def test_a_flipped_bit_is_named_in_a_zip_and_in_the_headers_of_a_tar(tmp_path):
    write_zip(tmp_path / "a.zip", {"a.png": b"\1" * 400, "b.png": b"\2" * 400},
              zipfile.ZIP_STORED)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"\2" * 400) + 7] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    archive = Archive(tmp_path / "a.zip")
    assert archive.read(0) == b"\1" * 400
    with pytest.raises(DataError, match="checksum") as error:
        archive.read(1)
    assert error.value.where == f"{tmp_path}/a.zip: b.png"
    write_tar(tmp_path / "a.tar", {"a.png": b"a", "b.png": b"b"})
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[1024 + 5] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"no tar header at byte 1,024, after 'a.png'"):
        Archive(tmp_path / "a.tar")


@pytest.mark.parametrize("data", [b"", b"hello", bytes(5000), b"7z\xbc\xaf\x27\x1c" + bytes(600)])
def test_what_is_no_archive_is_refused(data, tmp_path):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        Archive(tmp_path / "a.tar")


def test_an_encrypted_or_rarely_packed_zip_is_refused(tmp_path):
    write_zip(tmp_path / "a.zip", {"a.png": b"a" * 100}, zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match="neither stored nor deflated"):
        Archive(tmp_path / "a.zip")
