"""Readers of hostile files, in a process of their own, which may hang, die or fill the memory.

`python -m tests.untrusted.readers` takes lines `READER PATH` and answers each with what became of
it: {"outcome": "read" | "refused" | "traceback", "what", "seconds" of processor, "peak" bytes}.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from imgcls_jax.errors import Failure

HANG = 30  # seconds without an answer: whatever waits for something, on however busy a machine
ROWS = 50


def weights(path: Path):
    from imgcls_jax.pretrained import files

    files.read(path)


def archive(path: Path):
    from imgcls_jax.datasets import _archive, folder

    opened = _archive.Archive(str(path))
    for number in range(min(len(opened), ROWS)):
        with contextlib.suppress(Failure):
            opened.read(number)
    folder.folder(dir=str(path))


def manifest(path: Path):
    from imgcls_jax.datasets import manifest

    source = manifest.manifest(path=str(path))
    for split in source.sizes:
        opened = source.open(split)
        assert opened.labels is not None and len(opened.labels()) == opened.size
        for index in range(min(opened.size, ROWS)):
            opened.where(index)


def image(path: Path):
    from imgcls_jax.data.decoding import pillow

    pillow.decode(path.read_bytes())


def image_by_tensorflow(path: Path):
    from imgcls_jax.data.curation import examples

    if "decode" not in DECODER:
        DECODER["decode"] = examples.decoder()
    DECODER["decode"](path.read_bytes())


def description(path: Path):
    from imgcls_jax.datasets import prepared

    path.replace(path.parent / "dataset.json")
    (path.parent / "train-00000-of-00001.tfrecord").touch()
    prepared.prepared(dir=str(path.parent))


def config(path: Path):
    from imgcls_jax import config

    loaded = config.load(str(path)).config
    config.as_before(config.located(loaded))  # what a run that was saved goes through, too


DECODER: dict[str, Callable] = {}
READERS = {"pth": weights, "safetensors": weights, "npz": weights, "h5": weights, "zip": archive,
           "tar": archive, "csv": manifest, "jsonl": manifest, "image": image,
           "image_by_tensorflow": image_by_tensorflow, "description": description,
           "config": config}
SUFFIXES = {"image": "bin", "image_by_tensorflow": "bin", "description": "json", "config": "json"}


# ---- the process ----------------------------------------------------------------------------


def main():
    import warnings

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)  # decoders print about what they meet
    warnings.simplefilter("ignore")
    limit_memory()
    known = set()
    for line in sys.stdin:
        reader, path = line.split(maxsplit=1)
        if reader not in known:  # what it imports counts as nobody's cost
            known.add(reader)
            outcome_of(READERS[reader], Path("none") / "none")
        before, began = memory(reset=True), time.process_time()
        outcome, what = outcome_of(READERS[reader], Path(path.strip()))
        answers.write(json.dumps({"outcome": outcome, "what": what,
                                  "seconds": time.process_time() - began,
                                  "peak": memory(peak=True) - before}) + "\n")


def outcome_of(read: Callable, path: Path) -> tuple[str, str]:
    try:
        read(path)
    except Failure as failure:
        reason = failure.__cause__
        if isinstance(reason, MemoryError) and not from_parser(reason):
            return "traceback", f"more memory than there is: {failure.what}"
        return "refused", failure.what
    except Exception as error:
        return "traceback", "".join(traceback.format_exception(error)[-3:])
    return "read", ""


def from_parser(error: MemoryError) -> bool:
    """Python's own parser says so of what is nested too deeply."""
    return traceback.extract_tb(error.__traceback__)[-1].filename.endswith("ast.py")


def limit_memory():
    """What asks for far more than it should must not take it from others."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))


def memory(*, reset: bool = False, peak: bool = False) -> int:
    """Bytes of this process in memory, now or at most since the last reset."""
    if reset:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as file:
        rows = dict(line.split(":", 1) for line in file)
    return int(rows["VmHWM" if peak else "VmRSS"].split()[0]) << 10


class Reader:
    """A process that reads files one after the other; it is replaced where it hangs or dies."""

    def __init__(self, folder: Path):
        self._folder, self._process = folder, None

    def read(self, reader: str, data: bytes) -> dict:
        """What becomes of a file with this content."""
        path = self._folder / f"file.{SUFFIXES.get(reader, reader)}"
        path.write_bytes(data)
        if self._process is None:
            environment = {**os.environ, "IMGCLS_DATA_CACHE": str(self._folder / "cache")}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.untrusted.readers"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True, env=environment,
                cwd=Path(__file__).parents[2])
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{reader} {path}\n")
        self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            answer = self._process.stdout.readline() if selector.select(HANG) else None
        if answer:
            return json.loads(answer)
        self.close()
        return {"outcome": "hang" if answer is None else "crash", "what": "", "seconds": HANG,
                "peak": 0}

    def close(self):
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


if __name__ == "__main__":
    main()
