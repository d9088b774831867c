"""Measures speed: imgcls bench step|start|input|compile [--flags]

imgcls bench step --model=resnet50 --batch=64      images per second of the training step alone
imgcls bench step --model=resnet50 --beside=timm   the same, alternating with timm's model in torch
imgcls bench start --config=digits                 time from the command to the first step
imgcls bench input [--config=...]                  processor time per image of the input, one core
imgcls bench compile --config=imagenet/resnet:resnet50 --topology=v5e:1x1

step: on data that is already on the device; needs no TensorFlow. start: with an empty and with a
filled compilation cache. input: compared with only decoding the same JPEGs; needs the extra
"bench". compile: what the TPU compiler estimates for the step, without a TPU; needs the extra
"tpu". All but compile print JSON. Below, a flag that only one of them reads begins with its name.
"""

import functools
import json
import sys
import tempfile
from pathlib import Path

from absl import flags

from imgcls_jax import config
from imgcls_jax.cli import _flags
from imgcls_jax.errors import ConfigError

FLAGS = _flags.verb()
_flags.define_config(FLAGS)
_flags.define_start(FLAGS)
flags.DEFINE_string("model", "resnet50", "The model, without --config: it is trained on synthetic "
                    "images.", flag_values=FLAGS)
flags.DEFINE_integer("batch", None, "Images per step without --config, by default 8 per device; "
                     "input: images of a batch, by default 64.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("size", None, "Image size in pixels without --config; by default the model's.",
                     lower_bound=1, flag_values=FLAGS)
flags.DEFINE_enum("precision", "auto", ("auto", "f32", "bf16", "f64"), "dtype of the "
                  "computation without --config; auto: f32 on a CPU, bf16 elsewhere.",
                  flag_values=FLAGS)
flags.DEFINE_integer("steps", 20, "step: steps of a round.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "step, start, input: rounds; the median counts.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_enum("beside", None, ("timm",), "step: compare with the model of this package.",
                  flag_values=FLAGS)
flags.DEFINE_string("beside_python", None, "step: a Python interpreter that has torch and timm; by "
                    "default this one.", flag_values=FLAGS)
flags.DEFINE_enum("beside_compile", "default", ("default", "max-autotune", "off"),
                  "step: mode of torch.compile, or off.", flag_values=FLAGS)
flags.DEFINE_float("probe_tolerance", None, "step: a round counts if the time of a probe, a matrix "
                   "product before and after it, differs by at most this share from the median of "
                   "all; by default 0.03, on a CPU 0.1.", lower_bound=0.0, flag_values=FLAGS)
flags.DEFINE_string("profile", None, "step: a folder for a profiler trace, whose costliest "
                    "operations are printed.", flag_values=FLAGS)
flags.DEFINE_string("topology", "v5e:1x1", "compile: the TPU slice to compile for.",
                    flag_values=FLAGS)
flags.DEFINE_integer("batch_per_device", None, "compile: images per chip; by default the config's.",
                     lower_bound=1, flag_values=FLAGS)
flags.DEFINE_enum("images", "uint8", ("uint8", "bfloat16", "float32"),
                  "compile: dtype of the images that the step takes; floats are normalised.",
                  flag_values=FLAGS)
flags.DEFINE_enum("labels", "index", ("index", "onehot"),
                  "compile: form of the labels that the step takes.", flag_values=FLAGS)
flags.DEFINE_bool("json", False, "compile: print JSON, as the others always do.",
                  flag_values=FLAGS)
flags.DEFINE_integer("photos", 256, "input: number of JPEG files, generated or taken from the "
                     "config's data.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_multi_string("case", None, "input: measure only this case, one of those it prints.",
                          flag_values=FLAGS)
flags.DEFINE_bool("compare_init", False, "start: also time a compiled model.init.",
                  flag_values=FLAGS)
flags.DEFINE_string("child", None, "start: for the command's own use, KIND@TIME of a measured "
                    "process.", flag_values=FLAGS)


def main(words, overrides):
    benches = {"compile": _compile, "input": _input, "start": _start, "step": _step}
    if len(words) != 1 or words[0] not in benches:
        raise ConfigError(f"there is no bench {' '.join(words)!r}" if words else
                          "no bench is named", where="command line",
                          fix=f"imgcls bench {'|'.join(benches)}")
    benches[words[0]](overrides)


def _chosen(overrides) -> dict:
    """The config of --config, else of --model on synthetic images."""
    if FLAGS.config:
        return config.load(FLAGS.config, overrides).config
    import jax

    from imgcls_jax.assembly import measured
    from imgcls_jax.models import MODELS

    size = FLAGS.size or MODELS.facts(FLAGS.model)["image_size"]
    batch = FLAGS.batch or 8 * jax.device_count()
    return config.override(measured.plain(FLAGS.model, batch, size, FLAGS.precision), overrides)


# ---- compile ----------------------------------------------------------------------------------


def _compile(overrides):
    _flags.start(FLAGS)
    from imgcls_jax.bench import compiled, topology

    devices = topology.devices(FLAGS.topology)  # before anything asks JAX for a device
    from imgcls_jax.assembly import build, measured

    chosen = measured.for_slice(_chosen(overrides), len(devices), FLAGS.batch_per_device)
    facts = compiled.measure(build(chosen, devices=devices), images=FLAGS.images,
                             onehot=FLAGS.labels == "onehot")
    print(json.dumps(facts, indent=1) if FLAGS.json else _render(facts))


def _render(facts: dict) -> str:
    from imgcls_jax.cli import _compiled

    made = ", ".join(f"{k} {facts['versions'][k]}" for k in ("jax", "libtpu")
                     if k in facts["versions"])
    return "\n".join((
        f"{facts['model']}, {facts['images_per_device']:g} images on each of {facts['devices']} "
        f"{facts['device']}, {facts['dtype']}",
        *_compiled.lines(facts), f"compiled in {facts['compile_seconds']:.0f} s, {made}"))


# ---- input ------------------------------------------------------------------------------------


def _input(overrides):
    _flags.start(FLAGS)
    from imgcls_jax import environment
    from imgcls_jax.bench import inputs

    with inputs.pinned(), tempfile.TemporaryDirectory() as folder:
        sides, files = _of_config(_chosen(overrides)) if FLAGS.config else inputs.of_photos(
            Path(folder), FLAGS.photos, FLAGS.batch or 64, FLAGS.case or list(inputs.CASES))
        found = inputs.measure(sides, files, rounds=FLAGS.rounds)
    print(json.dumps({**found, **environment.environment()}, indent=1))


def _of_config(chosen: dict):
    """(sides, JPEG files) of a config's own data and transforms."""
    from imgcls_jax.assembly.inputs import chain, fed
    from imgcls_jax.bench import inputs
    from imgcls_jax.data.decoding.tensorflow import tensorflow
    from imgcls_jax.transforms import TRANSFORMS

    tensorflow()  # before a dataset imports it without our settings
    data = fed(chosen["data"], chosen["seed"])
    kinds = {"train": "transforms", "eval": "eval_transforms"}
    return inputs.of_data(
        data.source, {kind: getattr(data.options, kind) for kind in kinds},
        {kind: chain(chosen[key], TRANSFORMS, f"config.{key}") for kind, key in kinds.items()},
        FLAGS.photos, FLAGS.batch or 64)


# ---- start ------------------------------------------------------------------------------------


def _start(overrides):
    from imgcls_jax.__main__ import HUGE_PAGES
    from imgcls_jax.bench import start

    if FLAGS.child:
        kind, _, began = FLAGS.child.partition("@")
        report = functools.partial(start.report, began=float(began))
        _CHILDREN[kind](overrides, report)
        return
    words = [word for word in sys.argv[1:] if not word.startswith(("--cache", "--child"))]
    found = start.measure(words, FLAGS.rounds, unset=tuple(HUGE_PAGES))
    if FLAGS.compare_init:
        found |= start.child("init", words, "off", tuple(HUGE_PAGES))
    print(json.dumps(found, indent=1))


def _imports(overrides, report):
    from imgcls_jax.bench import start

    report(start.imports())


def _initialisation(overrides, report):
    from imgcls_jax.assembly import build
    from imgcls_jax.bench import start

    _flags.start(FLAGS)
    report(start.initialisation(build(_chosen(overrides))))


def _train(overrides, report):
    """`imgcls train` to the end of its first step."""
    from imgcls_jax.bench import start
    from imgcls_jax.cli import train

    start.call_after_first_step(report)
    settings = {name: FLAGS[name].value for name in ("coordinator", "processes", "process_id",
                                                     "cache")}
    given = [f"--{name}={value}" for name, value in settings.items() if value is not None]
    with tempfile.TemporaryDirectory() as workdir:
        train.FLAGS(["imgcls train", *given, f"--workdir={workdir}", "--quiet"])
        train.run(config.Loaded(_chosen(overrides), FLAGS.config or FLAGS.model, None, ""))


_CHILDREN = {"train": _train, "imports": _imports, "init": _initialisation}


# ---- step -------------------------------------------------------------------------------------


def _step(overrides):
    from imgcls_jax.bench import compare

    if FLAGS.beside:
        compare.share_device()  # before anything asks JAX for one
    _flags.start(FLAGS)
    chosen = _chosen(overrides)
    if not FLAGS.beside:
        found = _measured(chosen)
    else:
        recipe = _recipe(chosen)
        with compare.Child(FLAGS.beside_python or sys.executable) as child:
            found = _measured(chosen, child=child, recipe=recipe)
    print(json.dumps(found, indent=1))


def _measured(chosen: dict, **beside) -> dict:
    import jax

    from imgcls_jax.assembly import build
    from imgcls_jax.bench import step

    total_flops = None
    if jax.default_backend() == "gpu":
        total_flops = step.flops(build({**chosen, "mesh": {"data": 1}}, devices=step.cpu()))
    return step.measure(
        build(chosen), steps=FLAGS.steps, rounds=FLAGS.rounds, tolerance=FLAGS.probe_tolerance,
        profile=FLAGS.profile, total_flops=total_flops, **beside)


def _recipe(chosen: dict):
    """How the other side has to train; ConfigError for what it could not do in the same way."""
    import inspect

    from imgcls_jax.assembly import measured
    from imgcls_jax.bench import compare
    from imgcls_jax.models import MODELS
    from imgcls_jax.parallel import processes

    where = "imgcls bench step --beside"
    if FLAGS.config:
        raise ConfigError("a config has an optimizer, a loss and an input of its own", where=where,
                          fix="name only a model: --model=NAME")
    plain = measured.plain(FLAGS.model, chosen["batch_size"], chosen["data"]["size"],
                           FLAGS.precision)
    for key in plain:
        if key not in ("model", "step") and chosen[key] != plain[key]:
            raise ConfigError(f"config.{key} is changed, which the other side would not follow",
                              where=where, fix="override only config.model and config.step")
    compare.check(processes.compute_dtype(chosen["precision"]))
    arguments = inspect.signature(MODELS.bind(chosen["model"], "config.model")).parameters
    rates = {name: arguments[name].default for name in ("dropout", "drop_path")
             if name in arguments}
    schedule = chosen["schedule"]
    return compare.Recipe(
        learning_rate=schedule["base"] * chosen["batch_size"] / schedule["per"],
        momentum=chosen["optimizer"]["momentum"], weight_decay=chosen["weight_decay"]["value"],
        compiling=FLAGS.beside_compile, **rates)
