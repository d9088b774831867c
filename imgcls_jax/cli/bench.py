"""Measures: imgcls bench step --model=resnet50 --batch=64, imgcls bench start [--config=digits],
imgcls bench compile --config=imagenet/resnet:resnet50 --topology=v5e:1x1 --batch_per_device=256,
imgcls bench input [--config=...]

compile: what the TPU compiler makes of the step, without a TPU; needs the extra "tpu". step: one
training step on data that is already on the device; needs no TensorFlow, no clu and no
ml_collections; with --beside=timm in turns with timm's model in torch, on one device. start: time
to the first step, cold and warm, by what it is spent on. input: processor time of the input on one
core, beside raw decoding of the same JPEGs; needs the extra "bench".
"""

import importlib

from absl import flags

from imgcls_jax import config
from imgcls_jax.cli import _flags
from imgcls_jax.errors import ConfigError

FLAGS = _flags.verb()
_flags.define_config(FLAGS)
_flags.define_start(FLAGS)
flags.DEFINE_string("model", "resnet50", "Model, where no config is named.",
                    flag_values=FLAGS)
flags.DEFINE_integer("batch", None, "Images per step.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_integer("size", None, "Pixels; by default the model's.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_string("precision", "auto", "f32 | bf16 | f64 | auto.",
                    flag_values=FLAGS)
flags.DEFINE_integer("steps", 20, "Steps to time in a round.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "Rounds of step and start; the median counts.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_enum("beside", None, ("timm",), "step: whose model takes turns with ours.",
                  flag_values=FLAGS)
flags.DEFINE_string("beside_python", None, "step: the Python that has torch and timm; by default "
                    "this one.", flag_values=FLAGS)
flags.DEFINE_enum("beside_compile", "default", ("default", "max-autotune", "off"),
                  "step: mode of torch.compile, or off.", flag_values=FLAGS)
flags.DEFINE_float("probe_tolerance", None, "step: a round counts if the time of a probe, a "
                   "product before and behind it, is this near to the median; by default 0.03, "
                   "on a CPU 0.1.", lower_bound=0.0, flag_values=FLAGS)
flags.DEFINE_string("profile", None, "step: a folder for a trace, whose costliest operations are "
                    "told.", flag_values=FLAGS)
flags.DEFINE_string("topology", "v5e:1x1", "compile: a TPU slice.", flag_values=FLAGS)
flags.DEFINE_integer("batch_per_device", None, "compile: images per chip; by default the config's.",
                     lower_bound=1, flag_values=FLAGS)
flags.DEFINE_enum("images", "uint8", ("uint8", "bfloat16", "float32"),
                  "compile: what the step is fed; floats are normalised images.",
                  flag_values=FLAGS)
flags.DEFINE_enum("labels", "index", ("index", "onehot"), "compile: what the step is fed.",
                  flag_values=FLAGS)
flags.DEFINE_bool("json", False, "compile: print JSON, as the others always do.",
                  flag_values=FLAGS)
flags.DEFINE_integer("photos", 256, "input: JPEG files that are made, or read of the config's "
                     "data.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_multi_string("case", None, "input: measure this case alone; may be repeated.",
                          flag_values=FLAGS)
flags.DEFINE_bool("compare_init", False, "start: also time a compiled model.init.",
                  flag_values=FLAGS)
flags.DEFINE_string("child", None, "start: internal, the measured process.",
                    flag_values=FLAGS)

BENCHES = ("compile", "input", "start", "step")


def main(words, overrides):
    if len(words) != 1 or words[0] not in BENCHES:
        raise ConfigError(f"{' '.join(words) or 'nothing'} is no bench", where="command line",
                          fix=f"imgcls bench {'|'.join(BENCHES)}")
    return importlib.import_module(f"imgcls_jax.cli._bench_{words[0]}").main(overrides)


def chosen(overrides) -> dict:
    """The config of --config, else of --model on synthetic images."""
    if FLAGS.config:
        return config.load(FLAGS.config, overrides).config
    import jax

    from imgcls_jax.models import MODELS

    size = FLAGS.size or MODELS.facts(FLAGS.model)["image_size"]
    batch = FLAGS.batch or 8 * jax.device_count()
    return config.override(plain_config(FLAGS.model, batch, size, FLAGS.precision), overrides)


def plain_config(model: str, batch: int, size: int, precision: str) -> dict:
    """SGD with momentum on synthetic images: a config that no ml_collections has to read."""
    return {
        "seed": 0, "data": {"name": "synthetic", "size": size, "classes": 1000},
        "transforms": (), "eval_transforms": (), "device_transforms": (),
        "model": {"name": model}, "init": None, "task": "multiclass",
        "loss": {"name": "softmax"}, "step": {"name": "supervised"}, "batch_size": batch,
        "total": {"steps": 1000}, "optimizer": {"name": "sgd", "momentum": 0.9},
        "schedule": {"name": "constant", "base": 0.1, "per": 256},
        "weight_decay": {"value": 1e-4, "mode": "coupled"}, "clip": None, "freeze": (),
        "ema": None, "precision": precision, "mesh": {"data": -1}, "evals": {},
        "checkpoint": {"every": {"steps": 1000}}, "stop": None, "log": {"every": {"steps": 50}}}
