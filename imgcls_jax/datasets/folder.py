"""A folder of images: DIR/train|val|test/CLASS/*, or DIR/CLASS/* with a split drawn by a seed.

DIR may also be a zip or tar archive of such a folder.
"""

import codecs
import json
import os
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from imgcls_jax.data.decoding import pillow
from imgcls_jax.datasets import DATASETS, LeftOut, _archive, _layout, _paths, fault, leave_out
from imgcls_jax.datasets._paths import say
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Lookup, Source

# In any case, such as TRAIN or Testing.
SPLITS = {b"train": "train", b"training": "train", b"val": "val", b"valid": "val",
          b"validation": "val", b"dev": "val", b"test": "test", b"testing": "test"}
USUAL = (b"train", b"val", b"validation", b"test")  # read without a word
# Within longer names, such as train_set, val1 or fold0.
WORDS = {**{name.decode(): split for name, split in SPLITS.items()}, "eval": "val", "fold": "part",
         "split": "part"}
# What Windows, macOS, Synology and file systems leave in folders.
CLUTTER = (b"thumbs.db", b"ehthumbs.db", b"desktop.ini", b"__macosx", b"icon\r", b"@eadir",
           b"#recycle", b"#snapshot", b"$recycle.bin", b"system volume information", b"lost+found")
LAYOUT = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg"
DEPTH = 64  # folders within that of a class
WRAPPED = 4  # outer folders, each holding one folder and nothing else, that may be skipped

Classes = dict[bytes, list[bytes]]  # class -> paths of its images, sorted
Tree = _layout.Disk | _layout.Packed


@DATASETS.register()
def folder(*, dir: str, val_fraction: float = 0.2, seed: int = 0, channels: int = 3,
           split_folders: bool = True, draw: Literal["threshold", "count"] = "threshold",
           known: str = "") -> Source:
    """A class per folder, sorted by name or in the order of DIR/classes.txt. dir: a folder or a zip
    or tar archive of one, which is read in place; a single folder around the layout is skipped.

    Splits may also be called training, valid, validation, dev and testing, in any case. One folder
    of such a name that holds images itself, beside others, is a class; two are refused, as are
    train_set and test_set, or fold0 and fold1, unless split_folders=False says that all folders are
    classes. Without folders for splits, an image is `val` if the hash of the seed and its path, a
    number in [0, 1), is below val_fraction: whatever is added or removed, the others stay. Of the
    two or more images of a class one is in `train` and one in `val`, which is the one exception; it
    is excluded for the images in `known`, the splits.json of an earlier run. draw="count": exactly
    val_fraction of each class, those of the smallest hashes, as before version 0.2. Source.files
    says which image is where.

    Images may be in subfolders of a class's folder, and the folder a link. Their format is told by
    their content; files that are no images by name nor content are left out. Names that differ in
    Unicode form alone (NFC, NFD) are one class. Raises DataError for any other layout, an empty
    class or split, two names of one folder or class, a class that is missing in train, and a pipe,
    a device or a broken link; warns of files and folders that are not read and where all images are
    in folders within the classes, and says which unusual name was taken for which split.
    """
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction={val_fraction} is out of range",
                          where="config.data.val_fraction",
                          fix="use a share of at least 0 and below 1, such as 0.2")
    tree = _top(_open(os.path.expanduser(dir)))
    named, others = _named_splits(tree) if split_folders else {}, []
    if named:
        if known:
            raise ConfigError("the folder has its own splits", where="config.data.known",
                              fix="leave it out: it is for folders whose splits are drawn")
        splits = {split: _scan(tree, name + b"/", others) for split, name in named.items()}
    else:
        found = _scan(tree, b"", others)
        if split_folders:
            _look_within(tree, found)
        splits = _draw(found, val_fraction, seed, draw, _known(known))
    _leave_out(others, tree)
    _check(splits, tree, drawn=not named)
    classes = _order(splits["train"], tree)
    files = {split: [path for name in classes for path in found.get(name, ())]
             for split, found in splits.items()}

    def open_split(name: str) -> Lookup:
        counts = [len(splits[name].get(label, ())) for label in classes]
        return tree.lookup(files[name], np.repeat(np.arange(len(classes), dtype=np.int32), counts))

    drawn = None if named else {split: tuple(map(say, paths)) for split, paths in files.items()}
    return Source(name="folder", classes=tuple(map(say, classes)),
                  sizes={split: len(paths) for split, paths in files.items()}, open=open_split,
                  channels=channels, files=drawn, mixed=True)


def _open(path: str) -> Tree:
    if os.path.isdir(path):
        return _layout.Disk(os.fsencode(path))
    if not os.path.isfile(path):
        raise DataError("there is no such folder or archive", where=say(os.fsencode(path)),
                        fix="set config.data.dir to the data")
    return _layout.Packed(_archive.Archive(path))


def _visible(tree: Tree, path: bytes) -> Iterator[tuple[bytes, str]]:
    return ((name, kind) for name, kind in tree.children(path)
            if not name.startswith(b".") and name.lower() not in CLUTTER)


def _folders(tree: Tree, path: bytes) -> list[bytes]:
    return sorted(name for name, kind in _visible(tree, path) if kind == _layout.FOLDER)


def _top(tree: Tree) -> Tree:
    """The folder in which the layout begins. A README, or another file that is no image and not
    classes.txt, may lie beside the single folder that is stepped into."""
    for _ in range(WRAPPED):
        inner = _folders(tree, b"")
        files = [name.lower() for name, kind in _visible(tree, b"") if kind != _layout.FOLDER]
        if len(inner) != 1 or inner[0].lower() in SPLITS or b"classes.txt" in files or any(
                name.endswith(_layout.extensions()) for name in files):
            break
        if not _folders(tree, inner[0]):  # this folder is a class
            break
        tree = tree.below(inner[0])
    return tree


def _named_splits(tree: Tree) -> dict[str, bytes]:
    """Split -> its folder, if the upper level consists of splits."""
    found = _folders(tree, b"")
    candidates = [name for name in found if name.lower() in SPLITS]
    others = [name for name in found if name not in candidates]
    whole = [name for name in candidates if _folders(tree, name)]
    if not whole and (not candidates or (len(candidates) == 1 and others)):
        _refuse_names_of_splits(tree, found)
        return {}  # a class may be called "test" or "train"
    for name in candidates:
        if name not in whole:
            fault(DataError(f"split {say(name)!r} has no class folders", where=tree.say(name),
                            fix=f"remove it, or lay the images out as {LAYOUT}; if it is a class, "
                                "set config.data.split_folders=False"))
    splits: dict[str, bytes] = {}
    for name in whole:
        split = SPLITS[name.lower()]
        if split in splits:
            raise DataError(f"there are both `{say(splits[split])}` and `{say(name)}`",
                            where=tree.say(b""), fix="keep one of them, or put them into one")
        splits[split] = name
    unusual = [f"{say(name)} as {split}" for split, name in splits.items() if name not in USUAL]
    if unusual:
        warnings.warn(f"{tree.say(b'')}: {', '.join(unusual)}", stacklevel=3)
    said = [say(name) for name in others][:8]
    if len(whole) == 1 and any(_holds_images(tree, name) for name in others):
        fault(DataError(f"there are images beside the split {say(whole[0])!r}, in {said}",
                        where=tree.say(b""), fix="if all of these folders are classes, set "
                        f"config.data.split_folders=False; else lay the images out as {LAYOUT}"))
    elif others:
        warnings.warn(f"{tree.say(b'')}: folders beside the splits are not read: {said}",
                      stacklevel=3)
    return splits


def _holds_images(tree: Tree, path: bytes) -> bool:
    return any(kind == _layout.FILE and name.lower().endswith(_layout.extensions())
               for name, kind in _visible(tree, path))


def _split_of(name: bytes) -> str | None:
    """What a word of a name stands for, as in train_set, val1 or TestData."""
    words = re.split(r"(?<=[a-z])(?=[A-Z])|[\W\d_]+", say(name))
    return next(filter(None, (WORDS.get(word.lower().removesuffix("set")) for word in words)), None)


def _refuse_names_of_splits(tree: Tree, names: list[bytes]):
    """Classes may share one word: train_station and train_yard, beside others."""
    like = {name: split for name in names if (split := _split_of(name))}
    several = len(set(like.values())) > 1 or "part" in like.values() or len(like) == len(names)
    if len(like) > 1 and several:
        fault(DataError(f"folders have names of splits: {[say(name) for name in like][:8]}",
                        where=tree.say(b""), fix="rename them to train and val; if they are "
                        "classes, set config.data.split_folders=False"))


def _look_within(tree: Tree, classes: Classes):
    """Where all images are in folders within the classes, those may be the splits or classes."""
    inner: dict[bytes, set[bytes]] = {}  # folder -> the classes that have it
    for name, paths in classes.items():
        for path in paths:
            _, *folders, _ = path.split(b"/")
            if not folders:
                return
            inner.setdefault(folders[0], set()).add(name)
    above = sorted(set().union(*inner.values()))
    outer, within = ([say(name) for name in names][:8] for names in (above, sorted(inner)))
    if inner and all(map(_split_of, inner)):
        fault(DataError(f"folders within {outer} have names of splits: {within}",
                        where=tree.say(b""), fix=f"lay the images out as {LAYOUT}; if {outer} are "
                        "the classes, set config.data.split_folders=False"))
    elif len(above) > 1:
        said = (f"every class has the same folders {within}"
                if all(len(having) == len(above) for having in inner.values()) else
                f"the classes {outer} have no images but in folders, {within}")
        warnings.warn(f"{tree.say(b'')}: {said}: if these are the classes, move them up to this "
                      "folder", stacklevel=3)


def _scan(tree: Tree, top: bytes, others: list[bytes]) -> Classes:
    """The images of every class folder below `top`, by its name in Unicode's composed form. A link
    to a folder above it is left out. others: is given the files that are no images."""
    seen = {tree.identity(top)}
    found: Classes = {}
    folders: dict = {}  # (what, identity or name) -> the class folder that has it
    for name, kind in sorted(_visible(tree, top)):
        path = top + name
        if kind == _layout.FILE and name.lower().endswith(_layout.extensions()):
            fault(DataError("an image is not in a class folder", where=tree.say(path),
                            fix=f"lay the images out as {LAYOUT}"))
        if kind != _layout.FOLDER or tree.identity(path) == tree.identity(top):
            continue
        for same in (("folder", tree.identity(path)), ("name", _paths.composed(name))):
            if same in folders:
                fault(DataError(f"{say(folders[same])!r} and {say(name)!r} are one {same[0]}",
                                where=tree.say(path), fix="remove one of them, or move its images"))
                break
            folders[same] = name
        else:
            found[_paths.composed(name)] = sorted(_images(tree, path, seen, others, DEPTH))
    return found


def _images(tree: Tree, path: bytes, seen: set, others: list[bytes], depth: int
            ) -> Iterator[bytes]:
    """The images in a folder and those below it; symbolic links may form a loop."""
    if not depth:
        fault(DataError(f"folders are nested over {DEPTH} levels", where=tree.say(path),
                        fix="move the images up, or remove the folder"))
        return
    identity = tree.identity(path)
    if identity in seen:
        return
    seen.add(identity)
    extensions = _layout.extensions()
    for name, kind in _visible(tree, path):
        inner = path + b"/" + name
        if kind == _layout.FOLDER:
            yield from _images(tree, inner, seen, others, depth - 1)
        elif kind != _layout.FILE:
            fault(DataError("it is not an image, but a pipe, a device or a broken link",
                            where=tree.say(inner), fix="remove it"))
        elif name.lower().endswith(extensions) or tree.is_image(inner):
            yield inner
        else:
            others.append(inner)


def _leave_out(others: list[bytes], tree: Tree):
    """Says which files are no images, and how HEIC would be read."""
    if not others:
        return
    others.sort()
    unread = tuple(map(os.fsencode, pillow.SUFFIXES["HEIF"]))
    heic = [path for path in others if path.lower().endswith(unread)]
    some = list(map(say, dict.fromkeys([*heic, *others])))
    more = f" and {len(some) - 4} more" if len(some) > 4 else ""
    hint = f"; {len(heic)} of them HEIC, for which pip install pillow-heif" if heic else ""
    leave_out([LeftOut("left out: it is not an image that can be read", where=tree.say(path),
                       fix="pip install pillow-heif" if path.lower().endswith(unread) else "")
               for path in others],
              f"{tree.say(b'')}: not images, and left out: {', '.join(some[:4])}{more}{hint}; "
              "imgcls data check lists all")


def _draw(classes: Classes, fraction: float, seed: int, draw: str, known: Mapping[str, str]
          ) -> dict[str, Classes]:
    """train and val by the hash of each path, independent of the order on disk."""
    splits: dict[str, Classes] = {"train": {}, "val": {}}
    single = [say(name) for name, paths in classes.items() if len(paths) == 1 and fraction]
    if single:
        warnings.warn(f"{len(single)} classes have a single image, which is in train; they are "
                      f"missing in val: {single[:8]}", stacklevel=3)
    found = 0
    for name, paths in classes.items():
        # The same for both forms of Unicode; draws by count are as they always were.
        shares = {path: _paths.share(seed, path if draw == "count" else _paths.composed(path))
                  for path in paths}
        # Both halves get an image of two or more; a class without images is refused later.
        least, most = int(fraction > 0 and len(paths) > 1), max(len(paths) - 1, 0)
        told = {path: split for path in paths
                if (split := known.get(say(_paths.composed(path))))}
        free = sorted((path for path in paths if path not in told), key=shares.__getitem__)
        kept = {path for path, split in told.items() if split == "val"}
        count = (round(len(paths) * fraction) - len(kept) if draw == "count" else
                 sum(shares[path] < fraction for path in free))
        held_out = kept | set(free[:max(min(max(count, least - len(kept)), most - len(kept)), 0)])
        found += len(told)
        splits["train"][name] = [path for path in paths if path not in held_out]
        splits["val"][name] = [path for path in paths if path in held_out]
    if known and not found:
        raise ConfigError(f"none of the {len(known):,} images of config.data.known is in the "
                          "folder", where="config.data.known",
                          fix="name the splits.json of a run on this folder, or leave it out")
    return splits if fraction else {"train": splits["train"]}


def _known(file: str) -> dict[str, str]:
    """Path -> split, of a splits.json."""
    if not file:
        return {}
    try:
        said = json.loads(Path(file).expanduser().read_bytes())
        if not (isinstance(said, dict) and said.keys() <= {"train", "val"}
                and all(isinstance(paths, list) for paths in said.values())):
            raise ValueError("it has no lists of paths for train and val")
        return {unicodedata.normalize("NFC", path): split for split, paths in said.items()
                for path in paths}
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"the splits cannot be read: {error}", where=f"config.data.known={file}",
                          fix="name the splits.json of a run on this folder") from error


def _check(splits: dict[str, Classes], tree: Tree, drawn: bool):
    train = splits.get("train")
    if not train:
        found = sorted(say(name) for name, _ in tree.children(b""))
        fix = "" if drawn else "; if all folders are classes, set config.data.split_folders=False"
        raise DataError(f"there are no class folders for training; found {found[:8]}",
                        where=tree.say(b""), fix=f"lay the images out as {LAYOUT}{fix}")
    for name, paths in train.items():
        if not paths and (held := splits.get("val", {}).get(name)) and drawn:
            said = f"all {len(held):,} images" if len(held) > 1 else "the only image"
            fault(DataError(f"{said} of class {say(name)!r} {'are' if len(held) > 1 else 'is'} val "
                            "in config.data.known", where=tree.say(b""),
                            fix="add one for training, or remove the folder"))
        elif not paths:
            fault(DataError(f"class {say(name)!r} has no images", where=tree.say(b""),
                            fix="put images into its folder, or remove the folder"))
    for split, found in splits.items():
        for name, paths in found.items():
            if paths and name not in train:
                fault(DataError(f"class {say(name)!r} is in {split} but not in train",
                                where=tree.say(os.path.dirname(paths[0])),
                                fix="add it to train, or remove it here"))
        if found and not any(found.values()):
            fix = ("set config.data.val_fraction=0, or give a class two images or more" if drawn
                   else "put images into its class folders, or remove the split")
            fault(DataError(f"split {split!r} has no images", where=tree.say(b""), fix=fix))


def _order(train: Classes, tree: Tree) -> list[bytes]:
    listed = tree.text(b"classes.txt")
    if listed is None:
        return sorted(train)
    listed = listed.removeprefix(codecs.BOM_UTF8)  # as Windows writes it
    names = [_paths.composed(line.strip()) for line in listed.splitlines() if line.strip()]
    if sorted(names) != sorted(train):
        differing = sorted(say(name) for name in set(names) ^ set(train))
        fault(DataError(f"classes.txt and the folders of train differ: {differing[:8]}",
                        where=tree.say(b"classes.txt"),
                        fix="list every folder once, one name per line"))
        return sorted(train)
    return names
