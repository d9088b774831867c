"""Makes a workdir of published weights: imgcls convert --model=resnet50 --weights=FILE --workdir=W

FILE is a name of `imgcls weights list`, or a file: .pth or .bin of torch.save (read without torch),
.safetensors, .npz, or .h5 of Keras (.weights.h5 or the older format, read with h5py alone). Its
layout may be that of torchvision, timm, Hugging Face transformers (ViT, DeiT, ResNet, ConvNeXt),
Google's .npz (ViT and AugReg, Mixer, BiT) or keras.applications, as far as the model has it.

The workdir works with eval, predict, export and config.init. The preprocessing is the published one
where the file or name is known; for other Keras files it is that of keras.applications for the
model. Arguments of the model that the file implies, such as the tanh form of GELU, are set and
printed; set others as in a config: --config.model.norm_group=32.
"""

from pathlib import Path

from absl import flags

from imgcls_jax import untrusted
from imgcls_jax.cli import _flags, _published, _workdir
from imgcls_jax.errors import ConfigError, printable

FLAGS = _flags.verb()
flags.DEFINE_string("model", None, "The model of the weights (imgcls list models).",
                    flag_values=FLAGS)
flags.DEFINE_string("weights", None, "A file, or a name of imgcls weights list.",
                    flag_values=FLAGS)
flags.DEFINE_string("workdir", None, "The new workdir.", flag_values=FLAGS)
flags.DEFINE_string("labels", None, "File of class names, one per line; by default those of "
                    "ImageNet for 1,000 classes, else numbers.", flag_values=FLAGS)
flags.DEFINE_integer("size", None, "Image size in pixels; by default as published, else that of "
                     "the model.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("resize", None, "Short side before the center crop; by default as published, "
                     "else 8/7 of the size.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_string("interpolation", None, "Interpolation of that resizing; by default as "
                    "published, else bilinear.", flag_values=FLAGS)
flags.DEFINE_integer("channels", 3, "Channels of the images: 1 or 3.", flag_values=FLAGS)


def main(words, overrides):
    for name in ("model", "weights", "workdir"):
        if not FLAGS[name].value:
            raise ConfigError(f"--{name} is not given", where="command line",
                              fix="imgcls convert --model=NAME --weights=FILE --workdir=W")
    workdir = Path(FLAGS.workdir)
    _workdir.check_new(workdir)
    chosen = _published.make(FLAGS.model, FLAGS.weights, overrides, size=FLAGS.size,
                             resize=FLAGS.resize, interpolation=FLAGS.interpolation,
                             channels=FLAGS.channels)
    print(convert(chosen, FLAGS.weights, workdir, labels=_labels(FLAGS.labels)))


def _labels(path: str | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        untrusted.check(path)
        text = Path(path).read_text(encoding="utf-8-sig")
        return tuple(text.removesuffix("\n").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the labels cannot be read: {error}", where=path,
                          fix="give a text file with one class name per line") from error


def convert(chosen: dict, weights: str, workdir: Path, *, labels=None) -> str:
    """Writes the workdir; gives a line that says what it did."""
    from imgcls_jax import environment, predict, tree
    from imgcls_jax.datasets import DATASETS

    model = predict.of_file(weights, chosen)
    classes = len(model.labels)
    imagenet = DATASETS.get("imagenet2012")().classes
    labels = labels or (imagenet if classes == len(imagenet) else model.labels)
    if len(labels) != classes:
        raise ConfigError(f"the file has {len(labels)} labels, the model {classes} classes",
                          where="--labels", fix="give a name for every class, one per line")
    _workdir.make(workdir, model.variables, {
        "config": chosen, "classes": labels, "model": model.spec.name,
        "preprocessing": model.preprocessing, "versions": environment.versions(),
        "stopped": f"converted from {Path(weights).name}"})
    arguments = "".join(f", {k}={v}" for k, v in chosen["model"].items() if k != "name")
    count = tree.count(model.variables["params"])
    return printable(f"{model.spec.name}{arguments}, {count:,} parameters, {classes} classes, "
                     f"from {weights}, in {workdir}")
