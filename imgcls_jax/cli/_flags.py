"""Flags that several verbs share, and what they mean.

Each verb has a FlagValues of its own, so that the flags of two verbs never collide.
"""

from absl import flags

from imgcls_jax import config
from imgcls_jax.errors import ConfigError
from imgcls_jax.parallel import processes


def verb() -> flags.FlagValues:
    """The flags of one verb, with those that every verb has."""
    values = flags.FlagValues()
    flags.DEFINE_bool("debug", False, "Print the traceback of every error.", flag_values=values)
    return values


def define_config(values: flags.FlagValues):
    flags.DEFINE_string("config", None, "Name of a shipped config (imgcls list configs) or a "
                        "file, either with :variant. --config.KEY=VALUE overrides a value.",
                        short_name="c", flag_values=values)


def define_start(values: flags.FlagValues):
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, for plain processes.",
                        flag_values=values)
    flags.DEFINE_integer("processes", None, "Number of processes, for plain processes.",
                        flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", flag_values=values)
    flags.DEFINE_string("cache", None, "Folder of compiled programs, or 'off'; by default "
                        "$IMGCLS_CACHE, else ~/.cache/imgcls_jax/xla.", flag_values=values)


def start(values: flags.FlagValues):
    """Joins the other processes and turns the compilation cache on."""
    processes.start(coordinator=values.coordinator, processes=values.processes,
                  process_id=values.process_id, cache=values.cache)


def load_config(values: flags.FlagValues, words: list[str], overrides) -> config.Loaded:
    """The config of --config and the overrides; ConfigError if none is named."""
    if words:
        raise ConfigError(f"unexpected argument {words[0]!r}", where="command line",
                          fix="flags are written --flag=value")
    if not values.config:
        raise ConfigError("no config is named", where="command line",
                          fix=f"--config=NAME, one of {config.shipped()}, or a file")
    return config.load(values.config, overrides)
