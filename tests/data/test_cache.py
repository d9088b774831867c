"""The cache of encoded images: what it serves is what the disk holds, whatever has changed."""

import dataclasses
import itertools
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from imgcls_jax import datasets
from imgcls_jax.data.cache import cached
from imgcls_jax.data.faults import Faults
from imgcls_jax.datasets import digits, folder
from imgcls_jax.errors import ConfigError, DataError


@pytest.fixture
def photos(tmp_path):
    """Six files of two classes. Their bytes say which file they are; nothing here decodes them."""
    for label, names in (("ant", "abc"), ("bee", "def")):
        for name in names:
            place = tmp_path / "photos" / label / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(f"image {name}".encode())
    return tmp_path / "photos"


def opened(photos):
    return datasets.split(folder.folder(dir=str(photos), val_fraction=0.0), "train")


def served(split) -> list[tuple[bytes, int]]:
    """Two epochs of a pipeline, which are the same, and example by example."""
    rows = tf.data.Dataset.range(split.size).repeat(2).map(split.read, num_parallel_calls=4)
    rows = [(row["image"], int(row["label"])) for row in rows.as_numpy_iterator()]
    one = [split.read(np.int64(i)) for i in range(split.size)]
    one = [(row["image"].numpy(), int(row["label"])) for row in one]
    assert rows == one + one
    return one


def on_disk(photos) -> list[tuple[bytes, int]]:
    return [(file.read_bytes(), label) for label, name in enumerate(("ant", "bee"))
            for file in sorted((photos / name).iterdir())]


def move(photos):
    (photos / "bee/e.png").rename(photos / "ant/e.png")


def remove(photos):
    (photos / "ant/a.png").unlink()


def add(photos):
    (photos / "ant/aa.png").write_bytes(b"image new")


def mend(photos):
    (photos / "bee/f.png").write_bytes(b"other f")  # as long as before


def swap(photos):
    """Two files change their names, and keep their times."""
    (photos / "ant/a.png").rename(photos / "kept")
    (photos / "bee/d.png").rename(photos / "ant/a.png")
    (photos / "kept").rename(photos / "bee/d.png")


def swap_alike(photos):
    """The same for two files of one time of modification, as `tar` and `cp -p` may give them."""
    for name in ("ant/a.png", "bee/d.png"):
        os.utime(photos / name, ns=(10**18, 10**18))
    swap(photos)


@pytest.mark.parametrize("edit", [move, remove, add, mend, swap, swap_alike])
@pytest.mark.parametrize("place", ["memory", "folder"])
def test_what_is_served_after_an_edit_is_on_the_disk(photos, tmp_path, edit, place):
    place = place if place == "memory" else str(tmp_path / "cache")
    split = cached(opened(photos), place, "photos")
    assert served(split) == on_disk(photos)
    edit(photos)
    assert served(cached(opened(photos), place, "photos")) == on_disk(photos)
    if edit in (mend, swap, swap_alike):  # as many files: the open split serves the disk too
        assert served(split) == on_disk(photos)


def test_a_second_run_reads_no_file(photos, tmp_path):
    served(cached(opened(photos), str(tmp_path / "cache"), "photos"))
    split = opened(photos)

    def unread(index):
        return {"image": tf.io.read_file("/there/is/none"), "label": tf.constant(0)}

    again = cached(dataclasses.replace(split, read=unread), str(tmp_path / "cache"), "photos")
    assert served(again) == on_disk(photos)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:8],
                                    lambda data: data[:-1] + b"?"])
def test_a_damaged_file_of_the_cache_is_not_served(photos, tmp_path, damage):
    served(cached(opened(photos), str(tmp_path / "cache"), "photos"))
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert len(files) == 6
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    assert served(cached(opened(photos), str(tmp_path / "cache"), "photos")) == on_disk(photos)


def test_a_file_that_cannot_be_read_leaves_nothing_and_is_served_once_it_is_back(photos, tmp_path):
    split = cached(opened(photos), str(tmp_path / "cache"), "photos")
    whole = on_disk(photos)
    (photos / "ant/b.png").rename(tmp_path / "b.png")
    with pytest.raises(tf.errors.OpError, match=r"b\.png"):
        served(split)
    (tmp_path / "b.png").rename(photos / "ant/b.png")
    assert served(split) == whole


def test_a_file_that_changes_while_it_is_read_is_not_kept_under_its_new_state(photos, tmp_path):
    split, file = opened(photos), photos / "ant/a.png"
    state, status = split.version, file.stat()
    asked = itertools.count()

    def version(index):  # the file is replaced after the cache has looked at it
        if next(asked) == 1:
            file.write_bytes(b"other a")
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
        return state(index)

    changing = cached(datasets.Lookup(split.size, split.read, split.where, split.labels, version),
                      str(tmp_path / "cache"), "photos")
    assert changing.read(np.int64(0))["image"].numpy() == b"image a"
    assert served(cached(split, str(tmp_path / "cache"), "photos")) == on_disk(photos)


def test_an_image_that_is_cut_off_is_the_only_one_left_out(photos, tmp_path):
    for file in photos.rglob("*.png"):
        Image.fromarray(np.full((4, 4, 3), ord(file.stem), np.uint8)).save(file)
    bad = photos / "ant/b.png"
    bad.write_bytes(bad.read_bytes()[:40])
    told = []
    for _ in range(2):
        split = cached(opened(photos), str(tmp_path / "cache"), "photos")

        def example(index, epoch, number, split=split):
            row = split.read(index)
            return {**row, "image": tf.io.decode_png(row["image"])}

        faults = Faults(split, on_error="skip", max_bad_fraction=1.0, report=told.append)
        faults.meet(lambda: ((i, np.int64(0), np.int64(i)) for i in range(6)), example,
                    ValueError("a batch failed"))
        assert faults.stand_ins == {1: 2}
    assert [row["where"] for row in told] == [str(bad)] * 2
    assert served(cached(opened(photos), str(tmp_path / "cache"), "photos")) == on_disk(photos)


def test_members_of_an_archive_are_kept_until_the_archive_changes(photos, tmp_path):
    for edit in (lambda _: None, mend):
        edit(photos)
        shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
        source = folder.folder(dir=str(tmp_path / "photos.zip"), val_fraction=0.0)
        split = cached(datasets.split(source, "train"), str(tmp_path / "cache"), "photos")
        assert served(split) == on_disk(photos)


def test_a_full_disk_stops_nothing_and_is_told_once(photos, tmp_path, monkeypatch):
    split = cached(opened(photos), str(tmp_path / "cache"), "photos")

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imgcls_jax.data.cache.tempfile.NamedTemporaryFile", full)
    with pytest.warns(UserWarning, match="No space left") as told:
        assert served(split) == on_disk(photos)
    assert len(told) == 1


def test_a_folder_that_cannot_be_written_and_images_in_memory_are_refused(photos, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="cannot be used"):
        cached(opened(photos), str(tmp_path / "cache"), "photos")
    with pytest.raises(ConfigError, match="in memory already"):
        cached(datasets.split(digits.digits(), "test"), "memory", "digits")
