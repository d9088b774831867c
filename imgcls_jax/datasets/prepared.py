"""What `imgcls data prepare` writes: record files, and dataset.json, which describes them."""

import dataclasses
import functools
import os

from imgcls_jax import untrusted
from imgcls_jax.datasets import DATASETS, _records, fault
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Shards, Source

VERSION = 1
SUFFIXES = (".tfrecord", ".array_record")
KEYS = dict(image_key="image", label_key="label")


@DATASETS.register()
def prepared(*, dir: str, by_index: bool = False, channels: int | None = None) -> Source:
    """dir: the folder with dataset.json. by_index: TFRecord files are read by index instead of
    sequentially, which shuffles perfectly and needs a local disk; ArrayRecord files always are read
    by index. channels: by default those it was prepared with.

    Raises DataError, naming the file and before training starts, when a file is missing, has
    another size than it had, or does not belong to the dataset.
    """
    root = os.path.expanduser(dir)
    said = _read(os.path.join(root, "dataset.json"))
    _check(root, said)
    splits, multilabel = said["splits"], said["kind"] == "multilabel"

    def open_split(name: str) -> Lookup | Shards:
        files = [(os.path.join(root, file["file"]), file["count"]) for file in
                 splits[name]["files"]]
        paths, counts = map(list, zip(*files, strict=True))
        streamed = said["format"] == "tfrecord"
        raw = (_records.stream(files, _records.as_record) if streamed
               else _records.array_records(paths, _records.as_record, counts))
        parse = _records.parser(functools.partial(_records.first_of, raw), paths[0], **KEYS,
                                classes=len(said["classes"]), multilabel=multilabel)
        digests = {os.path.join(root, file["file"]): str(file.get("sha256", "")) for file in
                   splits[name]["files"]}
        if streamed and not by_index:
            return dataclasses.replace(_records.stream(files, parse), digests=digests)
        lookup = (_records.by_index(paths, parse) if streamed else
                  _records.array_records(paths, parse, counts))

        def listed():  # a record is known by the content of its file
            return [b"%s, record %d" % (digest[:16].encode(), record)
                    for (_, count), digest in zip(files, digests.values(), strict=True)
                    for record in range(count)], None

        return dataclasses.replace(lookup, listed=listed)

    size = said.get("image_size")
    return Source(name=said["name"], classes=tuple(said["classes"]),
                  sizes={name: split["count"] for name, split in splits.items()},
                  open=open_split, channels=channels or said["channels"], kind=said["kind"],
                  image_size=tuple(size) if size else None)


def _read(path: str) -> dict:
    fix = "prepare the dataset again: imgcls data prepare"
    try:
        said = untrusted.from_json(untrusted.read(path))
    except OSError as error:
        raise DataError(f"dataset.json is missing or cannot be read: {error.strerror}", where=path,
                        fix=fix) from error
    except ValueError as error:
        raise DataError(f"dataset.json is damaged: {error}", where=path, fix=fix) from error
    try:
        if said["version"] != VERSION:
            raise DataError(f"dataset.json has version {said['version']!r}, not {VERSION}",
                            where=path, fix="prepare it with this version of imgcls_jax")
        for split in said["splits"].values():
            if sum(file["count"] for file in split["files"]) != split["count"]:
                raise DataError("the counts of dataset.json do not add up", where=path, fix=fix)
            for file in split["files"]:
                if os.path.basename(file["file"]) != file["file"] or "\0" in file["file"]:
                    raise DataError(f"the file name {file['file']!r} leaves the folder", where=path,
                                    fix=fix)
                if not _counts(file["bytes"], file["count"]):
                    raise KeyError("bytes or count")
        if said["format"] not in ("tfrecord", "array_record") or said["kind"] not in (
                "multiclass", "multilabel") or not said["classes"]:
            raise KeyError("format, kind or classes")
        if not (isinstance(said["name"], str) and isinstance(said["classes"], list)
                and all(isinstance(name, str) for name in said["classes"])
                and said["channels"] in (1, 3) and _is_size(said.get("image_size"))
                and all(split["files"] and _counts(split["count"])
                        for split in said["splits"].values())):
            raise KeyError("name, classes, channels, image_size or splits")
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"dataset.json is not in its format: {error}", where=path,
                        fix=fix) from error
    return said


def _counts(*values) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _is_size(size) -> bool:
    return size is None or (isinstance(size, list) and len(size) == 2 and _counts(*size))


def _check(root: str, said: dict):
    """Checks that the files exist and have their sizes; changed contents are found by their
    checksums, when they are read, and by `imgcls data check`."""
    listed = {file["file"]: file for split in said["splits"].values() for file in split["files"]}
    found = {entry.name: entry.stat().st_size for entry in os.scandir(root)
             if entry.name.endswith(SUFFIXES) and entry.is_file()}
    for name, file in listed.items():
        where = os.path.join(root, name)
        if name not in found:
            fault(DataError(f"the file is missing: found {len(set(found) & set(listed))} files, "
                            f"dataset.json says {len(listed)}", where=where,
                            fix=_records.COPY_AGAIN))
        elif found[name] != file["bytes"]:
            fault(DataError(f"found {found[name]:,} bytes{_records_in(where, said['format'])}, "
                            f"dataset.json says {file['bytes']:,} ({file['count']:,} records)",
                            where=where, fix=_records.COPY_AGAIN))
    for name in sorted(set(found) - set(listed)):
        fault(DataError(f"a record file is not one of the {len(listed)} of dataset.json",
                        where=os.path.join(root, name), fix="remove it from the folder"))


def _records_in(path: str, form: str) -> str:
    if form != "tfrecord":
        return ""
    return f" ({_records.whole(path):,} whole records)"
