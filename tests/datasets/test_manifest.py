"""Manifests in three formats: rows, labels, splits; every fault with its line; 1e9 rows."""

import csv
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from imgcls_jax import datasets
from imgcls_jax.datasets import DATASETS, _rows
from imgcls_jax.errors import ConfigError, DataError, EnvironmentFailure
from tests.datasets.sources import assert_same, png, read_all

NAMES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLS_DATA_CACHE", str(tmp_path / "cache"))


def manifest(path, **arguments):
    return DATASETS.get("manifest")(path=str(path), **arguments)


def rows(count=12):
    return [{"path": f"images/{i}.png", "label": NAMES[(i * 2) % 3],
             "split": "train" if i % 4 else "val"} for i in range(count)]


def write(path, table):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), delimiter="," if path.suffix == ".csv"
                                else "\t")
        writer.writeheader()
        writer.writerows(table)
    return path


@pytest.fixture
def place(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(12):
        (tmp_path / "images" / f"{i}.png").write_bytes(png(i))
    return tmp_path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_each_format_gives_its_rows_in_order(kind, place):
    source = manifest(write(place / f"m.{kind}", rows()))
    assert (source.classes, source.sizes) == (tuple(NAMES), {"val": 3, "train": 9})
    batch = read_all(source, "train")
    numbers = [i for i in range(12) if i % 4]
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], numbers)
    np.testing.assert_array_equal(batch["label"], [(i * 2) % 3 for i in numbers])
    split = datasets.split(source, "train")
    assert split.where(1) == f"{place}/images/2.png"
    np.testing.assert_array_equal(split.labels(), batch["label"])


def test_columns_root_and_split_names_are_arguments(place):
    table = [{"file": row["path"].removeprefix("images/"), "species": row["label"],
              "fold": "validation" if row["split"] == "val" else "train"} for row in rows()]
    other = place / "elsewhere"
    other.mkdir()
    source = manifest(write(other / "m.csv", table), root=str(place / "images"),
                      path_column="file", label_column="species", split_column="fold")
    assert_same([read_all(source, "train")],
                [read_all(manifest(write(place / "m.csv", rows())), "train")])
    assert source.sizes["val"] == 3


def test_quotes_line_feeds_marks_and_bytes_that_are_no_utf8(place):
    names = [b'with "quotes", and comma', b"line\nfeed", b"caf\xe9", "🐝".encode(), b"y" * 200]
    for i, name in enumerate(names):
        (place / os.fsdecode(name)).write_bytes(png(i))
    text = b'\xef\xbb\xbfpath,label,split\r\n' + b"".join(
        b'"%s",%d,train\r\n' % (name.replace(b'"', b'""'), i) for i, name in enumerate(names))
    (place / "m.csv").write_bytes(text)
    batch = read_all(manifest(place / "m.csv"), "train")
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], range(5))
    np.testing.assert_array_equal(batch["label"], range(5))
    (place / "m.jsonl").write_bytes(b"\xef\xbb\xbf" + b"".join(json.dumps(
        {"path": os.fsdecode(name), "label": i, "split": "train"}).encode() + b"\n"
        for i, name in enumerate(names)))
    assert_same([batch], [read_all(manifest(place / "m.jsonl"), "train")])


def test_a_long_row_is_read_whole(place):
    table = [{"note": "x" * 30_000, **row} for row in rows()]
    source = manifest(write(place / "m.csv", table))
    assert read_all(source, "train")["image"][2, 0, 0, 0] == 3


def test_a_row_of_many_lines_is_found_in_time_in_proportion(place):
    """Where a row ends was counted from its beginning for each of its lines."""
    text = "\n" * 120_000
    write(place / "m.csv", [{"path": "images/0.png", "note": text, "label": "a"},
                            {"path": "images/1.png", "note": "", "label": "b"}])
    file = _rows.Rows(str(place / "m.csv"), separator=",")
    (_, first, _), (_, second, _) = file
    with open(place / "m.csv", "rb") as opened:
        began = time.process_time()
        assert file.at(opened.fileno(), first)["note"] == text
        assert file.at(opened.fileno(), second)["path"] == "images/1.png"
        assert time.process_time() - began < 2


def test_integers_are_numbers_and_classes_name_them(place):
    table = [{**row, "label": NAMES.index(row["label"])} for row in rows()]
    path = write(place / "m.csv", table)
    assert manifest(path).classes == ("0", "1", "2")
    (place / "names.txt").write_text("one\ntwo\nthree\n")
    for classes in (("one", "two", "three"), str(place / "names.txt")):
        source = manifest(path, classes=classes)
        assert source.classes == ("one", "two", "three")
        np.testing.assert_array_equal(read_all(source, "val")["label"], [0, 2, 1])
    assert manifest(path, numbers=False).classes == ("0", "1", "2")
    with pytest.warns(UserWarning, match=r"1 classes have no row in train: \['four'\]"):
        manifest(path, classes=("one", "two", "three", "four"))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_multilabel_is_bars_or_lists(kind, place):
    wanted = [[i % 3] if i % 2 else [0, 2] for i in range(6)] + [[]]
    table = [{"path": f"images/{i}.png", "labels": [NAMES[k] for k in found], "split": "train"}
             for i, found in enumerate(wanted)]
    if kind == "csv":
        table = [{**row, "labels": "|".join(row["labels"]) if i else json.dumps(row["labels"])}
                 for i, row in enumerate(table)]
    source = manifest(write(place / f"m.{kind}", table))
    assert (source.kind, source.classes) == ("multilabel", tuple(NAMES))
    expected = np.array([[k in found for k in range(3)] for found in wanted], np.float32)
    batch = read_all(source, "train")
    np.testing.assert_array_equal(batch["label"], expected)
    assert batch["label"].dtype == np.float32
    np.testing.assert_array_equal(datasets.split(source, "train").labels(), expected)


def test_a_row_on_top_does_not_change_the_labels_that_are_listed_of_others(place):
    table = [{"path": f"images/{i}.png", "labels": found, "split": "train"}
             for i, found in enumerate(["bee|cat", "ant|bee|cat", "ant"])]
    first = datasets.split(manifest(write(place / "m.csv", table)), "train").listed()
    more = [{"path": "images/9.png", "labels": "cat|ant", "split": "train"}, *table]
    second = datasets.split(manifest(write(place / "m.csv", more)), "train").listed()
    assert first[1] == [b"1|2", b"0|1|2", b"0"]
    assert list(zip(*second, strict=True))[1:] == list(zip(*first, strict=True))


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_the_one_that_gives_the_columns(separator, suffix, place):
    """Spreadsheets of half of Europe write semicolons, whatever the file is called."""
    path = place / f"m.{suffix}"
    path.write_text("".join(separator.join((row["path"], row["label"], row["split"], "1,5 kg; 2"))
                            .replace("1,5 kg; 2", '"1,5 kg; 2"') + "\n" for row in
                            [{"path": "path", "label": "label", "split": "split"}, *rows()]))
    found = manifest(path)
    assert (found.classes, found.sizes) == (tuple(NAMES), {"val": 3, "train": 9})
    assert_same([read_all(found, "train")], [read_all(manifest(write(place / "n.csv", rows())),
                                                      "train")])


@pytest.mark.parametrize("odd", ["\f", "\x0b", "\x1c", "\x85", "\u2028", "\u2029", "\r\n"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_field_may_hold_what_other_programs_take_for_the_end_of_a_line(odd, suffix, place):
    table = [{"note": f"one{odd}two", **row, "label": f"{row['label']}{odd}!"} for row in rows()]
    found = manifest(write(place / f"m.{suffix}", table))
    assert found.classes == tuple(f"{name}{odd}!" for name in NAMES)
    assert read_all(found, "val")["image"][:, 0, 0, 0].tolist() == [0, 4, 8]
    if odd != "\r\n":  # in a list of classes, that ends a line
        (place / "names.txt").write_text("\n".join(found.classes), encoding="utf-8")
        assert manifest(place / f"m.{suffix}",
                        classes=str(place / "names.txt")).classes == found.classes


@pytest.mark.parametrize("label, classes", [
    (["20210315", "20210401"], ["20210315", "20210401"]), (["02", "01", "00"], ["00", "01", "02"]),
    (["1", "2", "3"], ["1", "2", "3"]), (["10", "11", "01"], ["01", "10", "11"]),
    (["2", "0", "1"], ["0", "1", "2"]), (["0"], ["0"]), ([*map(str, range(11))],
                                                         [*map(str, range(11))])])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_integers_that_do_not_count_from_0_are_names(label, classes, suffix, place):
    table = [{"path": f"images/{i}.png", "label": label[i % len(label)], "split": "train"}
             for i in range(12)]
    if suffix == "jsonl" and not any(text.startswith("0") and text != "0" for text in label):
        table = [{**row, "label": int(row["label"])} for row in table]
    found = manifest(write(place / f"m.{suffix}", table))
    assert found.classes == tuple(classes)
    assert read_all(found, "train")["label"].tolist() == [
        classes.index(label[i % len(label)]) for i in range(12)]


@pytest.mark.parametrize("labels", ["-1", "9", "x", "1.5"])
def test_a_label_among_numbers_that_is_none_is_told_how_it_may_be_a_name(labels, place):
    path = text(NUMBERS % labels.encode())(place)
    with pytest.raises(DataError) as error:
        manifest(path)
    assert "config.data.numbers=False" in error.value.fix
    assert manifest(path, numbers=False).classes == tuple(sorted(["0", "1", labels]))


def test_one_column_for_each_class(place):
    marks = [(1, 0, 1), ("0", "1", "0"), ("0.0", "1.0", "0"), ("False", "true", "0"), (0, 0, 0),
             (0, 0, 1)]
    table = [{"path": f"images/{i}.png", **dict(zip(NAMES, row, strict=True)), "split": "train"}
             for i, row in enumerate(marks)]
    wanted = [[1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    for name in ("m.csv", "m.jsonl"):
        found = manifest(write(place / name, table), label_columns=tuple(NAMES))
        assert (found.kind, found.classes) == ("multilabel", tuple(NAMES))
        np.testing.assert_array_equal(read_all(found, "train")["label"], wanted)
    one = manifest(write(place / "one.csv", [*table[1:4], table[5], {
        "path": "images/0.png", "ant": 1, "bee": 0, "cat": 0, "split": "train"}]),
        label_columns=tuple(NAMES), kind="multiclass")
    assert read_all(one, "train")["label"].tolist() == [1, 1, 1, 2, 0]
    with pytest.warns(UserWarning, match=r"1 classes have no row in train: \['ant'\]"):
        manifest(write(place / "two.csv", table[1:]), label_columns=("bee", "cat", "ant"))
    with pytest.raises(ConfigError, match="label_columns and classes exclude each other"):
        manifest(place / "two.csv", label_columns=tuple(NAMES), classes=tuple(NAMES))


def test_columns_that_may_be_classes_are_named_as_they_are_set(place):
    path = text(b"path,cat,dog,split\na.png,1,0,train\n")(place)
    with pytest.raises(DataError, match="no column 'label'") as error:
        manifest(path)
    assert error.value.fix.endswith("is label_columns=('cat', 'dog')")


@pytest.mark.parametrize("columns, fix, arguments", [
    ("Path,label,split", "set config.data.path_column='Path'", dict(path_column="Path")),
    ("path,Label,split", "set config.data.label_column='Label'", dict(label_column="Label")),
    ("path,label,Split", "set config.data.split_column='Split'", dict(split_column="Split")),
    ("path,Labels,split", "set config.data.label_column='Labels' and config.data.kind='multilabel'",
     dict(label_column="Labels", kind="multilabel"))])
def test_a_column_with_nearly_the_name_is_set_as_the_error_says(columns, fix, arguments, place):
    path = text(columns.encode() + b"\na.png,ant,train\nb.png,bee,train\n")(place)
    with pytest.raises(DataError, match="there is no column") as error:
        manifest(path)
    assert error.value.fix == fix
    assert manifest(path, **arguments).classes == ("ant", "bee")


def test_names_of_splits_may_be_in_any_case(place):
    path = text(b"path,label,split\na.png,x,Train\nb.png,x,VALIDATION\nc.png,x,Test\n"
                b"d.png,x,TRAIN\n")(place)
    assert manifest(path).sizes == {"train": 2, "val": 1, "test": 1}
    assert manifest(path, splits=("train", "val", "Test", "TRAIN")).sizes == {
        "train": 1, "val": 1, "Test": 1, "TRAIN": 1}


def test_several_labels_are_joined_by_what_is_said(place):
    path = text(b'path,labels\na.png,"cat,dog"\nb.png,"dog"\nc.png,"cow, cat"\n')(place)
    found = manifest(path, label_delimiter=",")
    assert (found.kind, found.classes) == ("multilabel", ("cat", "cow", "dog"))
    np.testing.assert_array_equal(datasets.split(found, "train").labels(),
                                  [[1, 0, 1], [0, 0, 1], [1, 1, 0]])
    assert manifest(path, label_delimiter="|").classes == ("cat,dog", "cow, cat", "dog")
    assert manifest(path, classes=("cat,dog", "dog", "cow, cat")).classes[0] == "cat,dog"
    with pytest.raises(ConfigError, match="the delimiter of labels is empty"):
        manifest(path, label_delimiter="")


def test_several_labels_in_a_column_of_one_are_pointed_out(place, recwarn):
    path = text(b'path,label\na.png,"cat,dog"\nb.png,dog\nc.png,cat\nd.png,"cow,dog"\n')(place)
    with pytest.warns(UserWarning, match="2 classes look like several labels in one, such as 'cat"):
        assert manifest(path).classes == ("cat", "cat,dog", "cow,dog", "dog")
    recwarn.clear()
    names = b'path,label\na.png,"fox, Vulpes"\nb.png,"cat, Felis"\nc.png,dog\n'
    assert len(manifest(text(names, "n.csv")(place)).classes) == 3 and not recwarn.list


def test_without_a_split_column_a_seed_draws_and_every_class_is_trained(tmp_path):
    table = [{"path": f"{i}.png", "label": f"class {i % 100}" if i < 3000 else "rare"}
             for i in range(3001)]
    path = write(tmp_path / "m.csv", table)
    source = manifest(path)
    assert 500 < source.sizes["val"] < 680 and sum(source.sizes.values()) == 3001

    def drawn(source):
        split = datasets.split(source, "val")
        return {split.where(i) for i in range(split.size)}

    (tmp_path / "more.csv").write_text(path.read_text() + "new.png,rare\n")
    assert drawn(source) == drawn(manifest(path)) == drawn(manifest(tmp_path / "more.csv")) - {
        f"{tmp_path}/new.png"}
    assert drawn(source) != drawn(manifest(path, seed=1))
    assert manifest(path, val_fraction=0.0).sizes == {"train": 3001}


@pytest.mark.parametrize("labels", ["label", "labels"])
def test_an_image_in_two_splits_or_with_two_labels_is_reported(labels, place, recwarn):
    table = [("a", "ant", "train"), ("b", "bee", "train"), ("./a", "ant", "val"),
             ("c", "ant", "train"), ("c", "bee", "train"), ("d", "ant", "val"), ("d", "bee", "val"),
             ("b", "bee", "train"), ("b", "bee", "val")]
    path = write(place / "m.csv", [dict(zip(("path", labels, "split"), row, strict=True))
                                   for row in table])
    for _ in range(2):  # the second is read from the index
        with pytest.warns(UserWarning) as said:
            assert manifest(path).sizes == {"train": 5, "val": 4}
        assert [str(warning.message) for warning in said] == [
            f"2 images are in two splits, such as 'a' ({path})",
            f"2 images have rows with other labels, such as 'c' ({path})"]
    manifest(write(place / "m.csv", rows()))
    assert not recwarn.list


def test_rows_of_one_image_are_drawn_into_one_split(tmp_path):
    """The first row of each class is in train, whatever the draw: the others of its image, too."""
    table = [{"path": f"{i}.png", "label": f"class {i % 50}"} for i in range(200)]
    source = manifest(write(tmp_path / "m.csv", table * 2))

    def paths(split):
        found = datasets.split(source, split)
        return [found.where(i) for i in range(found.size)]

    train, val = paths("train"), paths("val")
    assert len(train) + len(val) == 400 and not {*train} & {*val}
    held = os.path.basename(val[0])
    with pytest.warns(UserWarning, match="1 images have rows with other labels"):
        source = manifest(write(tmp_path / "m.csv", [
            *table, {"path": held, "label": "new"}, {"path": "other.png", "label": "new"}]))
    assert paths("val").count(f"{tmp_path}/{held}") == 2
    assert paths("train").count(f"{tmp_path}/other.png") == 1


def test_an_index_is_used_again_until_the_manifest_changes(place, monkeypatch):
    from imgcls_jax.datasets import _manifest_index

    path = write(place / "m.csv", rows())
    first = read_all(manifest(path), "train")
    with monkeypatch.context() as patch:
        patch.setattr(_manifest_index, "make", lambda *arguments: 1 / 0)
        assert_same([read_all(manifest(path), "train")], [first])
    write(path, rows()[:8])
    assert manifest(path).sizes == {"val": 2, "train": 6}
    assert not list((place / "cache").glob(".unfinished*"))


def test_a_manifest_renamed_over_another_of_its_size_and_time_is_read(place):
    """As `rsync --times` and `cp --preserve` bring it."""
    path = write(place / "m.csv", rows())
    before = read_all(manifest(path), "train")["label"]
    other = write(place / "other.csv", [{**row, "label": {"ant": "bee", "bee": "ant"}.get(
        row["label"], row["label"])} for row in rows()])
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    other.rename(path)
    np.testing.assert_array_equal(read_all(manifest(path), "train")["label"],
                                  np.array([1, 0, 2])[before])


@pytest.mark.parametrize("column", ["label", "labels"])
def test_a_name_of_a_class_is_the_same_in_both_unicode_forms(column, place):
    forms = "cafe\u0301", "caf\xe9"
    path = write(place / "m.csv", [{"path": f"{i}.png", column: name, "split": "train"}
                                   for i, name in enumerate([*forms, "tea"])])
    for classes in ((), (forms[0], "tea"), (forms[1], "tea")):
        assert manifest(path, classes=classes).classes == ("caf\xe9", "tea")
    with pytest.raises(DataError, match=r"twice: \['caf\xe9'\]"):
        manifest(path, classes=forms)


def test_classes_that_differ_in_case_or_spaces_only_are_reported(place, recwarn):
    table = [{"path": f"{i}.png", "label": name, "split": "train"} for i, name in enumerate(
        ["Polar bear", "polar  Bear", "stra\xdfe", "STRASSE", "cat"])]
    with pytest.warns(UserWarning, match=r"differ in case or spaces only, such as "
                                         r"\['Polar bear', 'polar  Bear'\]"):
        found = manifest(write(place / "m.csv", table))
    assert len(found.classes) == 5
    recwarn.clear()
    assert manifest(place / "m.csv", classes=found.classes).classes == found.classes
    assert not recwarn.list


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_manifest_that_is_changed_while_it_is_open_is_refused(suffix, place):
    """The labels are those of the index, so its rows must be, too."""
    path = write(place / f"m.{suffix}", rows())
    source = manifest(path)
    split = datasets.split(source, "train")
    assert split.where(0) == f"{place}/images/1.png"
    text = path.read_text()
    status = path.stat()
    time.sleep(0.05)  # a tick of the file system's clock
    for lines in ("\n".join(text.splitlines()[::-1]) + "\n", text[:200]):
        path.write_text(lines)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        for use in (lambda: split.where(0), split.listed, lambda: read_all(source, "val")):
            with pytest.raises(DataError, match="the manifest was changed while it was being read"):
                use()
    path.write_text(text)
    assert read_all(manifest(path), "train")["label"].shape == (9,)


def test_a_manifest_whose_name_is_given_to_another_is_read_on(place):
    path = write(place / "m.csv", rows())
    source = manifest(path)
    split = datasets.split(source, "train")
    write(place / "other.csv", rows()[::-1]).rename(path)
    assert split.where(0) == f"{place}/images/1.png"
    with pytest.raises(DataError, match="changed while"):
        datasets.split(source, "val")


def test_a_manifest_that_is_changed_while_its_index_is_made_is_refused(place, monkeypatch):
    from imgcls_jax.datasets import _manifest_index

    path, made = write(place / "m.csv", rows()), _manifest_index.make

    def meanwhile(*arguments):
        made(*arguments)
        write(path, rows()[:8])

    monkeypatch.setattr(_manifest_index, "make", meanwhile)
    with pytest.raises(DataError, match="changed while"):
        manifest(path)
    monkeypatch.undo()
    assert manifest(path).sizes == {"val": 2, "train": 6}


def test_a_cache_that_cannot_be_written_is_told(place, monkeypatch):
    path = write(place / "m.csv", rows())
    monkeypatch.setenv("IMGCLS_DATA_CACHE", str(path / "cache"))
    with pytest.raises(EnvironmentFailure) as error:
        manifest(path)
    assert error.value.where == str(path / "cache") and "IMGCLS_DATA_CACHE" in error.value.fix


@pytest.mark.parametrize("classes, what", [
    (("ant", "bee", "ant"), r"twice: \['ant'\]"), ("gone.txt", "cannot be read")])
def test_wrong_names_of_classes_are_refused(classes, what, place):
    with pytest.raises(DataError, match=what):
        manifest(write(place / "m.csv", rows()), classes=classes)


def changed(line, **values):
    def change(place):
        table = rows()
        table[line - 2] |= values
        return write(place / "m.csv", table)
    return change


def text(data, name="m.csv"):
    def change(place):
        (place / name).write_bytes(data)
        return place / name
    return change


NUMBERS = b"path,label,split\na.png,0,train\nb.png,1,train\nc.png,%s,train\n"
THREE = dict(classes=("one", "two", "three"))
FAULTS = {
    "old_mac": (text(b"path,label\ra.png,0\rb.png,1\r"), "end in a carriage return", "m.csv", {}),
    "old_mac_json": (text(b'{"path": "a", "label": 1}\r{"path": "b", "label": 0}\r', "m.jsonl"),
                     "end in a carriage return", "m.jsonl", {}),
    "excel": (text(b"\xef\xbb\xbfsep=;\r\npath;label\r\na.png;0\r\n"), "first line is 'sep=;'",
              "line 1", {}),
    "json_nan": (text(b'{"path": "a", "label": "x"}\n{"path": "b", "label": NaN}\n', "m.jsonl"),
                 "nan is not a label", "line 2", {}),
    "json_infinity": (text(b'{"path": "b", "labels": [-Infinity]}\n', "m.jsonl"),
                      "-inf is not a label", "line 1", {}),
    "no_such_file": (lambda place: place / "gone.csv", "no such file", "gone.csv", {}),
    "kind": (text(b"", "m.txt"), "unknown extension '.txt'", "m.txt", {}),
    "empty": (text(b""), "is empty", "line 1", {}),
    "header_only": (text(b"path,label,split\n"), "no rows", "m.csv", {}),
    "no_path_column": (text(b"file,label\na,b\n"), "no column 'path'", "line 1", {}),
    "no_label_column": (text(b"path,kind\na,b\n"), "no column 'label'", "line 1", {}),
    "nearly_split": (text(b"path,label,Split\na,b,train\n"), "no column 'split'", "line 1", {}),
    "columns": (text(b"path,label,split\na.png,0,train\nb.png,1\n"), "2 columns", "line 3", {}),
    "quote": (text(b'path,label,split\na.png,0,train\n"b.png"x,1,train\n'), "damaged", "line 3",
              {}),
    "json": (text(b'{"path": "a", "label": 1, "split": "train"}\n{"path"\n', "m.jsonl"),
             "is not JSON", "line 2", {}),
    "no_path": (changed(4, path=""), "the column 'path' is empty", "line 4", {}),
    "no_label": (changed(5, label=""), "'' is not a label", "line 5", {}),
    "split": (changed(6, split="trian"), "split 'trian'", "line 6", {}),
    "no_train": (text(b"path,label,split\na.png,0,val\n"), "no row has the split 'train'",
                 "m.csv", {}),
    "only_in_val": (changed(6, label="wasp"), "'wasp' is in another split", "line 6", {}),
    "unknown_class": (changed(7, label="wasp"), "'wasp' is not one of the 3", "line 7",
                      dict(classes=tuple(NAMES))),
    # Row 39: six labels that are none of three classes.
    "label_3": (text(NUMBERS % b"3"), "label 3 is out of range", "line 4", THREE),
    "label_-1": (text(NUMBERS % b"-1"), "label -1 is out of range", "line 4", {}),
    "label_1.5": (text(NUMBERS % b"1.5"), "'1.5' is not an integer", "line 4", {}),
    "label_nan": (text(NUMBERS % b"nan"), "'nan' is not an integer", "line 4", {}),
    "label_2**40": (text(NUMBERS % b"1099511627776"), "no row of train has 2", "line 4", {}),
    "label_2**24": (text(NUMBERS % b"16777216"), "no row of train has 2", "line 4",
                    dict(numbers=True)),
    "label_2**24_and_val": (text(NUMBERS % b"16777216" + b"d.png,5,val\n"), "label 5 is in another",
                            "line 5", dict(numbers=True)),
    "deep_json": (text(b'{"path": "a", "label": 1, "split": "train"}\n' + b"[" * 100_000,
                       "m.jsonl"), "is not JSON: it has over 64 levels", "line 2", {}),
    "deeper_than_it_looks": (text(b'{"path": "a", "label": ' + b"[" * 90 + b"]" * 90 + b"}",
                                  "m.jsonl"), "over 64 levels", "line 1", {}),
    "a_list_as_split": (text(b'{"path": "a", "label": 1, "split": ["train"]}', "m.jsonl"),
                        "is unknown", "line 1", {}),
    "a_dict_as_labels": (text(b'{"path": "a", "labels": {"x": 1}}', "m.jsonl"), "not a list",
                         "line 1", {}),
    "deep_labels": (text(b"path,labels\na.png," + b"[" * 100_000), "not a JSON list", "line 2", {}),
    "half_a_character": (text(b'{"path": "\\ud800", "label": 1}', "m.jsonl"),
                         "cannot be the name of a file", "line 1", {}),
    "a_zero_byte": (text(b'{"path": "a\\u0000b", "label": 1}', "m.jsonl"),
                    "cannot be the name of a file", "line 1", {}),
    "no_line_feed": (text(b"path,label\n" + b"x" * (1 << 21)), "over 1,048,576 bytes", "m.csv", {}),
    "label_9": (text(NUMBERS % b"9"), "no row of train has 2", "line 4", {}),
    "label_2**40_of_numbers": (text(NUMBERS % b"1099511627776"), "out of range", "line 4",
                               dict(numbers=True)),
    "label_x": (text(NUMBERS % b"x"), "'x' is not an integer", "line 4", {}),
    "comma_in_labels": (text(b'path,labels\na.png,cat\nb.png,"cat,dog"\n'),
                        "'cat,dog' has a ',': it may be one label or several", "line 3", {}),
    "semicolon_in_labels": (text(b"path,labels\na.png,cat;dog\n"), "'cat;dog' has a ';'", "line 2",
                            {}),
    "two_separators": (text(b"path;x,path,label,y;label\na;b,c,d,e;f\n"),
                       "by a comma or a semicolon", "line 1", {}),
    "column_twice": (text(b"path,label,label\na.png,0,1\n"), "2 columns 'label'", "line 1", {}),
    "utf_16": (text("path\tlabel\na.png\t0\n".encode("utf-16")), "UTF-16", "m.csv", {}),
    "mark_2": (text(b"path,cat,dog\na.png,1,2\n"), "'2' in the column 'dog'", "line 2",
               dict(label_columns=("cat", "dog"))),
    "mark_none": (text(b"path,cat,dog\na.png,1,\n"), "'' in the column 'dog'", "line 2",
                  dict(label_columns=("cat", "dog"))),
    "two_marks": (text(b"path,cat,dog\na.png,1,0\nb.png,1,1\n"), "2 of the label columns", "line 3",
                  dict(label_columns=("cat", "dog"), kind="multiclass")),
    "no_mark_column": (text(b"path,cat,dog\na.png,1,0\n"), "no column 'cow'", "line 1",
                       dict(label_columns=("cat", "cow"))),
    "label_true": (text(b'{"path": "a", "label": 0, "split": "train"}\n'
                        b'{"path": "b", "label": 1.0, "split": "train"}\n', "m.jsonl"),
                   "1.0 is not an integer", "line 2", {}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_manifest_is_refused_with_its_line(fault, place):
    spoil, what, where, arguments = FAULTS[fault]
    path = spoil(place)
    with pytest.raises(DataError, match=what) as error:
        manifest(path, **arguments)
    assert error.value.where.startswith(str(path)) and error.value.where.endswith(where)
    assert error.value.fix and not list((place / "cache").glob("*"))


def test_an_image_that_is_missing_is_named_when_read(place):
    (place / "images" / "6.png").unlink()
    with pytest.raises(DataError) as error:
        read_all(manifest(write(place / "m.csv", rows())), "train")
    assert error.value.where == f"{place}/images/6.png"


BILLION = """
import json, os, resource, sys, time
import numpy as np
from imgcls_jax import datasets
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import DATASETS
tf = tensorflow()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, begun = peak(), time.perf_counter()
source = DATASETS.get("manifest")(path=sys.argv[1])
split = datasets.split(source, "train")
opened = time.perf_counter() - begun
rows = [(split.where(i), split.read(tf.constant(i, tf.int64)))
        for i in (0, 123_456_789, 999_999_999)]
print(json.dumps({"size": split.size, "seconds": opened, "kib": peak() - before,
                  "where": [where for where, _ in rows],
                  "labels": [int(row["label"]) for _, row in rows],
                  "labels_10": split.labels()[-3:].tolist()}))
"""


@pytest.mark.nightly
def test_a_billion_rows_open_at_once(place):
    """Against a sparse index, which the same code opens as one that was made."""
    from imgcls_jax.datasets import _manifest_index

    count = 10**9
    path = write(place / "m.csv", rows())
    manifest(path)
    (folder,) = (place / "cache").iterdir()
    begins = [len(b"".join(path.read_bytes().splitlines(keepends=True)[:n])) for n in (2, 3, 4)]
    header = json.loads((folder / "header.json").read_text())
    (folder / "header.json").write_text(json.dumps({**header, "sizes": {"train": count}}))
    for name, dtype, values in (("places", np.uint64, begins), ("labels", np.int32, [2, 1, 0])):
        file_path = folder / f"train.{name}.npy"
        with open(file_path, "wb") as file:
            _manifest_index.write_header(file, np.dtype(dtype), count)
            file.truncate(128 + count * np.dtype(dtype).itemsize)
        column = np.load(file_path, mmap_mode="r+")
        column[[0, 123_456_789, 999_999_999]] = values
        column.flush()
        assert os.stat(file_path).st_blocks * 512 < 1 << 20
    done = subprocess.run([sys.executable, "-c", BILLION, str(path)], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["size"] == count and found["labels"] == [2, 1, 0]
    assert found["where"] == [f"{place}/images/{i}.png" for i in (1, 2, 3)]
    assert found["seconds"] < 2 and found["kib"] < 1 << 20
