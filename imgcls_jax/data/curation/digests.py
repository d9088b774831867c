"""Digests of files, which find a changed byte even where the image still decodes.

DIR/manifest.json, or FILE.manifest.json, is {"version": 1, "sha256": {file within DIR: hex}}, as
`imgcls data check DIR --write_digests` writes it. DIR/dataset.json of prepared data lists those of
its record files.
"""

import hashlib
import json
import os
from pathlib import Path

from imgcls_jax.data import salvage
from imgcls_jax.errors import ConfigError

CHANGED = "the file has changed since its digest was written"
AGAIN = "copy it again; if the change is intended, write the digests again"


class Digests:
    """Compares what is seen with the digests of the data; with `write`, collects and writes them.

    place: the folder, archive or file of the data. findings: a check.Findings. Raises ConfigError
    where digests are to be written of data that is not in files, or of a part of it.
    """

    def __init__(self, place: str, write: bool, findings):
        self._root, self._write, self._findings = Path(place).expanduser(), write, findings
        self._seen: dict[str, str] = {}
        self._wanted = None
        if write and not (place and self._root.exists()):
            raise ConfigError("digests are of files, but no folder or file is named",
                              where="--write_digests", fix="imgcls data check DIR --write_digests")
        if place and self._root.exists() and not write:
            self._read()
            self._check_records()

    @property
    def _path(self) -> Path:
        root = self._root
        return root / "manifest.json" if root.is_dir() else Path(f"{root}.manifest.json")

    def _read(self):
        if not self._path.is_file():
            return
        try:
            self._wanted = dict(json.loads(self._path.read_bytes())["sha256"])
        except (ValueError, KeyError, TypeError):
            self._findings.note("is not a list of digests, and is not used", str(self._path))

    def see(self, where: str, digest: bytes, split: str):
        """Notes a good example, by its name and the SHA-256 of its bytes."""
        if not (self._write or self._wanted is not None):
            return
        name, found = self._name(where), digest.hex()
        if self._write:
            self._seen[name] = found
            return
        wanted = self._wanted.pop(name, None)
        if wanted is None:
            self._findings.note(f"not in {self._path.name}", where, split=split)
        elif wanted != found:
            self._findings.error(CHANGED, where, AGAIN, split)

    def _name(self, where: str) -> str:
        """What the example is called within the folder or archive."""
        between = "/" if self._root.is_dir() else ": "
        return where.removeprefix(f"{self._root}{between}")

    def finish(self, complete: bool):
        """complete: whether every split has been seen."""
        if self._write:
            if not complete:
                raise ConfigError("digests of some splits would replace those of all",
                                  where="--write_digests", fix="leave --splits out")
            temporary = self._path.with_name(f".{self._path.name}.tmp")
            temporary.write_text(json.dumps({"version": 1, "sha256": self._seen}, indent=0))
            temporary.replace(self._path)
        elif complete and self._wanted:
            faulty = {self._name(row["where"]) for row in self._findings.errors}
            between = "/" if self._root.is_dir() else ": "
            for name in sorted(self._wanted.keys() - faulty):
                self._findings.error(f"missing, but in {self._path.name}",
                                     f"{self._root}{between}{name}", AGAIN)

    def _check_records(self):
        """The record files of prepared data; in those that have changed, every damaged record."""
        listed = self._root / "dataset.json"
        if not listed.is_file():
            return
        try:
            splits = json.loads(listed.read_bytes())["splits"]
            files = [(name, row["file"], row["sha256"]) for name, split in splits.items()
                     for row in split["files"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            self._findings.error("damaged", str(listed), "prepare the data again")
            return
        for split, file, wanted in files:
            path = self._root / file
            if not path.is_file():
                self._findings.error("missing, but in dataset.json", str(path), AGAIN, split)
                continue
            with path.open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() == wanted:
                    continue
            self._findings.error(CHANGED, str(path), AGAIN, split)
            for number, _, _ in salvage.gaps(os.fspath(path)) or ():
                self._findings.error("the record is damaged", f"{path}, record {number}", AGAIN,
                                     split)
