"""Flags that several verbs share. Each verb has its own FlagValues, so that none collide."""

from absl import flags

from imgcls_jax import config
from imgcls_jax.errors import ConfigError
from imgcls_jax.parallel import processes


def verb() -> flags.FlagValues:
    """The FlagValues of a verb, with the flags that all verbs have."""
    values = flags.FlagValues()
    flags.DEFINE_bool("debug", False, "Print the traceback of an error.", flag_values=values)
    return values


def define_config(values: flags.FlagValues):
    """The flag --config, which `load_config` reads."""
    flags.DEFINE_string("config", None, "Name of a shipped config (imgcls list configs), or "
                        "the path of a file; NAME:VARIANT chooses a variant, as digits:vit. "
                        "--config.KEY=VALUE overrides a value, as --config.total.epochs=5.",
                        short_name="c", flag_values=values)


def define_start(values: flags.FlagValues):
    """Flags for several processes and for the compilation cache, which `start` reads."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where several processes are "
                        "started by hand, with --processes and --process_id; under Slurm and Open "
                        "MPI and on TPU pods all three are found.",
                        flag_values=values)
    flags.DEFINE_integer("processes", None, "Number of processes, with --coordinator.",
                         flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0, with --coordinator.",
                         flag_values=values)
    flags.DEFINE_string("cache", None, "Folder to keep compiled programs in, or 'off'; by default "
                        "$IMGCLS_CACHE, else ~/.cache/imgcls_jax/xla.", flag_values=values)


def start(values: flags.FlagValues):
    """Joins the other processes and turns the compilation cache on."""
    processes.start(coordinator=values.coordinator, processes=values.processes,
                    process_id=values.process_id, cache=values.cache)


def load_config(values: flags.FlagValues, words: list[str], overrides) -> config.Loaded:
    """The config of --config with the overrides; ConfigError if none is named."""
    if words:
        raise ConfigError(f"unexpected argument {words[0]!r}", where="command line",
                          fix="flags are written --flag=value")
    if not values.config:
        raise ConfigError("no config is named", where="command line",
                          fix=f"give --config=NAME, one of {config.shipped()}, or a file")
    return config.load(values.config, overrides)
