"""The other side of `imgcls bench step --beside`: a process that holds the same model elsewhere."""

import inspect
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

from imgcls_jax.cli import bench
from imgcls_jax.errors import ConfigError, EnvironmentFailure
from imgcls_jax.models import MODELS
from imgcls_jax.parallel import processes

SCRIPT = Path(__file__).with_name("_timm.py")
SIZES = {"ti": "tiny", "s": "small", "b": "base", "l": "large"}


def share_device():
    """Lets JAX take memory as it needs it: the other process needs some of the same device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def check(chosen: dict, flags):
    """ConfigError for what would not compare like with like."""
    where = "imgcls bench step --beside"
    if flags.config:
        raise ConfigError("a config has an optimizer, a loss and an input of its own", where=where,
                          fix="name a model alone: --model=NAME")
    plain = bench.plain_config(flags.model, chosen["batch_size"], chosen["data"]["size"],
                               flags.precision)
    for key in plain:
        if key not in ("model", "step") and chosen[key] != plain[key]:
            raise ConfigError(f"config.{key} is changed on one side only", where=where,
                              fix="override config.model and config.step alone")
    if jax.device_count() != 1:
        raise ConfigError(f"both sides use one device, and there are {jax.device_count()}",
                          where=where, fix="show one: CUDA_VISIBLE_DEVICES=0")
    if jax.default_backend() not in ("cpu", "gpu"):
        raise ConfigError(f"torch does not run on {jax.default_backend()}", where=where,
                          fix="leave --beside out")
    if processes.compute_dtype(chosen["precision"]) not in ("float32", "bfloat16"):
        raise ConfigError(f"precision={chosen['precision']} has nothing beside it", where=where,
                          fix="use bf16 or f32")


def timm_name(model: str) -> str:
    """Our name of a model -> timm's: "vit_s16" -> "vit_small_patch16_224", most have one name."""
    words = model.split("_")
    if words[0] == "vit" and len(words) == 2:
        size, patch = words[1].rstrip("0123456789"), words[1].lstrip("abcdefghijklmnopqrstuvwxyz")
        if size in SIZES and patch:
            return f"vit_{SIZES[size]}_patch{patch}_224"
    return model


def spec(run, chosen: dict, compiling: str) -> dict:
    """All that the other side must know to train the same model in the same way."""
    arguments = inspect.signature(MODELS.bind(chosen["model"], "config.model")).parameters
    size, _, channels = run.abstract_batch["image"].shape[1:]
    schedule = chosen["schedule"]
    return {"name": timm_name(run.spec.name), "size": size, "channels": channels,
            "batch_size": run.batch_size, "classes": len(run.source.classes),
            "dtype": processes.compute_dtype(chosen["precision"]),
            "platform": jax.default_backend(), "compile": compiling,
            "dropout": _default(arguments, "dropout"), "drop_path": _default(arguments,
                                                                             "drop_path"),
            "parameters": sum(math.prod(leaf.shape)
                              for leaf in jax.tree.leaves(run.abstract_state.params)),
            "learning_rate": schedule["base"] * run.batch_size / schedule["per"],
            "momentum": chosen["optimizer"]["momentum"],
            "weight_decay": chosen["weight_decay"]["value"]}


def _default(arguments, name: str) -> float:
    return arguments[name].default if name in arguments else 0.0


class Child:
    """A process that trains, one round at a time, when it is told to; between, it only waits.

    A request and its reply are a line of JSON each. What the process prints besides goes to its
    standard error, the end of which is shown if it dies.
    """

    def __init__(self, python: str, script: Path = SCRIPT):
        self.python, self.loss = python, None
        self.printed = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(
                [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self.printed, text=True)
        except OSError as error:
            raise EnvironmentFailure(f"{python} cannot be run: {error.strerror}",
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
        """Builds, compiles and warms up; facts of that side."""
        print(f"{spec['name']} of timm {self.found['timm']} is made ready by torch "
              f"{self.found['torch']}, torch.compile: {spec['compile']}; this may take minutes",
              file=sys.stderr, flush=True)
        return {**self.found, **self.ask("prepare", **spec)}

    def go(self, steps: int) -> float:
        """Seconds of so many steps, from an idle device to an idle device."""
        reply = self.ask("go", steps=steps)
        self.loss = reply["loss"]
        return reply["seconds"]

    def ask(self, request: str, **arguments) -> dict:
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
                f"the process beside ours ended with {self.process.returncode}: "
                f"{self.printed.read().strip()[-300:]}", where=self.python,
                fix="see whether it is out of memory: lower --batch")
        reply = json.loads(line)
        if "error" in reply:
            raise EnvironmentFailure(reply["error"], where=self.python, fix=reply["fix"])
        return reply
