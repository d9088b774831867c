"""imgcls data check finds every planted fault, and nothing else."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from imgcls_jax import datasets
from imgcls_jax.cli import _command as command
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.data.faults import Faults
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Shards, Source
from tests.commands import environment, imgcls


def photo(rng, form="JPEG", mode="RGB", size=(48, 36), **options) -> bytes:
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    out = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).convert(mode).save(out, form, **options)
    return out.getvalue()


def write_folder(root, train=20, val=5, classes=("ant", "bee", "cat", "dog"), seed=0):
    """DIR/train|val/CLASS/*.jpg, all different."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                (root / split / name / f"{i:02}.jpg").write_bytes(photo(rng, quality=90))


@pytest.fixture(scope="session")
def clean_folder(tmp_path_factory):
    """160 images to train on and 40 to evaluate on."""
    root = tmp_path_factory.mktemp("clean") / "photos"
    write_folder(root, 40, 10)
    return root


@pytest.fixture
def photos(clean_folder, tmp_path):
    return shutil.copytree(clean_folder, tmp_path / "photos")


@pytest.fixture
def few(tmp_path):
    """20 images to train on and 8 to evaluate on."""
    write_folder(tmp_path / "photos", 5, 2)
    return tmp_path / "photos"


@pytest.fixture
def check(capsys):
    """check(code, *words) -> what `imgcls data check --json` prints."""
    def run(code, *words):
        capsys.readouterr()
        assert command.main(["data", "check", "--json", *map(str, words)]) == code
        return json.loads(capsys.readouterr().out)

    return run


def wheres(rows, root) -> dict[str, str]:
    return {os.path.relpath(row["where"].split(", record")[0], root): row["what"] for row in rows}


# ---- rows 30 and 49 of the faults: planted files --------------------------------------------


def test_a_clean_folder_has_no_faults_and_its_figures_are_told(photos, check):
    found = check(0, photos)
    assert (found["errors"], found["notes"], found["duplicates"]) == ([], [], [])
    assert found["layout"] == "SPLIT/CLASS/*" and found["classes"] == 4
    assert found["splits"]["train"]["classes"] == dict.fromkeys(("ant", "bee", "cat", "dog"), 40)
    assert found["splits"]["val"]["examples"] == 40
    assert found["images"]["formats"] == {"JPEG RGB": 200}
    assert found["images"]["width"] == [48, 48, 48] and found["images"]["height"] == [36, 36, 36]


def test_what_is_left_out_is_listed_by_path_and_is_no_error(few, check):
    for name in ("train/ant/notes.txt", "val/bee/clip.mov"):
        (few / name).write_text("x")
    found = check(0, few)
    assert found["errors"] == [] and set(wheres(found["notes"], few)) == {
        "train/ant/notes.txt", "val/bee/clip.mov"}


def test_many_notes_of_one_kind_are_one_line(few, capsys):
    for i in range(30):
        (few / f"train/ant/note{i}.txt").write_text("x")
    (few / "train/one").mkdir()
    (few / "train/one/x.jpg").write_bytes(photo(np.random.default_rng(1)))
    (few / "train/bee/01.jpg").write_bytes(b"")
    assert command.main(["data", "check", str(few)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("note ")] == [
        f"note       30 times: left out: it is not an image that can be read: "
        f"{', '.join(f'{few}/train/ant/note{i}.txt' for i in (0, 1, 10, 11))} ... "
        "(--json lists all)", "note       class 'one': has one example to train on"]
    assert lines[-1].startswith("1 error, 31 notes")


def damage(data: bytes) -> dict:
    """Name -> what stands in its place."""
    rng = np.random.default_rng(7)
    png, big = photo(rng, "PNG"), photo(rng, size=(200, 150))
    progressive = photo(rng, size=(200, 150), progressive=True)
    middle = png.index(b"IDAT") + 30
    return {
        "train/ant/00.jpg": b"", "train/ant/01.jpg": b"<!DOCTYPE html><html>404</html>",
        "train/bee/02.jpg": data[:len(data) // 2], "train/bee/03.jpg": data[:-16],
        "train/cat/04.jpg": big[:-16], "train/cat/05.jpg": progressive[:-16],
        "train/dog/06.jpg": png[:-30], "train/dog/07.jpg": b"\0" * 4096,
        "val/ant/00.jpg": png[:middle] + b"\xff\xff\xff\xff" + png[middle + 4:],
        "val/bee/01.jpg": data[:2] + b"\0\0\0" + data[5:], "val/cat/02.jpg": data[:100],
        "val/dog/03.jpg": photo(rng, "WEBP")[:60],
    }


def test_12_of_12_bad_files_of_200_are_found_and_no_other(photos, check):
    planted = damage((photos / "train/ant/00.jpg").read_bytes())
    assert len(planted) == 12
    for name, data in planted.items():
        (photos / name).write_bytes(data)
    found = check(3, photos)
    errors = wheres(found["errors"], photos)
    assert set(errors) == set(planted) and len(found["errors"]) == 12
    assert found["duplicates"] == [] and not found["ok"]
    assert errors["train/ant/00.jpg"] == "the image has zero bytes"
    assert "not an image" in errors["train/ant/01.jpg"]
    assert found["splits"]["train"]["faulty"] == 8 and found["splits"]["val"]["faulty"] == 4
    # The headers alone show only some of them, and say so of what may be cut off.
    quick = check(3, photos, "--fast")
    seen = set(wheres(quick["errors"] + quick["notes"], photos))
    assert seen <= set(planted) and len(seen) >= 9


def test_what_is_passed_is_what_training_reads(tmp_path, check):
    """Files with a flipped bit, a hole or a missing end: TensorFlow refuses some of what Pillow
    reads, such as a JPEG without its last two bytes or a PNG without its end."""
    rng, root = np.random.default_rng(0), tmp_path / "photos"
    for split in ("train", "val"):
        (root / split / "ant").mkdir(parents=True)
    (root / "val" / "ant" / "whole.jpg").write_bytes(photo(rng))
    for i, form in enumerate(("JPEG", "PNG") * 9):
        data = bytearray(photo(rng, form))
        place = int(rng.integers(len(data)))
        data[place:place + 4] = {0: bytes([data[place] ^ 16]), 1: bytes(4)}.get(
            i // 2 % 3, data[place:place + 4])
        end = len(data) - (int(rng.integers(1, 20)) if i // 2 % 3 == 2 else 0)
        (root / "train" / "ant" / f"{i:02}.{form.lower()}").write_bytes(data[:end])
    cut = photo(rng)
    (root / "train" / "ant" / "cut.jpg").write_bytes(cut[:-2])
    with datasets.collecting():
        split = DATASETS.get("folder")(dir=str(root)).open("train")
    rows = []
    faults = Faults(split, on_error="skip", max_bad=99, max_bad_fraction=1, report=rows.append)
    for _ in eval_batches(split, [], batch_size=1, rows=slice(0, 1), channels=3,
                                   faults=faults):
        pass
    unread = {os.path.relpath(row["where"], root) for row in rows}
    assert "train/ant/cut.jpg" in unread and 7 < len(unread) < 17
    assert set(wheres(check(3, root)["errors"], root)) == unread


def test_10_of_10_images_in_train_and_val_are_found(photos, check):
    planted = [(f"train/{name}/{i:02}.jpg", f"val/{name}/{i:02}.jpg")
               for name in ("ant", "bee") for i in range(5)]
    for source, target in planted:
        shutil.copy(photos / source, photos / target)
    with Image.open(photos / "train/cat/00.jpg") as image:
        image.convert("RGB").save(photos / "val/cat/00.jpg", "PNG")
    shutil.copy(photos / "train/dog/00.jpg", photos / "train/cat/01.jpg")
    found = check(0, photos)
    pairs = {tuple(os.path.relpath(one["where"], photos) for one in row["examples"]): row
             for row in found["duplicates"]}
    assert set(pairs) == {*planted, ("train/cat/00.jpg", "val/cat/00.jpg"),
                          ("train/cat/01.jpg", "train/dog/00.jpg")}
    assert all(pairs[pair]["same"] == "bytes" and pairs[pair]["across_splits"]
               for pair in planted)
    assert pairs["train/cat/00.jpg", "val/cat/00.jpg"]["same"] == "pixels"
    assert not pairs["train/cat/01.jpg", "train/dog/00.jpg"]["across_splits"]
    assert pairs["train/cat/01.jpg", "train/dog/00.jpg"]["labels_differ"]
    assert wheres(found["notes"], photos) == {
        "val/cat/00.jpg": "PNG by its content, .jpg by its name"}


# ---- row 31: bytes that change and still decode ---------------------------------------------


def test_20_of_20_flipped_bytes_that_still_decode_are_found_by_digests(photos, check):
    check(0, photos, "--write_digests")
    assert check(0, photos)["errors"] == []
    rng, flipped = np.random.default_rng(0), []
    for path in sorted(photos.glob("train/*/*.jpg")):
        data = bytearray(path.read_bytes())
        data[rng.integers(len(data) // 2, len(data) - 20)] ^= 1 << rng.integers(8)
        try:
            Image.open(io.BytesIO(data)).load()
        except OSError:
            continue
        path.write_bytes(data)
        flipped.append(path)
        if len(flipped) == 20:
            break
    (photos / "val/ant/00.jpg").unlink()
    shutil.copy(photos / "val/bee/00.jpg", photos / "val/bee/new.jpg")
    found = check(3, photos)
    errors = wheres(found["errors"], photos)
    assert len(flipped) == 20
    assert set(errors) == {*(os.path.relpath(path, photos) for path in flipped), "val/ant/00.jpg"}
    assert "missing" in errors["val/ant/00.jpg"]
    assert wheres(found["notes"], photos) == {"val/bee/new.jpg": "not in manifest.json"}


def test_a_manifest_of_somebody_else_is_left_alone(few, check):
    (few / "manifest.json").write_text('{"name": "app"}')
    (note,) = check(0, few)["notes"]
    assert note["where"] == str(few / "manifest.json")


# ---- rows 40, 41, 46, 47: layouts, names, links ---------------------------------------------


def test_all_faults_of_a_folder_are_told_at_once(few, check):
    (few / "train/ant/notes.doc").write_text("x")
    (few / "train/ant/gone.png").symlink_to(few / "nowhere")
    os.mkfifo(few / "train/bee/pipe")
    (few / "train/lost.jpg").write_bytes((few / "train/ant/00.jpg").read_bytes())
    (few / "train/empty").mkdir()
    (few / "val/only").mkdir()
    shutil.copy(few / "val/ant/00.jpg", few / "val/only/0.jpg")
    (few / "train/ant/01.jpg").write_bytes(b"")
    (few / "train/cat/loop").symlink_to(few / "train")
    found = check(3, few)
    errors = wheres(found["errors"], few)
    assert set(errors) == {"train/ant/gone.png", "train/bee/pipe", "train/lost.jpg", ".",
                           "val/only", "train/ant/01.jpg"}
    assert "train/ant/notes.doc" in wheres(found["notes"], few)
    assert len(found["errors"]) == 6 and "'empty' has no images" in errors["."]
    assert found["splits"]["train"]["examples"] == 20


def test_classes_of_one_image_and_those_without_validation(few, check):
    (few / "train/one").mkdir()
    (few / "train/one/x.jpg").write_bytes(photo(np.random.default_rng(1)))
    (note,) = check(0, few)["notes"]
    assert note == {"what": "has one example to train on", "where": "class 'one'"}


@pytest.mark.daily(3)
@pytest.mark.parametrize("spoil, says", [
    (lambda root: shutil.rmtree(root / "val"), "no split 'val'"),
    (lambda root: [path.unlink() for path in root.glob("val/*/*")], "'val' is empty"),
    (lambda root: shutil.rmtree(root / "train"), "no class folders"),
    (lambda root: [shutil.rmtree(path) for path in (root / "val").iterdir()], "no split 'val'"),
    (lambda root: shutil.move(root / "val", root / "other"), "no split 'val'"),
])
def test_a_wrong_layout_is_told_with_the_one_that_is_wanted(few, check, spoil, says):
    spoil(few)
    found = check(3, few)
    assert any(says in row["what"] and "DIR/train/CLASS/*.jpg" in row["fix"]
               for row in found["errors"])
    assert "layout" in found or any("val/" in row for row in found["found"])


def test_images_without_class_folders_show_what_was_found(tmp_path, check):
    (tmp_path / "flat").mkdir()
    for i in range(3):
        (tmp_path / "flat" / f"{i}.jpg").write_bytes(photo(np.random.default_rng(i)))
    found = check(3, tmp_path / "flat")
    assert found["found"] == ["3 files ['0.jpg', '1.jpg', '2.jpg']"]
    assert len(found["errors"]) == 4


def test_a_folder_of_classes_is_split_by_its_seed(tmp_path, check):
    write_folder(tmp_path, 10, 0)
    found = check(0, tmp_path / "train")
    assert found["layout"] == "CLASS/*, split by a seed"
    counts = {name: split["examples"] for name, split in found["splits"].items()}
    assert sum(counts.values()) == 40 and 4 <= counts["val"] <= 12  # each by its own hash


def test_odd_names_are_told_with_escapes(few, capsys, check):
    root = os.fsencode(few)
    names = [b"caf\xe9.jpg", b"new\nline.jpg", "\U0001f600.jpg".encode(), b"a" * 250 + b".jpg",
             b"tab\t.jpg", b'"quote,.jpg', b"=1+1.jpg", b"\x1b[31m.jpg"]
    for i, name in enumerate(names):
        with open(os.path.join(root, b"train", b"ant", name), "wb") as file:
            file.write(photo(np.random.default_rng(100 + i)))
    found = check(0, few)
    assert found["splits"]["train"]["examples"] == 20 + 8
    assert {row["where"].rpartition("/")[2] for row in found["notes"]} == {
        r"caf\xe9.jpg", "new\nline.jpg", "tab\t.jpg", "\x1b[31m.jpg"}
    assert command.main(["data", "check", str(few)]) == 0
    out = capsys.readouterr().out
    assert r"new\nline.jpg" in out and r"\x1b[31m.jpg" in out
    assert all(line.isprintable() for line in out.splitlines())


# ---- row 45: bombs --------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    """Small files of 300 million pixels, by their headers."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(
            ">I", zlib.crc32(kind + body))

    side, other = 20_000, 15_000
    rows = zlib.compress(bytes(1 + 3 * side) * 400, 9)
    head = struct.pack(">IIBBBBB", side, other, 8, 2, 0, 0, 0)
    png = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
           + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    rng = np.random.default_rng(0)
    jpeg = bytearray(photo(rng))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5:start + 9] = struct.pack(">HH", other, side)
    gif = bytearray(photo(rng, "GIF"))
    gif[6:10] = struct.pack("<HH", side, other)
    frames = bytearray(photo(rng, "GIF"))  # a small screen, and a frame that is not
    start = frames.index(b"\x2c\0\0\0\0")
    frames[start + 5:start + 9] = struct.pack("<HH", side, other)
    webp = bytearray(photo(rng, "WEBP", lossless=True))
    start = webp.index(b"VP8L") + 9
    bits = int.from_bytes(webp[start:start + 4], "little") & ~0xFFFFFFF
    webp[start:start + 4] = (bits | 16382 | 16382 << 14).to_bytes(4, "little")
    return {"png.png": png, "jpeg.jpg": bytes(jpeg), "gif.gif": bytes(gif),
            "frames.gif": bytes(frames), "webp.webp": bytes(webp)}


@pytest.mark.nightly
def test_5_of_5_bombs_are_rejected_by_their_headers(photos, tmp_path):
    for name, data in bombs().items():
        (photos / "train" / "ant" / name).write_bytes(data)
    code, out, err = imgcls(tmp_path / "cache", "data", "check", photos, "--json")
    assert code == 3, err
    found = json.loads(out)
    errors = wheres(found["errors"], photos)
    assert set(errors) == {f"train/ant/{name}" for name in bombs()}
    assert all("pixels" in what for what in errors.values()), errors


LOOK_AT_BOMBS = """
import json, pathlib, resource, sys, time
import numpy as np
from imgcls_jax.data.curation import examples
from imgcls_jax.data.curation.check import _look_at_bytes
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import DataError
tensorflow()
decode, found = examples.decoder(), {}
whole, *bombs = sorted(pathlib.Path(sys.argv[1]).iterdir())
_look_at_bytes(whole.read_bytes(), np.int32(0), str(whole), decode)
for path in bombs:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        _look_at_bytes(path.read_bytes(), np.int32(0), str(path), decode)
    except DataError as error:
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found[path.name] = [error.what, time.monotonic() - began, (after - before) / 1000]
print(json.dumps(found))
"""


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss")
def test_a_bomb_takes_neither_time_nor_memory(tmp_path):
    """In a process of its own, whose greatest size no other test has raised before."""
    folder = tmp_path / "bombs"
    folder.mkdir()
    (folder / "a_whole.jpg").write_bytes(photo(np.random.default_rng(0)))
    for name, data in bombs().items():
        (folder / name).write_bytes(data)
    done = subprocess.run([sys.executable, "-c", LOOK_AT_BOMBS, str(folder)], check=True,
                          capture_output=True, text=True, env=environment(tmp_path / "cache"))
    found = json.loads(done.stdout)
    assert set(found) == set(bombs())
    for what, seconds, megabytes in found.values():
        assert "pixels" in what and seconds < 1 and megabytes < 100, found


# ---- rows 32, 33 and 39: records and labels -------------------------------------------------


@pytest.fixture
def registered(monkeypatch):
    """registered(source) makes it the dataset "planted"."""
    def put(source):
        DATASETS.names()  # scanned
        monkeypatch.setitem(DATASETS._found, "planted", lambda: source)
        monkeypatch.setitem(DATASETS._facts, "planted", {})

    return put


def sharded(tmp_path, images, labels, shards=2, told=None) -> Source:
    """Records of an image and a label in TFRecord files; `told`: counts by the metadata."""
    import tensorflow as tf

    def parse(record):
        found = tf.io.parse_single_example(record, {
            "image": tf.io.FixedLenFeature((), tf.string),
            "label": tf.io.FixedLenFeature((), tf.int64)})
        return found

    files, per = [], len(images) // shards
    for shard in range(shards):
        path = str(tmp_path / f"train.tfrecord-{shard}")
        with tf.io.TFRecordWriter(path) as out:
            for i in range(shard * per, shard * per + per):
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[images[i]])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[labels[i]]))}
                out.write(tf.train.Example(features=tf.train.Features(
                    feature=feature)).SerializeToString())
        files.append((path, 0, per if told is None else told))
    split = Shards(tuple(files), lambda path: tf.data.TFRecordDataset(path), parse)
    return Source("planted", ("a", "b", "c"), {"train": split.size}, lambda name: split)


@pytest.fixture
def records(tmp_path, registered):
    rng = np.random.default_rng(0)
    images, labels = [photo(rng) for _ in range(40)], [i % 3 for i in range(40)]

    def make(labels=labels, **options):
        source = sharded(tmp_path, images, labels, **options)
        registered(source)
        return [path for path, _, _ in source.open("train").files]

    return make


def bounds(path) -> list[tuple[int, int]]:
    """(begin, end) of every record, as the file format says."""
    data, place, found = open(path, "rb").read(), 0, []
    while place < len(data):
        end = place + 16 + int.from_bytes(data[place:place + 8], "little")
        found.append((place, end))
        place = end
    return found


def test_whole_records_are_clean(records, check):
    records()
    found = check(0, "planted")
    assert found["splits"]["train"]["classes"] == {"a": 14, "b": 13, "c": 13}


def test_10_of_10_flipped_bits_cost_their_record_alone(records, check):
    """One bit in the length, its checksum, the data or its checksum."""
    rng, paths, planted = np.random.default_rng(3), records(), []
    marks = [bounds(path) for path in paths]
    for trial in range(10):
        file, number = trial % 2, 2 * trial  # the first of a file as well
        begin, end = marks[file][number]
        within = (0, 3, 7, 8, 11, 12, 200, end - begin - 4, end - begin - 1, 500)[trial]
        data = bytearray(open(paths[file], "rb").read())
        data[begin + within] ^= 1 << int(rng.integers(8))
        open(paths[file], "wb").write(data)
        planted.append(f"{paths[file]}, record {number}")
    found = check(3, "planted")
    assert sorted(error["where"] for error in found["errors"]) == sorted(planted)
    assert all("damaged" in error["what"] for error in found["errors"])
    assert found["splits"]["train"]["examples"] == 40


@pytest.mark.daily(3)
@pytest.mark.parametrize("fault", ["within", "missing", "more", "boundary", "empty"])
def test_a_file_of_records_that_is_cut_off_is_told_with_both_counts(records, check, fault):
    paths = records(told=19 if fault == "more" else None)
    marks = bounds(paths[1])
    if fault == "missing":
        os.unlink(paths[1])
    elif fault != "more":
        os.truncate(paths[1], {"within": marks[12][0] + 100, "boundary": marks[12][0],
                               "empty": 0}[fault])
    errors = check(3, "planted")["errors"]
    told = [row["what"] for row in errors if row["where"] in paths]
    if fault == "missing":
        assert len(told) == 1 and "No such file" in told[0]
    else:
        counts = {"within": (12, 20), "boundary": (12, 20), "empty": (0, 20), "more": (20, 19)}
        assert told[-1] == ("the file holds {} whole records, its metadata says {}".format(
            *counts[fault]))
    assert len(errors) == {"within": 2, "more": 2}.get(fault, 1)


@pytest.mark.daily(1)
@pytest.mark.parametrize("label, says", [(-1, "0 to 2"), (3, "0 to 2"), (2**40, "0 to 2")])
def test_a_label_that_is_no_class_is_told(records, check, label, says):
    path = records(labels=[0] * 7 + [label] + [1] * 32)[0]
    (error,) = check(3, "planted")["errors"]
    assert error["where"] == f"{path}, record 7" and says in error["what"]
    assert str(label) in error["what"]


@pytest.mark.parametrize("label, says", [(np.float32(1), "not an integer"),
                                         (np.float32([0, 2, 1]), "between 0 and 1"),
                                         (np.float32([0, np.nan, 1]), "between 0 and 1"),
                                         (np.float32([0, 1]), "shape")])
def test_labels_of_a_wrong_kind_are_told(registered, check, label, says):
    import tensorflow as tf

    image = np.zeros((4, 4, 3), np.uint8)
    split = Lookup(1, lambda index: {"image": tf.constant(image), "label": tf.constant(label)},
                   lambda index: f"row {index}")
    registered(Source("planted", ("a", "b", "c"), {"train": 1}, lambda name: split))
    (error,) = check(3, "planted")["errors"]
    assert error["where"] == "row 0" and says in error["what"]


def test_data_that_is_not_there_is_told_for_each_split(registered, check):
    def open_split(name):
        raise DataError("not prepared", where=f"/data/{name}", fix="prepare it")

    registered(Source("planted", ("a",), {"train": 9, "test": 3}, open_split))
    assert check(3, "planted")["errors"] == [
        {"what": "not prepared", "where": f"/data/{name}", "fix": "prepare it", "split": name}
        for name in ("train", "test")]


# ---- the command ----------------------------------------------------------------------------


def test_a_config_names_the_data_and_the_split_that_is_evaluated(few, check):
    found = check(0, f"--config=finetune:data={few}")
    assert set(found["splits"]) == {"train", "val"}
    found = check(3, f"--config=finetune:data={few}", "--config.data.eval=test")
    assert "'test'" in found["errors"][0]["what"]
    found = check(0, "synthetic", "--config.data.classes=3", "--splits=validation")
    assert list(found["splits"]) == ["validation"] and found["classes"] == 3
    assert found["splits"]["validation"]["examples"] == 256


@pytest.mark.parametrize("words, says", [
    ([], "no action is named"), (["chek"], "check|prepare|show"), (["check"], "no data is named"),
    (["check", "sinthetic"], "'synthetic'"), (["check", "a", "b"], "unexpected"),
    (["check", "synthetic", "--config.data.exampels=1"], "'examples'"),
    (["check", "digits", "--splits=val"], "['test', 'train']"),
    (["check", "digits", "--write_digests"], "DIR")])
def test_a_wrong_command_line_is_told(capsys, words, says):
    assert command.main(["data", *words]) == 2
    assert says in capsys.readouterr().err
