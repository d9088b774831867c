"""Measures published weights on ImageNet: imgcls reproduce resnet50/imagenet1k_v2 --data=DIR

DIR is a folder of images (CLASS/*.jpg or val/CLASS/*.jpg, classes by their WordNet ids) or the
data_dir of TFDS with imagenet2012 prepared. Prints the published and the measured accuracy and a
verdict, and writes them to a JSON file.
"""

import json
import re
import time
from pathlib import Path

from absl import flags

from imgcls_jax.cli import _flags, _published
from imgcls_jax.errors import ConfigError

FLAGS = _flags.verb()
_flags.define_start(FLAGS)
flags.DEFINE_string("data", None, "Folder of the images, or data_dir of TFDS.", flag_values=FLAGS)
flags.DEFINE_string("out", None, "The JSON file; by default runs/reproduce_NAME.json.",
                    flag_values=FLAGS)
flags.DEFINE_bool("json", False, "Print the JSON.", flag_values=FLAGS)

TOLERANCE = 0.1  # points: more than decoding and resizing like Pillow's can change


def main(words, overrides):
    if len(words) != 1 or not FLAGS.data:
        raise ConfigError("--data is not given" if words and not FLAGS.data else
                          "give the name of exactly one set of weights", where="command line",
                          fix="imgcls reproduce MODEL/TAG --data=DIR (imgcls weights list)")
    from imgcls_jax.pretrained import catalogue

    model, tag, published = catalogue.find(words[0], "command line")
    name = f"{model}/{tag}"
    _flags.start(FLAGS)
    from imgcls_jax.training import workdir

    chosen = _published.make(model, name, overrides)
    chosen["data"] |= source(Path(FLAGS.data).expanduser())
    record = {"name": name, "published": {"top1": published.top1, "top5": published.top5},
              **measure(chosen, name)}
    record["verdict"] = verdict(published.top1, record["measured"])
    out = Path(FLAGS.out or f"runs/reproduce_{re.sub(r'[^A-Za-z0-9.]+', '_', name)}.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise workdir.failure(error, out) from error
    workdir.write_json(out, record)
    print(json.dumps(record, indent=1) if FLAGS.json else say(record, out))


def source(place: Path) -> dict:
    """What to set in config.data to evaluate on all images of a folder."""
    if (place / "imagenet2012").is_dir():
        return {"data_dir": str(place)}
    for level in ("val", "validation"):
        place = place / level if (place / level).is_dir() else place
    # Not split: all images are one split, which a folder calls train.
    return {"name": "folder", "dir": str(place), "val_fraction": 0.0, "eval": "train"}


def measure(chosen: dict, name: str) -> dict:
    """Top-1 and top-5 in percent over the whole split with 95% intervals, config and versions."""
    from imgcls_jax import config, datasets, environment, predict
    from imgcls_jax.assembly import build
    from imgcls_jax.metrics._intervals import wilson

    run = build(chosen)
    model = predict.of_file(name, chosen)
    if len(model.labels) != len(run.source.classes):
        raise ConfigError(f"the data has {len(run.source.classes)} classes, the weights "
                          f"{len(model.labels)}", where=f"--data={FLAGS.data}",
                          fix="give the whole validation set, a folder for every class")
    (evaluation,) = run.evaluations.values()
    began = time.perf_counter()
    values = evaluation.run(model.variables)
    seconds = time.perf_counter() - began
    images = datasets.size(run.source, chosen["data"].get("eval", "validation"))
    scores = {key: values[key] for key in ("top1", "top5") if key in values}
    intervals = {key: wilson(value * images, images, 0.95) for key, value in scores.items()}
    return {"measured": {**{key: 100 * value for key, value in scores.items()},
                         "loss": values["loss"], "images": images,
                         "interval": {key: (100 * low, 100 * high)
                                      for key, (low, high) in intervals.items()}},
            "config": chosen, "config_digest": config.digest(chosen),
            "finished": time.strftime("%Y-%m-%d"), "images_per_second": images / seconds,
            **environment.environment()}


def verdict(published: float | None, measured: dict) -> str:
    """"reproduced" within TOLERANCE; "consistent" if the published value is in the 95% interval,
    which is wide for few images; else "not reproduced"."""
    if published is None:
        return "no published value"
    low, high = measured["interval"]["top1"]
    if abs(measured["top1"] - published) <= TOLERANCE:
        return "reproduced"
    return "consistent" if low <= published <= high else "not reproduced"


def say(record: dict, out: Path) -> str:
    measured, published = record["measured"], record["published"]
    lines = [f"{record['name']} on {measured['images']:,} images: {record['verdict']}"]
    for key in ("top1", "top5"):
        if key in measured:
            low, high = measured["interval"][key]
            said = "-" if published[key] is None else f"{published[key]:.3f}"
            lines.append(f"{key}  published {said}  measured {measured[key]:.3f}  95% {low:.3f} "
                         f"to {high:.3f}")
    return "\n".join([*lines, str(out)])
