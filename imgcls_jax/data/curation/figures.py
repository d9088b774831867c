"""Figures of a dataset: counts, sizes and duplicates, and how `imgcls data check` prints them."""

import array
import collections
import os

import numpy as np

from imgcls_jax.errors import printable
from imgcls_jax.types import Lookup, Shards

FEW = 20  # up to so many classes the count of each is printed


class Tally:
    """What was seen of a split, in 44 bytes an example."""

    def __init__(self, split: Lookup | Shards | None, classes: int):
        self.split, self.bad, self.rotated = split, 0, 0
        self.counts = np.zeros(classes, np.int64)
        self.sizes, self.kinds = collections.Counter(), collections.Counter()
        self._digests, self._pixels = bytearray(), bytearray()
        self._indices, self._labels = array.array("q"), array.array("i")

    def add(self, index: int, look):
        """Counts a good example. look: a check.Look."""
        if look.label.ndim:
            self.counts += look.label > 0.5
        else:
            self.counts[look.label] += 1
        self.sizes[look.size] += 1
        self.kinds[look.kind] += 1
        self.rotated += look.rotated
        self._digests += look.digest[:16] or look.pixels
        self._pixels += look.pixels or look.digest[:16]
        self._indices.append(index)
        self._labels.append(-1 if look.label.ndim else int(look.label))

    def rows(self) -> tuple[np.ndarray, ...]:
        """(digests of bytes, digests of pixels, indices, labels) of the good examples."""
        return (np.frombuffer(bytes(self._digests), "S16"),
                np.frombuffer(bytes(self._pixels), "S16"),
                np.array(self._indices, np.int64), np.array(self._labels, np.int32))

    def figures(self, classes) -> dict:
        """Counts of the split and of its classes."""
        counts = dict(zip(classes, map(int, self.counts), strict=True))
        found = {"examples": len(self._indices) + self.bad, "faulty": self.bad, "classes": counts}
        there = {name: count for name, count in counts.items() if count}
        if there:
            least, most = min(there, key=there.get), max(there, key=there.get)
            found |= {"smallest": [least, there[least]], "largest": [most, there[most]],
                      "imbalance": round(there[most] / there[least], 2)}
        return found


def of_images(tallies: list[Tally]) -> dict:
    """Formats, and the least, median and greatest width, height and short side, in pixels."""
    sizes = sum((tally.sizes for tally in tallies), collections.Counter())
    kinds = sum((tally.kinds for tally in tallies), collections.Counter())
    if not sizes:
        return {"formats": {}}
    sides, times = np.array(list(sizes)), list(sizes.values())
    values = {"width": sides[:, 0], "height": sides[:, 1], "short_side": sides.min(1)}
    return {"formats": dict(kinds.most_common()),
            "rotated_by_exif": sum(tally.rotated for tally in tallies),
            **{name: _spread(value, times) for name, value in values.items()}}


def _spread(values: np.ndarray, times) -> list[int]:
    every = np.sort(np.repeat(values, times))
    return [int(every[0]), int(every[len(every) // 2]), int(every[-1])]


def duplicates(tallies: dict[str, Tally]) -> list[dict]:
    """Groups of examples with the same pixels, those in several splits first.

    Only digests are compared: those of the bytes where the images were not decoded.
    """
    names = [name for name, tally in tallies.items() if tally.split is not None]
    if not names:
        return []
    parts = [tallies[name].rows() for name in names]
    digests, pixels, indices, labels = map(np.concatenate, zip(*parts, strict=True))
    owner = np.repeat(np.arange(len(names)), [len(part[0]) for part in parts])
    order = np.argsort(pixels, kind="stable")
    equal = pixels[order][1:] == pixels[order][:-1]
    starts = np.flatnonzero(equal & ~np.concatenate([[False], equal[:-1]]))
    found = []
    for start in starts:
        end = start + 1
        while end < len(equal) and equal[end]:
            end += 1
        group = np.sort(order[start:end + 1])
        splits = [names[i] for i in owner[group]]
        found.append({
            "same": "bytes" if len(set(digests[group])) == 1 else "pixels",
            "across_splits": len(set(splits)) > 1,
            "labels_differ": len(set(labels[group].tolist())) > 1,
            "examples": [{"split": split, "where": tallies[split].split.where(int(indices[i])),
                          "label": int(labels[i])} for split, i in zip(splits, group, strict=True)]
        })
    return sorted(found, key=lambda row: not row["across_splits"])


def tree(place: str) -> list[str]:
    """The layout of a folder: the folders and numbers of files of its first two levels."""
    rows = []
    if os.path.isdir(place):
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            if entry.is_dir():
                inside = list(os.scandir(entry.path))
                folders = sorted(one.name for one in inside if one.is_dir())
                rows.append(f"{entry.name}/: {len(folders)} folders {folders[:4]}, "
                            f"{len(inside) - len(folders)} files")
        files = [entry.name for entry in os.scandir(place) if not entry.is_dir()]
        rows.append(f"{len(files)} files {sorted(files)[:4]}")
    return rows


# ---- the text -----------------------------------------------------------------------------------


def render(found: dict) -> str:
    """What check.check gives as text: figures, then a line per finding."""
    lines = [f"data       {found['data']} {found['where']}".rstrip()]
    if "found" in found:
        lines += [f"found      {row}" for row in found["found"]]
    else:
        lines += _facts(found)
    errors, notes, same = found["errors"], found["notes"], found.get("duplicates", [])
    lines += _few_lines(notes)
    lines += [_same(row) for row in same]
    lines += [_line("error", row) for row in errors]
    across = sum(row["across_splits"] for row in same)
    counts = ((len(errors), "error"), (len(notes), "note"), (len(same), "duplicate"),
              (across, "of them across splits"))
    lines.append(", ".join(f"{count:,} {what}" + "s" * (count != 1 and " " not in what)
                           for count, what in counts)
                 + (": training would fail" if errors else ""))
    return "\n".join(map(printable, lines))


def _facts(found: dict) -> list[str]:
    lines = [f"layout     {found['layout']}"] if "layout" in found else []
    lines.append(f"classes    {found['classes']}")
    for name, split in found["splits"].items():
        faulty = f", {split['faulty']} of them faulty" if split["faulty"] else ""
        lines.append(f"{name:10} {split['examples']:,} examples{faulty}")
        if "smallest" in split:
            (least, few), (most, many) = split["smallest"], split["largest"]
            lines[-1] += f"; {few:,} of each class" if few == many else (
                f"; {few:,} ({least}) to {many:,} ({most}) a class, imbalance "
                f"{split['imbalance']:g}")
        if len(split["classes"]) <= FEW:
            lines.append(" " * 11 + ", ".join(f"{key} {count:,}"
                                              for key, count in split["classes"].items()))
    images = found["images"]
    if images["formats"]:
        lines.append("formats    " + ", ".join(f"{kind} {count:,}"
                                               for kind, count in images["formats"].items()))
        lines.append("pixels     " + ", ".join(
            f"{name.replace('_', ' ')} {low} to {high}, median {middle}"
            for name in ("width", "height") for low, middle, high in [images[name]]))
        if images["rotated_by_exif"]:
            lines.append(f"exif       {images['rotated_by_exif']:,} images have an orientation")
    if not found["decoded"]:
        lines.append("images were not decoded: only damage to their headers is found")
    return lines


def _line(kind: str, row: dict) -> str:
    return f"{kind:10} {row['where']}: {row['what']}" + (f"; {row['fix']}" if row.get("fix")
                                                         else "")


def _few_lines(notes: list[dict]) -> list[str]:
    """A line for each note, or one for more than FEW that say the same."""
    alike = collections.defaultdict(list)
    for row in notes:
        alike[row["what"]].append(row)
    lines = []
    for what, rows in alike.items():
        if len(rows) <= FEW:
            lines += [_line("note", row) for row in rows]
        else:
            some = ", ".join(row["where"] for row in rows[:4])
            lines.append(f"note       {len(rows):,} times: {what}: {some} ... (--json lists all)")
    return lines


def _same(row: dict) -> str:
    splits = sorted({one["split"] for one in row["examples"]})
    labels = ", but other labels" if row["labels_differ"] else ""
    return (f"duplicate  in {' and '.join(splits)}, same {row['same']}{labels}: "
            + " = ".join(one["where"] for one in row["examples"]))
