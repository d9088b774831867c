"""Runs a page as its reader does, block after block, in a folder of its own, by this command in a
process of its own:

python -m tests.docs.session PAGE FOLDER

Runs are two steps long, images 32 pixels wide, residual networks one block and transformers one
layer deep. A block that cannot run is checked: its flags are parsed and its config is built.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import ml_collections
import numpy as np
import pytest

from imgcls_jax import assembly, config
from imgcls_jax.__main__ import main
from imgcls_jax.models import resnet, vit
from tests import absent
from tests.assembly.test_finetune import photo
from tests.contracts import test_every_model
from tests.docs import blocks

SIDE = 32
FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def start(page: str, folder: Path, cache: Path) -> subprocess.CompletedProcess:
    """The page in a new process, whose compiler optimises nothing. cache: of compiled programs."""
    environment = {**os.environ, "PYTHONPATH": str(blocks.ROOT), "JAX_PLATFORMS": "cpu",
                   "XLA_FLAGS": FAST, "IMGCLS_CACHE": str(cache),
                   "IMGCLS_DATA_CACHE": str(folder / "data"),
                   "IMGCLS_WEIGHTS": str(folder / "weights")}
    return subprocess.run([sys.executable, "-m", "tests.docs.session", page, str(folder)],
                          env=environment, cwd=blocks.ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def run(page: str):
    names, files = {"c": fresh_config()}, []
    for block in blocks.read(page):
        print(f"---- {block.page}, line {block.line}", flush=True)
        if block.language == "python":
            files += [block.text] * bool(block.file)
            execute(block, names)
        elif block.language == "bash":
            for variables, words in blocks.commands(block):
                print("+ imgcls", *words, flush=True)
                if block.skipped:
                    check(words)
                else:
                    status = command(words, variables, files)
                    assert status == 0, f"ended with {status}"


# ---- blocks ---------------------------------------------------------------------------------


def execute(block: blocks.Block, names: dict):
    """A block of Python; `c` is a config, which is built if the block changes it."""
    before = str(names["c"])
    exec(compile(block.text, f"{block.page}, line {block.line}", "exec"), names)
    if block.file.startswith("imgcls_jax/models/"):
        (name,) = (name for name in names if name == Path(block.file).stem)
        test_every_model.test_parameters_are_exact_the_head_is_named_and_logits_are_float32(name)
    if str(names["c"]) != before:
        if not block.skipped:
            assembly.build(config.plain(names["c"].to_dict()))
        names["c"] = fresh_config()


def fresh_config() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(config.load("digits").config)


def command(words: list[str], variables: dict[str, str], files: list[str]) -> int:
    """Runs one command, shortened; in a new process where it chooses the number of devices.

    variables: of its environment. files: the text of those that the reader saved in the package.
    """
    words = [*words, *shortened(words)]
    if variables or any(word.startswith("--fake_devices") for word in words):
        code = "\n".join([*files, "import sys", "from imgcls_jax.__main__ import main",
                          "sys.exit(main(sys.argv[1:]))"])
        return subprocess.run([sys.executable, "-c", code, *words],
                              env=os.environ | variables).returncode
    with mock.patch.object(sys, "argv", ["imgcls", *words]):
        return main(words)


def shortened(words: list[str]) -> list[str]:
    """What is added to a command so that it takes seconds."""
    named = next((word.partition("=")[2] for word in words if word.startswith("--config=")), "")
    small = [f"--config.batch_size={32 if named.startswith('digits') else 8}"]
    if named.startswith("finetune") and "size=" not in named:
        keys = ["transforms[0]", "eval_transforms[0]", "eval_transforms[1]"]
        if "probe=true" in named:  # of EfficientNet-Lite0, whose first transform decodes
            keys = [f"{key}[{i}]" for key in ("transforms", "eval_transforms") for i in (1, 2)]
        small += [f"--config.{key}.size={SIDE}" for key in keys]
    if words[0] == "train":
        return [*small, "--config.total.steps=2", "--config.schedule.warmup.steps=1"]
    if words[0] == "lr":
        return [*small, "--steps=20"]
    return ["--last=1", "--batch_norm=64"] if words[0] == "average" else []


def check(words: list[str]):
    """Parses the flags of a command and builds its config, as `imgcls check` does, without data."""
    found = parse(words)
    if found:
        with pytest.MonkeyPatch.context() as patch:
            absent.pretend(patch)
            assembly.build(found.config)


def parse(words: list[str]) -> config.Loaded | None:
    """The config that a command names, once its flags are parsed; the command does not run."""
    verb = importlib.import_module(f"imgcls_jax.cli.{words[0]}")
    found = []

    def load(rest, overrides):
        named = "config" in verb.FLAGS and verb.FLAGS["config"].value
        if named and not named.startswith("runs/"):
            found.append(config.load(named, overrides))

    with mock.patch.object(verb, "main", load):
        status = main(words)
    assert status == 0, f"imgcls {' '.join(words)} ended with {status}"
    return found[0] if found else None


# ---- what the reader has --------------------------------------------------------------------


def prepare(folder: Path):
    """A folder of photographs, new ones, two tables of them, and the pictures of the pages."""
    (folder / "docs").mkdir()
    (folder / "docs" / "images").symlink_to(blocks.ROOT / "docs" / "images")
    rng = np.random.default_rng(0)
    kinds = {"daisy": "rows", "rose": "columns", "tulip": "checks"}
    rows = []
    for name, kind in kinds.items():
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(12):
            path = f"photos/{name}/{i}.jpg"
            photo(kind, rng).save(folder / path, quality=90)
            rows.append((path, name, "val" if i % 4 == 0 else "train"))
    (folder / "new").mkdir()
    photo("rows", rng).save(folder / "new/1.jpg")
    photo("checks", rng).save(folder / "new/2.png")
    (folder / "rows.csv").write_text("path,labels,split\n" + "".join(
        f"{path},{name}|{'red' if name == 'rose' else 'white'},{split}\n"
        for path, name, split in rows))
    (folder / "two.csv").write_text("path,label,split\n" + "".join(
        f"{path},{'rose' if name == 'rose' else 'other'},{split}\n" for path, name, split in rows))


def shrink(put=setattr):
    """Residual networks of one block, transformers of one layer: the others compile for long."""
    residual, transformer = resnet.ResNet, vit.ViT
    put(resnet, "ResNet", lambda classes, blocks, **options: residual(classes, (1,), **options))
    put(vit, "ViT", lambda classes, patch, width, depth, *rest, **options: transformer(
        classes, patch, width, 1, *rest, **options))


if __name__ == "__main__":
    os.chdir(sys.argv[2])
    prepare(Path.cwd())
    shrink()
    run(sys.argv[1])
