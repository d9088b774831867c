"""Finds a verb and runs cli/VERB.py; an error becomes a message of a few lines and an exit code."""

import ast
import importlib
import importlib.util
import io
import os
import pkgutil
import signal
import sys
import textwrap
import traceback
import warnings
from pathlib import Path

from absl import flags

from imgcls_jax import cli, config
from imgcls_jax.errors import (
    ConfigError,
    EnvironmentFailure,
    Failure,
    Preempted,
    printable,
)
from imgcls_jax.registry import near


def verbs() -> dict[str, str]:
    """Verb -> the first line of its module, read without importing it."""
    found = {}
    for module in pkgutil.iter_modules(cli.__path__):
        if not module.name.startswith("_"):
            path = Path(cli.__path__[0]) / f"{module.name}.py"
            found[module.name] = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
    return found


def _usage() -> str:
    lines = [f"  imgcls {verb:9} {what}" for verb, what in sorted(verbs().items())]
    return "\n".join(["usage: imgcls VERB [--flag=value ...] [--config.KEY=VALUE ...]", "", *lines,
                      "", "W and A are workdirs, the folders that runs write to.",
                      "imgcls VERB --help explains a verb and lists its flags. To begin:",
                      "imgcls train --config=digits"])


def _help(verb: str, module) -> str:
    """The description of a verb and its flags in the order of their definition: --config, then its
    own, then others that it shares with other verbs."""
    defined = module.FLAGS.flags_by_module_dict()
    shared = defined["imgcls_jax.cli._flags"]
    listed = [*shared[1:], *shared[:1]]  # --debug, which all have, comes last
    first = [flag for flag in listed if flag.name == "config"]
    own = defined.get(f"imgcls_jax.cli.{verb}", [])
    lines = map(_flag, [*first, *own, *(flag for flag in listed if flag not in first)])
    return "\n".join([module.__doc__.strip(), "", "flags:", *lines])


def _flag(flag: flags.Flag) -> str:
    names = [f"-{flag.short_name}"] * bool(flag.short_name)
    names.append(f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}")
    given = flag.default is not None and flag.default is not False
    about = f"{flag.help} (default: {flag.default})" if given else flag.help
    return textwrap.fill(about, 100, initial_indent=f"  {', '.join(names):<20}  ",
                         subsequent_indent=" " * 24)


def main(argv: list[str]) -> int:
    """Runs one command; returns its exit code."""
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(_usage())
        return 0 if argv else ConfigError.code
    warnings.showwarning = _say_warning
    for stream in (sys.stdout, sys.stderr):  # a terminal may not have the letters of a name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(argv[0], argv[1:])
    except Failure as failure:
        return _report(failure, "--debug" in argv)
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _leave(128 + signal.SIGINT)
    except Exception as error:
        failure = _known(error)
        if failure is None:
            _leave(Failure.code, error)
            raise
        return _report(failure, "--debug" in argv)


def _dispatch(verb: str, words: list[str]) -> int:
    if verb not in verbs():
        raise ConfigError(f"there is no verb {verb!r}", where="command line",
                          fix=near(verb, verbs()))
    module = importlib.import_module(f"imgcls_jax.cli.{verb}")
    words, overrides = config.split_argv(words)
    if any(word in ("--help", "-h", "-help") for word in words):
        print(_help(verb, module))
        return 0
    for name in module.FLAGS:
        module.FLAGS[name].unparse()  # forgets what an earlier call in this process has set
    flags.FLAGS.mark_as_parsed()  # libraries with flags of their own raise otherwise
    try:
        rest = module.FLAGS([f"imgcls {verb}", *words])[1:]
    except flags.Error as error:
        raise ConfigError(str(error).splitlines()[0], where="command line",
                          fix=f"imgcls {verb} --help lists the flags") from error
    return module.main(rest, overrides) or 0


def _known(error: Exception) -> Failure | None:
    """The Failure of an error that is due to the machine; None for an error of the code."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" in text or isinstance(error, MemoryError):
        return EnvironmentFailure(
            f"out of memory: {text.splitlines()[0][:200] if text else 'on the host'}",
            where="the device" if "RESOURCE" in text else "the host",
            fix="lower config.batch_size, or raise config.step.accumulate or config.mesh.fsdp")
    if isinstance(error, ModuleNotFoundError) and not error.name.startswith("imgcls_jax"):
        return EnvironmentFailure(f"the package {error.name!r} is not installed",
                                  where=sys.executable, fix="imgcls doctor lists what is missing")
    return None


def _say_warning(message, category, filename, lineno, file=None, line=None):
    """Prints a warning as one line, without the line of code that gave it."""
    print(printable(f"warning: {message}", keep="\n"), file=sys.stderr, flush=True)


def _report(failure: Failure, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(failure, file=sys.stderr, flush=True)
    return failure.code if isinstance(failure, Preempted) else _leave(failure.code)


def _leave(code: int, error: Exception | None = None) -> int:
    """The exit code of a single process; one of several exits here, printing `error`."""
    jax = sys.modules.get("jax")
    if jax and jax.distributed.is_initialized():
        # The others wait for this one in a collective. They end only if it exits at once:
        # jax.distributed would wait for them at a normal exit.
        if error:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
