"""Flags that several verbs share, and what they mean."""

from absl import flags

from imgcls_jax import config, runtime
from imgcls_jax.errors import ConfigError

FLAGS = flags.FLAGS


def define_config(default: str | None = None):
    flags.DEFINE_string("config", default, "Name of a shipped config (imgcls list configs) or a "
                        "file, either with :variant. --config.KEY=VALUE overrides a value.",
                        short_name="c")


def define_start():
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, for plain processes.")
    flags.DEFINE_integer("processes", None, "Number of processes, for plain processes.")
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
    flags.DEFINE_string("cache", None, "Folder of compiled programs, or 'off'; by default "
                        "$IMGCLS_CACHE, else ~/.cache/imgcls_jax/xla.")


def start():
    """Joins the other processes and turns the compilation cache on."""
    runtime.start(coordinator=FLAGS.coordinator, processes=FLAGS.processes,
                  process_id=FLAGS.process_id, cache=FLAGS.cache)


def load_config(words: list[str], overrides) -> config.Loaded:
    """The config of --config and the overrides; ConfigError if none is named."""
    if words:
        raise ConfigError(f"unexpected argument {words[0]!r}", where="command line",
                          fix="flags are written --flag=value")
    if not FLAGS.config:
        raise ConfigError("no config is named", where="command line",
                          fix=f"--config=NAME, one of {config.shipped()}, or a file")
    return config.load(FLAGS.config, overrides)
