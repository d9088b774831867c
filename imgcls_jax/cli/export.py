"""Writes a trained model for other programs: imgcls export --workdir=W --format=safetensors --out=F

--layout chooses the codebase whose tensor names and axes the file has, if that codebase has the
model: torchvision, timm or transformers with --format=safetensors, npz (Google's published files,
which vision_transformer and big_vision load) or big_vision with --format=npz.
"""

from pathlib import Path

from absl import flags

from imgcls_jax.cli import _flags
from imgcls_jax.errors import ConfigError

FLAGS = _flags.verb()
_flags.define_start(FLAGS)
flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=FLAGS)
flags.DEFINE_string("step", "latest", "Which checkpoint: a step, 'latest' or 'best'.",
                    flag_values=FLAGS)
flags.DEFINE_string("format", "safetensors", "Format of the file (imgcls list exporters).",
                    flag_values=FLAGS)
flags.DEFINE_string("layout", None, "Names and axes of the tensors, as in torchvision (the default "
                    "of safetensors), timm, transformers, npz (that of npz) or big_vision.",
                    flag_values=FLAGS)
flags.DEFINE_string("out", None, "File to write.", flag_values=FLAGS)


def main(words, overrides):
    if not FLAGS.workdir or not FLAGS.out:
        missing = "out" if FLAGS.workdir else "workdir"
        raise ConfigError(f"--{missing} is not given", where="command line",
                          fix="imgcls export --workdir=W --format=safetensors --out=FILE")
    _flags.start(FLAGS)
    from imgcls_jax import predict
    from imgcls_jax.exporters import EXPORTERS
    from imgcls_jax.training.workdir import failure

    exporter = EXPORTERS.get(FLAGS.format, "--format")
    model, out = predict.load(FLAGS.workdir, step=FLAGS.step), Path(FLAGS.out)
    try:
        exporter(model.module.apply, model.variables, model.spec, out,
                 channels=model.preprocessing["channels"],
                 **({"layout": FLAGS.layout} if FLAGS.layout else {}))
    except OSError as error:
        raise failure(error, out) from error
    print(f"{model.spec.name} in {out}, {out.stat().st_size:,} bytes, read back and compared")
