"""Random edits of a folder between starts: what is served is on the disk, or it is refused."""

import hashlib
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls_jax.data import feed, listing
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import DataError

FRACTION, CLASSES = 0.3, ("ant", "bee", "cät")
EDITS = ("add", "remove", "move", "replace", "swap", "damage", "mend", "touch", "copy")


class World:
    """A folder, and apart from it what is in it: path -> color, or None if it is damaged."""

    def __init__(self, place: Path, rng: np.random.Generator):
        self.place, self.rng, self.made = place, rng, 0
        self.images: dict[str, tuple | None] = {}
        for name in CLASSES:
            for _ in range(rng.integers(2, 7)):
                self.add(name)

    def add(self, name: str = ""):
        name = name or str(self.rng.choice(CLASSES))
        folder = unicodedata.normalize("NFC", name) + str(self.rng.choice(["", "", "/more"]))
        self.made += 1
        self._write(f"{folder}/{self.made:03}.png")

    def _write(self, path: str):
        self.images[path] = tuple(map(int, self.rng.integers(0, 256, 3)))
        (self.place / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), self.images[path]).save(self.place / path)

    def edit(self):
        what, path = str(self.rng.choice(EDITS)), str(self.rng.choice(sorted(self.images)))
        folder = path.split("/")[0]
        last = sum(other.startswith(f"{folder}/") for other in self.images) <= 2
        if what == "add":
            self.add()
        elif what == "remove" and not last:
            (self.place / path).unlink()
            del self.images[path]
        elif what == "move" and not last:
            there = f"{self.rng.choice(CLASSES)}/{path.rpartition('/')[2]}"
            if there not in self.images:
                (self.place / path).rename(self.place / there)  # with its time of modification
                self.images[there] = self.images.pop(path)
        elif what in ("replace", "mend"):
            self._write(path)
        elif what == "swap":
            other = str(self.rng.choice(sorted(self.images)))
            if other != path:
                aside = self.place / "aside"
                (self.place / path).rename(aside)
                (self.place / other).rename(self.place / path)
                aside.rename(self.place / other)
                self.images[path], self.images[other] = self.images[other], self.images[path]
        elif what == "damage":
            whole = (self.place / path).read_bytes()
            (self.place / path).write_bytes(whole[:len(whole) // 2])
            self.images[path] = None
        elif what == "touch":
            os.utime(self.place / path)
        elif what == "copy":  # as rsync without times does
            there = self.place.with_name(f"{self.place.name}+")
            shutil.copytree(self.place, there, copy_function=shutil.copyfile)
            self.place = there

    def natural(self, path: str) -> bool:
        """Whether the hash of the path says `val`."""
        share = hashlib.sha256(f"0:{path}".encode()).digest()[:8]
        return int.from_bytes(share, "big") / 2**64 < FRACTION


def served(fed: feed.Feed, name: str, on_error: str) -> dict[str, tuple[int, tuple]]:
    """Path -> (label, color) of what evaluation is given."""
    count, split = fed.source.sizes[name], fed.split(name)
    (batch,) = fed.evaluate(name, [], batch_size=count, rows=slice(0, count), on_error=on_error)
    return {split.where(int(number)): (int(label), tuple(map(int, image[0, 0])))
            for number, label, image, mask in zip(batch["id"], batch["label"], batch["image"],
                                                  batch["mask"], strict=True) if mask}


def start(world: World, cache: str):
    """Reads the folder as a run would, and compares it with the world. Gives its listing."""
    source = DATASETS.get("folder")(dir=str(world.place), val_fraction=FRACTION)
    classes = sorted(CLASSES, key=lambda name: name.encode())
    assert source.classes == tuple(classes)
    options = feed.DataOptions(cache=cache, on_error="skip", max_bad_fraction=1)
    fed = feed.Feed(source, 0, options)
    expected = {str(world.place / path): (classes.index(path.split("/")[0]), color)
                for path, color in world.images.items()}
    damaged = {path for path, (_, color) in expected.items() if color is None}
    found: dict[str, tuple] = {}
    for name in ("train", "val"):
        members = {str(world.place / path) for path in source.files[name]}
        if members & damaged:
            with pytest.raises(DataError) as refused:
                served(feed.Feed(source, 0, feed.DataOptions(cache=cache)), name, "fail")
            assert refused.value.where in damaged
        if members - damaged:
            found |= served(fed, name, "skip")
    assert found == {path: row for path, row in expected.items() if path not in damaged}
    for folder in CLASSES:
        own = [path for path in world.images if path.startswith(f"{folder}/")]
        natural = {path for path in own if world.natural(path)}
        if 0 < len(natural) < len(own):
            assert natural == set(source.files["val"]) & set(own)
    return {name: listing.listing(fed.split(name)) for name in ("train", "val")}


def run(seed: int, tmp_path: Path):
    rng = np.random.default_rng(seed)
    world, cache = World(tmp_path / "photos", rng), ["", str(tmp_path / "cache")][seed % 2]
    before, names = start(world, cache), set(world.images)
    for _ in range(3):
        for _ in range(rng.integers(0, 5)):
            world.edit()
        facts = {name: found.facts() for name, found in before.items()}
        listing.write(tmp_path / "examples", before)
        after = start(world, cache)
        said = "; ".join(listing.changes(facts, after, tmp_path / "examples", sorted(CLASSES)))
        assert bool(said) == (names != set(world.images)), said
        added, removed = set(world.images) - names, names - set(world.images)
        assert sum(map(_number, _parts(said, "added"))) == len(added) or _crossed(said)
        assert sum(map(_number, _parts(said, "removed"))) == len(removed) or _crossed(said)
        before, names = after, set(world.images)


def _parts(said: str, what: str) -> list[str]:
    return [part for part in said.split("; ") if f" {what} (" in part]


def _number(part: str) -> int:
    return int(part.split(": ")[1].split()[0])


def _crossed(said: str) -> bool:
    """An image that a class had in `val` for want of another is in `train` now: both count it."""
    return " moved to " in said


@pytest.mark.parametrize("seed", range(6))
def test_what_is_served_is_on_the_disk(tmp_path, seed):
    run(seed, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("hundred", range(5))
def test_what_is_served_is_on_the_disk_in_500_sequences(tmp_path, hundred):
    for seed in range(100 * hundred, 100 * hundred + 100):
        run(seed, tmp_path / str(seed))
