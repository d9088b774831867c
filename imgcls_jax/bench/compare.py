"""The other side of `imgcls bench step --beside`: a process in which torch trains timm's model."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

from imgcls_jax import tree
from imgcls_jax.errors import ConfigError, EnvironmentFailure
from imgcls_jax.types import Run

SCRIPT = Path(__file__).with_name("_timm.py")
SIZES = {"ti": "tiny", "s": "small", "b": "base", "l": "large"}


def share_device():
    """Lets JAX allocate memory as it needs it: the other process needs some of the same device.

    Takes effect only before anything asks JAX for a device.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def check(dtype: str):
    """ConfigError where torch could not train like JAX: other than one device, another backend, or
    a dtype of the computation besides float32 and bfloat16."""
    where = "imgcls bench step --beside"
    if jax.device_count() != 1:
        raise ConfigError(f"the comparison uses one device, but there are {jax.device_count()}",
                          where=where, fix="show one: CUDA_VISIBLE_DEVICES=0")
    if jax.default_backend() not in ("cpu", "gpu"):
        raise ConfigError(f"torch does not run on {jax.default_backend()}", where=where,
                          fix="leave --beside out")
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"the comparison is in float32 or bfloat16, not in {dtype}",
                          where="--precision", fix="use bf16 or f32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How both sides train: SGD with momentum and coupled weight decay.

    dropout, drop_path: rates of the model. compiling: mode of torch.compile, or "off".
    """

    learning_rate: float
    momentum: float
    weight_decay: float
    dropout: float = 0.0
    drop_path: float = 0.0
    compiling: str = "default"


def timm_name(model: str) -> str:
    """Our name of a model -> timm's: "vit_s16" -> "vit_small_patch16_224"; most are the same."""
    words = model.split("_")
    if words[0] == "vit" and len(words) == 2:
        size, patch = words[1].rstrip("0123456789"), words[1].lstrip("abcdefghijklmnopqrstuvwxyz")
        if size in SIZES and patch:
            return f"vit_{SIZES[size]}_patch{patch}_224"
    return model


def request(run: Run, recipe: Recipe) -> dict:
    """All that the other side must know to train the model of a Run in the same way."""
    size, _, channels = run.abstract_batch["image"].shape[1:]
    return {"name": timm_name(run.spec.name), "size": size, "channels": channels,
            "batch_size": run.batch_size, "classes": len(run.source.classes), "dtype": run.dtype,
            "platform": jax.default_backend(), "compile": recipe.compiling,
            "dropout": recipe.dropout, "drop_path": recipe.drop_path,
            "parameters": tree.count(run.abstract_state.params),
            "learning_rate": recipe.learning_rate, "momentum": recipe.momentum,
            "weight_decay": recipe.weight_decay}


class Child:
    """A process that trains for one round on each request, and only waits in between.

    python: an interpreter that has what the script imports. script: a file that reads requests and
    writes replies, a line of JSON each, as _timm.py does. What the process prints besides goes to
    its standard error, the end of which is shown if it dies. Its failures are EnvironmentFailure.
    """

    def __init__(self, python: str, script: Path = SCRIPT):
        self.python, self.loss = python, None
        self.printed = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(
                [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self.printed, text=True)
        except OSError as error:
            raise EnvironmentFailure(f"{python!r} cannot be run: {error.strerror}",
                                     where="--beside_python",
                                     fix="name a Python that has torch and timm") from error

    def __enter__(self):
        try:
            self.found = self.ask("find")  # before anything slow
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.process.communicate(timeout=10)  # it ends where its input does
        except (subprocess.TimeoutExpired, OSError, ValueError):
            self.process.kill()
            self.process.wait()
        self.printed.close()

    def prepare(self, spec: dict) -> dict:
        """Builds, compiles and warms up what `request` describes; gives facts of that side."""
        print(f"torch {self.found['torch']} prepares {spec['name']} of timm {self.found['timm']}, "
              f"torch.compile: {spec['compile']}; this may take minutes", file=sys.stderr,
              flush=True)
        return {**self.found, **self.ask("prepare", **spec)}

    def go(self, steps: int) -> float:
        """Seconds of so many steps, from an idle device to an idle device."""
        reply = self.ask("go", steps=steps)
        self.loss = reply["loss"]
        return reply["seconds"]

    def ask(self, request: str, **arguments) -> dict:
        """The reply to a request."""
        try:
            self.process.stdin.write(json.dumps({"request": request, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            self.printed.seek(0)
            raise EnvironmentFailure(
                f"the process of torch ended with code {self.process.returncode}: "
                f"{self.printed.read().strip()[-300:]}", where=self.python,
                fix="if it ran out of memory, lower --batch")
        reply = json.loads(line)
        if "error" in reply:
            raise EnvironmentFailure(reply["error"], where=self.python, fix=reply["fix"])
        return reply
