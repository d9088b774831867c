"""imgcls data prepare: what was put in comes out, shuffled, counted and signed."""

import hashlib
import io
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls_jax import config
from imgcls_jax.assembly import build
from imgcls_jax.cli import _command as command
from imgcls_jax.data import listing
from imgcls_jax.data.curation import recording
from imgcls_jax.data.curation.check import Findings
from imgcls_jax.data.curation.digests import Digests
from imgcls_jax.datasets import DATASETS
from imgcls_jax.types import Lookup, Shards, Source


def jpeg(rng, width, height, mode="RGB") -> bytes:
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
    out = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def photos(tmp_path):
    """24 images to train on, of which every third has a short side of 20, and 6 to evaluate on."""
    rng, root = np.random.default_rng(0), tmp_path / "photos"
    for split, count in (("train", 12), ("val", 3)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                size = [(60, 45), (33, 90), (26, 20)][i % 3]
                (root / split / name / f"{i:02}.jpg").write_bytes(jpeg(rng, *size))
    return root


def prepare(*words, code=0):
    assert command.main(["data", "prepare", *map(str, words)]) == code


def read(out, split) -> list[tuple[bytes, list, str]]:
    """(image, label, name) of every record, in the order of the files, by TensorFlow's reader."""
    files = json.loads((out / "dataset.json").read_text())["splits"][split]["files"]
    return [record for file in files for record in records(out / file["file"])]


def records(file) -> list[tuple[bytes, list, str]]:
    import tensorflow as tf

    found = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        label = feature["label"]
        found.append((feature["image"].bytes_list.value[0],
                      list(label.int64_list.value) or list(label.float_list.value),
                      feature["name"].bytes_list.value[0].decode()))
    return found


def test_every_example_comes_once_with_its_bytes_label_and_name(photos, tmp_path):
    out = tmp_path / "out"
    prepare(photos, f"--out={out}", "--shards=4")
    rows = read(out, "train")
    names = [name for _, _, name in rows]
    assert sorted(names) == sorted(map(str, photos.glob("train/*/*.jpg")))
    assert names != sorted(names)
    for image, label, name in rows:
        assert image == open(name, "rb").read()
        assert label == [("ant", "bee").index(name.split("/")[-2])]
    listed = json.loads((out / "dataset.json").read_text())
    assert {key: listed[key] for key in ("version", "name", "classes", "kind", "channels",
                                         "image_size", "format", "resized_short_side")} == {
        "version": 1, "name": "folder", "classes": ["ant", "bee"], "kind": "multiclass",
        "channels": 3, "image_size": None, "format": "tfrecord", "resized_short_side": None}
    assert [listed["splits"][name]["count"] for name in ("train", "val")] == [24, 6]
    assert [file["file"] for file in listed["splits"]["train"]["files"]] == [
        f"train-{i:05}-of-00004.tfrecord" for i in range(4)]
    assert not list(tmp_path.glob("*.partial")) and not list(out.glob("*.tmp"))


@pytest.mark.parametrize("splits", [(), ("--splits=train",)])
def test_the_lines_that_are_printed_build(photos, tmp_path, capsys, splits):
    """With a shipped config, too, whose evaluation is on `validation`."""
    prepare(photos, f"--out={tmp_path / 'my records'}", *splits)
    own, other = (shlex.split(line.partition("with")[2].partition(": ")[2])
                  for line in capsys.readouterr().out.splitlines()[-2:])
    assert own[:2] == ["imgcls", "train"] and own[2] == (
        f"--config=finetune:data={tmp_path / 'my records'}")
    for spec, words in ((own[2].removeprefix("--config="), own[3:]),
                        ("imagenet/resnet:resnet18", other)):
        run = build(config.load(spec, config.split_argv(words)[1]).config)
        assert run.source.classes == ("ant", "bee") and run.steps_per_epoch > 0


def test_the_description_has_the_letters_of_the_classes(photos, tmp_path):
    for split in ("train", "val"):
        (photos / split / "bee").rename(photos / split / "花")
    (photos / "train" / "花" / "00.jpg").write_bytes(b"no image")
    prepare(photos, f"--out={tmp_path / 'out'}", "--on_error=skip")
    for name in ("dataset.json", "bad_samples.jsonl"):
        assert "花" in (tmp_path / "out" / name).read_text(encoding="utf-8")


def test_the_manifest_and_the_index_are_those_of_the_files(photos, tmp_path):
    out = tmp_path / "out"
    prepare(photos, f"--out={out}", "--shards=2")
    import tensorflow as tf

    for split in json.loads((out / "dataset.json").read_text())["splits"].values():
        for file in split["files"]:
            data = (out / file["file"]).read_bytes()
            assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
            index = np.load(out / f"{file['file']}.index.npy")
            assert index.dtype == np.uint64 and index.shape == (file["count"], 2)
            records = tf.data.TFRecordDataset(str(out / file["file"])).as_numpy_iterator()
            assert [data[a:a + n] for a, n in index.astype(int)] == list(records)


def test_large_images_are_shrunk_as_pillow_does_and_small_ones_kept(photos, tmp_path):
    (photos / "train/ant/00.jpg").write_bytes(jpeg(np.random.default_rng(5), 60, 45, "L"))
    (photos / "train/ant/01.jpg").write_bytes(jpeg(np.random.default_rng(6), 60, 45, "CMYK"))
    out = tmp_path / "out"
    prepare(photos, f"--out={out}", "--short_side=24", "--quality=90", "--workers=3")
    sizes = set()
    for image, _, name in read(out, "train"):
        original = open(name, "rb").read()
        with Image.open(io.BytesIO(original)) as picture:
            width, height = picture.size
            if min(width, height) <= 24:
                assert image == original
                continue
            scale = 24 / min(width, height)
            size = round(width * scale), round(height * scale)
            picture = picture if picture.mode == "L" else picture.convert("RGB")
            wanted = io.BytesIO()
            picture.resize(size, Image.Resampling.BICUBIC).save(wanted, "JPEG", quality=90)
            assert image == wanted.getvalue() and min(size) == 24
            sizes.add(size)
    assert sizes == {(32, 24), (24, 65)}
    listed = json.loads((out / "dataset.json").read_text())
    assert (listed["resized_short_side"], listed["quality"]) == (24, 90)


def test_arrays_become_png_without_loss(tmp_path):
    prepare("digits", f"--out={tmp_path / 'out'}", "--splits=test")
    import tensorflow as tf

    split = DATASETS.get("digits")().open("test")
    images = {}
    for image, label, name in read(tmp_path / "out", "test"):
        with Image.open(io.BytesIO(image)) as picture:
            assert picture.format == "PNG"
            images[name] = np.asarray(picture)[..., None], label
    assert len(images) == split.size == 360
    for i in (0, 17, 359):
        row = split.read(tf.constant(i))
        np.testing.assert_array_equal(images[split.where(i)][0], row["image"])
        assert images[split.where(i)][1] == [int(row["label"])]
    listed = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert listed["image_size"] == [8, 8] and listed["channels"] == 1
    assert list(listed["splits"]) == ["test"]


def test_array_record_files_hold_the_same_records(photos, tmp_path):
    from array_record.python.array_record_module import ArrayRecordReader

    prepare(photos, f"--out={tmp_path / 'a'}", "--shards=2", "--format=array_record")
    prepare(photos, f"--out={tmp_path / 'b'}", "--shards=2")
    import tensorflow as tf

    for i in range(2):
        reader = ArrayRecordReader(str(tmp_path / "a" / f"train-{i:05}-of-00002.array_record"))
        records = reader.read_all()
        reader.close()
        assert records == list(tf.data.TFRecordDataset(
            str(tmp_path / "b" / f"train-{i:05}-of-00002.tfrecord")).as_numpy_iterator())


def test_the_order_is_that_of_the_seed_whatever_the_threads(photos, tmp_path):
    for name, words in (("a", ["--workers=1"]), ("b", ["--workers=7"]), ("c", ["--seed=1"])):
        prepare(photos, f"--out={tmp_path / name}", *words)
    rows = {name: [row[2] for row in read(tmp_path / name, "train")] for name in "abc"}
    assert rows["a"] == rows["b"] != rows["c"] and sorted(rows["a"]) == sorted(rows["c"])


def test_about_so_many_megabytes_a_file(photos, tmp_path):
    for i in range(100):
        name = photos / "train" / "ant" / f"more{i}.bmp"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (100, 100, 3), np.uint8)).save(
            name)
    prepare(photos, f"--out={tmp_path / 'out'}", "--shard_mb=1")
    files = json.loads((tmp_path / "out/dataset.json").read_text())["splits"]["train"]["files"]
    assert 3 <= len(files) <= 4
    assert all(0.5e6 < file["bytes"] < 1.5e6 for file in files)


# ---- sources that are read in their own order -----------------------------------------------


@pytest.fixture
def registered(monkeypatch):
    def put(source):
        DATASETS.names()
        monkeypatch.setitem(DATASETS._found, "planted", lambda: source)
        monkeypatch.setitem(DATASETS._facts, "planted", {})

    return put


def sharded(tmp_path, count=90, shards=3) -> Source:
    """Record files sorted by class, as the worst of them are: the record is the class's number and
    the image."""
    import tensorflow as tf

    rng, files, per = np.random.default_rng(0), [], count // shards
    for shard in range(shards):
        path = str(tmp_path / f"in-{shard}")
        with tf.io.TFRecordWriter(path) as out:
            for _ in range(per):
                out.write(bytes([shard]) + jpeg(rng, 8, 8))
        files.append((path, 0, per))

    def parse(record):
        label = tf.io.decode_raw(tf.strings.substr(record, 0, 1), tf.uint8)[0]
        return {"image": tf.strings.substr(record, 1, -1), "label": tf.cast(label, tf.int64)}

    split = Shards(tuple(files), lambda path: tf.data.TFRecordDataset(path), parse)
    return Source("planted", ("a", "b", "c"), {"train": count}, lambda name: split)


def test_record_files_sorted_by_class_come_out_mixed(tmp_path, registered, monkeypatch):
    monkeypatch.setattr(recording, "BUFFERS", 5_000)  # so that files are written in pieces
    source = sharded(tmp_path)
    registered(source)
    prepare("planted", f"--out={tmp_path / 'out'}", "--shards=5")
    rows = read(tmp_path / "out", "train")
    split = source.open("train")
    assert sorted(row[2] for row in rows) == sorted(map(split.where, range(90)))
    for first in range(0, 90, 18):  # every file has all classes, not in their order
        labels = [row[1][0] for row in rows[first:first + 18]]
        assert set(labels) == {0, 1, 2} and labels != sorted(labels)
    import tensorflow as tf

    originals = [record[1:] for path, _, _ in split.files
                 for record in tf.data.TFRecordDataset(path).as_numpy_iterator()]
    assert {row[2]: row[0] for row in rows} == dict(zip(map(split.where, range(90)), originals,
                                                        strict=True))
    assert not list((tmp_path / "out").glob("*.unordered"))


def test_several_labels_are_floats(tmp_path, registered):
    import tensorflow as tf

    labels = np.eye(3, dtype=np.float32)[::-1] + np.eye(3, dtype=np.float32)[0]
    split = Lookup(3, lambda index: {"image": tf.zeros((4, 5, 3), tf.uint8),
                                     "label": tf.gather(np.minimum(labels, 1), index)},
                   lambda index: f"row {index}")
    registered(Source("planted", ("a", "b", "c"), {"train": 3}, lambda name: split,
                      kind="multilabel"))
    prepare("planted", f"--out={tmp_path / 'out'}")
    rows = {name: label for _, label, name in read(tmp_path / "out", "train")}
    assert rows == {"row 0": [1, 0, 1], "row 1": [1, 1, 0], "row 2": [1, 0, 0]}
    assert json.loads((tmp_path / "out/dataset.json").read_text())["kind"] == "multilabel"


# ---- bad examples, other runs ---------------------------------------------------------------


def test_a_bad_image_ends_it_by_name_and_leaves_no_dataset(photos, tmp_path, capsys):
    bad = photos / "train/bee/03.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    prepare(photos, f"--out={tmp_path / 'out'}", code=3)
    told = capsys.readouterr().err
    assert str(bad) in told and "--on_error=skip" in told and "damaged" in told
    assert not (tmp_path / "out").exists()


def test_skipped_examples_are_listed_and_not_counted(photos, tmp_path):
    bad = [photos / "train/bee/03.jpg", photos / "val/ant/01.jpg"]
    for path in bad:
        path.write_bytes(b"<html>")
    prepare(photos, f"--out={tmp_path / 'out'}", "--on_error=skip", "--shards=3")
    listed = [json.loads(line) for line in
              (tmp_path / "out/bad_samples.jsonl").read_text().splitlines()]
    assert [(row["split"], row["where"]) for row in listed] == [
        ("train", str(bad[0])), ("val", str(bad[1]))]
    assert all("not an image" in row["reason"] for row in listed)
    splits = json.loads((tmp_path / "out/dataset.json").read_text())["splits"]
    assert [splits[name]["count"] for name in ("train", "val")] == [23, 5]
    assert sum(file["count"] for file in splits["train"]["files"]) == 23
    assert len(read(tmp_path / "out", "train")) == 23


def test_a_damaged_record_is_skipped_alone(tmp_path, registered):
    source = sharded(tmp_path)
    registered(source)
    path = source.open("train").files[1][0]
    data = bytearray(open(path, "rb").read())
    data[len(data) // 2] ^= 1
    open(path, "wb").write(data)
    prepare("planted", f"--out={tmp_path / 'no'}", code=3)
    prepare("planted", f"--out={tmp_path / 'out'}", "--on_error=skip", "--shards=2")
    (row,) = map(json.loads, (tmp_path / "out/bad_samples.jsonl").read_text().splitlines())
    assert row["where"].startswith(f"{path}, record ") and "damaged" in row["reason"]
    assert len(read(tmp_path / "out", "train")) == 89


def interrupted(monkeypatch, *words) -> list[Path]:
    """A run that ends after two files, which it gives."""
    write, written = recording._write, []

    def until_then(path, *arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(recording, "_write", until_then)
        prepare(*words, code=130)
    return written


@pytest.mark.daily(1)
@pytest.mark.parametrize("kind", ["shards", "lookup"])
def test_a_run_that_was_cut_off_goes_on(photos, tmp_path, registered, monkeypatch, kind):
    registered(sharded(tmp_path))
    words = [photos if kind == "lookup" else "planted", "--shards=3"]
    prepare(*words, f"--out={tmp_path / 'whole'}")
    written = interrupted(monkeypatch, *words, f"--out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
    before = {path.name: path.stat().st_mtime_ns for path in written}
    prepare(*words, f"--out={tmp_path / 'out'}", "--shards=4", code=2)
    prepare(*words, f"--out={tmp_path / 'out'}")
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == when
               for name, when in before.items())
    names = sorted(os.listdir(tmp_path / "out"))
    assert names == sorted(os.listdir(tmp_path / "whole"))
    assert_same_files(tmp_path / "out", tmp_path / "whole")


def assert_same_files(one, other):
    for path in one.iterdir():
        if path.is_file() and path.name != "sources.json":  # with the times of the images
            assert path.read_bytes() == (other / path.name).read_bytes(), path.name


@pytest.fixture
def cut_off(photos, tmp_path, monkeypatch):
    """The words of a run that was cut off after two of its four files."""
    words = [photos, "--shards=2", f"--out={tmp_path / 'out'}"]
    interrupted(monkeypatch, *words)
    return words


def test_a_folder_that_changed_meanwhile_is_told_and_refused(photos, tmp_path, cut_off, capsys):
    """Its order is another one: examples would be missing, and others be there twice."""
    prepare(photos, "--shards=2", f"--out={tmp_path / 'before'}")
    (photos / "train" / "ant" / "00b.jpg").write_bytes(jpeg(np.random.default_rng(9), 30, 30))
    (photos / "val" / "bee" / "02.jpg").rename(photos / "val" / "ant" / "02b.jpg")
    told = ("train: 1 example added (train/ant/00b.jpg); val: 1 example added (val/ant/02b.jpg); "
            "val: 1 example removed (val/bee/02.jpg)")
    prepare(*cut_off, code=2)
    assert told in capsys.readouterr().err
    prepare(photos, "--shards=2", f"--out={tmp_path / 'before'}", code=2)  # a complete one, too
    assert told in capsys.readouterr().err
    (photos / "train" / "ant" / "00b.jpg").unlink()
    (photos / "val" / "ant" / "02b.jpg").rename(photos / "val" / "bee" / "02.jpg")
    prepare(*cut_off)
    assert_same_files(tmp_path / "out", tmp_path / "before")


def test_what_was_written_of_an_image_that_changed_is_written_again(photos, tmp_path, cut_off):
    (first,) = (json.loads(line) for line in (
        tmp_path / "out.partial" / "progress.jsonl").read_text().splitlines()[:1])
    there = tmp_path / "out.partial" / first["file"]
    kept = tmp_path / "out.partial" / "train-00001-of-00002.tfrecord"
    changed = Path(next(name for _, _, name in records(there)))
    changed.write_bytes(jpeg(np.random.default_rng(9), 31, 30))
    before = kept.stat().st_mtime_ns
    prepare(*cut_off)
    assert (tmp_path / "out" / kept.name).stat().st_mtime_ns == before
    prepare(photos, "--shards=2", f"--out={tmp_path / 'now'}")
    assert_same_files(tmp_path / "out", tmp_path / "now")


def test_a_finished_folder_is_not_taken_for_that_of_changed_images(photos, tmp_path, capsys):
    """Two classes change their names: the same list of files, and each label is wrong."""
    out = tmp_path / "out"
    prepare(photos, f"--out={out}")
    prepare(photos, f"--out={out}")
    assert "prepared already" in capsys.readouterr().err
    (photos / "train/ant").rename(tmp_path / "aside")
    (photos / "train/bee").rename(photos / "train/ant")
    (tmp_path / "aside").rename(photos / "train/bee")
    prepare(photos, f"--out={out}", code=2)
    assert "the files of train have changed since this was prepared" in capsys.readouterr().err
    prepare(photos, f"--out={out}", "--shards=2", code=2)
    assert "holds something else already: shards: None -> 2" in capsys.readouterr().err


@pytest.mark.parametrize("by_index", [False, True])
def test_a_run_tells_two_prepared_datasets_of_equal_counts_apart(photos, tmp_path, by_index):
    def digest(out):
        source = DATASETS.get("prepared")(dir=str(out), by_index=by_index)
        return listing.listing(source.open("train")).digest

    prepare(photos, f"--out={tmp_path / 'one'}")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    first, second = photos / "train/ant/00.jpg", photos / "train/bee/00.jpg"
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)  # of the other class now
    prepare(photos, f"--out={tmp_path / 'other'}")
    assert digest(tmp_path / "one") == digest(tmp_path / "copy") != digest(tmp_path / "other")


def test_folders_of_one_relative_name_are_two(photos, tmp_path, monkeypatch):
    for name in ("one", "other"):
        shutil.copytree(photos, tmp_path / name / "photos")
    for name, code in (("one", 0), ("other", 2), ("one", 0)):
        monkeypatch.chdir(tmp_path / name)
        prepare("./photos", f"--out={tmp_path / 'out'}", code=code)


def test_a_run_that_was_killed_before_its_plan_begins_again(photos, tmp_path):
    partial = tmp_path / "out.partial"
    (partial / "examples").mkdir(parents=True)
    (partial / ".plan.json.tmp").write_text('{"data": ')
    prepare(photos, f"--out={tmp_path / 'out'}")
    assert len(read(tmp_path / "out", "train")) == 24 and not partial.exists()
    (partial).mkdir()
    (partial / "mine.txt").write_text("of somebody else")
    prepare(photos, f"--out={tmp_path / 'out'}2", code=0)
    shutil.rmtree(tmp_path / "out")
    prepare(photos, f"--out={tmp_path / 'out'}", code=2)
    assert (partial / "mine.txt").exists()


def test_what_is_there_is_neither_written_again_nor_overwritten(photos, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(photos, f"--out={out}")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    prepare(photos, f"--out={out}")
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "prepared already" in capsys.readouterr().err
    prepare(photos, f"--out={out}", "--short_side=24", code=2)
    assert "something else" in capsys.readouterr().err
    shutil.rmtree(out)
    out.write_text("mine")
    prepare(photos, f"--out={out}", code=2)
    prepare(photos, f"--out={out}/below", code=6)
    prepare(photos, code=2)
    assert out.read_text() == "mine"


def test_it_tells_how_many_examples_and_files_it_wrote(photos, tmp_path, capsys):
    prepare(photos, f"--out={tmp_path / 'out'}", "--short_side=24")
    assert capsys.readouterr().out.startswith("train      24 examples in 1 files")
    assert len(read(tmp_path / "out", "val")) == 6


# ---- what is found wrong later --------------------------------------------------------------


def faults(out) -> list[tuple[str, str]]:
    """(file or record, what is wrong) by the digests of dataset.json."""
    findings = Findings()
    Digests(str(out), False, findings)
    return [(os.path.relpath(row["where"], out), row["what"]) for row in findings.errors]


def test_digests_find_every_flipped_bit_and_the_record_that_it_is_in(photos, tmp_path):
    out, rng = tmp_path / "out", np.random.default_rng(0)
    prepare(photos, f"--out={out}", "--shards=2")
    assert faults(out) == []
    path = out / "train-00001-of-00002.tfrecord"
    whole, index = path.read_bytes(), np.load(f"{path}.index.npy").astype(int)
    for number in range(10):
        begin, length = index[number]
        data = bytearray(whole)
        data[begin + rng.integers(length)] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        assert faults(out) == [
            (path.name, "the file has changed since its digest was written"),
            (f"{path.name}, record {number}", "the record is damaged")]
    path.write_bytes(whole[:index[5][0] - 12])  # on the boundary of two records
    assert [where for where, _ in faults(out)] == [path.name]
    path.write_bytes(b"")
    assert [where for where, _ in faults(out)] == [path.name]
    path.unlink()
    assert faults(out) == [(path.name, "missing, but in dataset.json")]


def test_a_damaged_manifest_is_told(photos, tmp_path):
    prepare(photos, f"--out={tmp_path / 'out'}")
    (tmp_path / "out/dataset.json").write_text('{"splits": 3}')
    assert faults(tmp_path / "out") == [("dataset.json", "damaged")]


def test_a_torn_line_of_progress_is_left_out(tmp_path):
    (tmp_path / "train-0.tfrecord").write_bytes(b"12345")
    whole = b'{"file": "train-0.tfrecord", "count": 1, "bytes": 5, "sha256": "0"}\n'
    (tmp_path / "progress.jsonl").write_bytes(whole + b'{"file": "train-1\xc3')
    assert list(recording.remembered(tmp_path)) == ["train-0.tfrecord"]
