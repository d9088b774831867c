"""Finds a learning rate by trying increasing ones: imgcls lr --config=digits [--out=curve.png]

The range test of arXiv 1506.01186 (section 3.3): the learning rate rises from --low to --high by
equal factors, one optimizer step each. It ends early when the smoothed loss is not finite or is
four times its lowest value. Two rates are printed: where the loss falls fastest over the logarithm
of the rate, and a tenth of the rate with the lowest loss. They are starting points: the best rate
also depends on the optimizer, the batch size and the schedule. Nothing is written except --out.
"""

import json
import math
from pathlib import Path

from absl import flags

from imgcls_jax import durations
from imgcls_jax.cli import _data, _flags
from imgcls_jax.errors import ConfigError

FLAGS = _flags.verb()
_flags.define_config(FLAGS)
flags.DEFINE_float("low", 1e-6, "The first learning rate.", lower_bound=0.0, flag_values=FLAGS)
flags.DEFINE_float("high", 10.0, "The last learning rate.", lower_bound=0.0, flag_values=FLAGS)
flags.DEFINE_integer("steps", 200, "Number of steps.", lower_bound=20, flag_values=FLAGS)
flags.DEFINE_string("out", None, "File for a picture of the curve, such as curve.png.",
                    flag_values=FLAGS)
flags.DEFINE_bool("json", False, "Print JSON, with all rates and losses.", flag_values=FLAGS)

ROWS = 20


def main(words, overrides):
    loaded = _flags.load_config(FLAGS, words, overrides)
    if not 0 < FLAGS.low < FLAGS.high:
        raise ConfigError(f"--low={FLAGS.low} is not between 0 and --high={FLAGS.high}",
                          where="--low, --high", fix="give two rates above 0, the lower one first")
    from imgcls_jax.assembly import build
    from imgcls_jax.training import range_test

    if FLAGS.out:
        _data.keep_outside(loaded.config, Path(FLAGS.out), "--out")
    rates, losses = range_test.measure(
        build(_rising(loaded.config, FLAGS.low, FLAGS.high, FLAGS.steps)))
    if len(rates) < 3:
        raise ConfigError(f"the loss is not finite, or explodes, after {len(rates)} steps",
                          where=f"--low={FLAGS.low}", fix="give a lower one")
    smoothed = range_test.smooth(losses)
    found = range_test.choose(rates, smoothed)
    per = loaded.config["schedule"].get("per")
    scale = per / loaded.config["batch_size"] if per else 1.0  # schedule.base is for `per` examples
    found = {**found, "base": found["steepest"] * scale,
             "rates": rates, "losses": losses, "smoothed": smoothed}
    if FLAGS.out:
        draw(rates, smoothed, found, Path(FLAGS.out))
    if FLAGS.json:
        print(json.dumps(found))
        return
    print("\n".join(rows(rates, smoothed)))
    ended = (f"then the loss was not finite, or over {range_test.DIVERGED:.0f} times its lowest"
             if len(rates) < FLAGS.steps else "the end: if the loss has not risen, raise --high")
    print(f"up to {rates[-1]:.2e}, {ended}\n"
          f"steepest fall at {found['steepest']:.2e}, a tenth of the rate of the lowest loss "
          f"{found['tenth']:.2e}: try --config.schedule.base={found['base']:.1e}")


def _rising(given: dict, low: float, high: float, steps: int) -> dict:
    """The config of a run whose rate rises from low to high by equal factors."""
    given = durations.at_phase(given, 0)  # where training begins
    factor = (high / low) ** (1 / (steps - 1))
    return {**given, "total": {"steps": steps}, "schedule": {
        "name": "exponential", "base": low, "every": {"steps": 1}, "factor": factor},
        "ema": None, "evals": {}, "stop": None,
        "checkpoint": {**given["checkpoint"], "best": None}}


def rows(rates: list, losses: list) -> list[str]:
    """The curve as text: a bar for the loss at each of about ROWS rates."""
    stride = max(1, len(rates) // ROWS)
    top = max(losses[0], min(losses)) * 1.5
    lines = [f"{'rate':>9} {'loss':>9}"]
    for rate, loss in list(zip(rates, losses, strict=True))[::stride]:
        bar = "#" * round(40 * min(loss, top) / top)
        lines.append(f"{rate:9.2e} {loss:9.4f} {bar}{'>' if loss > top else ''}")
    return lines


def draw(rates: list, losses: list, found: dict, path: Path):
    """Writes a picture of loss over rate, with a line at each of the rates found."""
    import numpy as np
    from PIL import Image, ImageDraw

    from imgcls_jax.training.workdir import failure

    width, height, margin = 720, 400, 50
    x = np.log10(rates)
    low, high = min(losses), min(max(losses), 2 * losses[0])

    def place(rate, loss):
        share = (math.log10(rate) - x[0]) / (x[-1] - x[0])
        up = (min(loss, high) - low) / ((high - low) or 1.0)
        return (margin + share * (width - 2 * margin), height - margin - up * (height - 2 * margin))

    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    for name, color in (("steepest", "#c03030"), ("tenth", "#3060c0")):
        rate = max(found[name], rates[0])
        left, _ = place(rate, low)
        pen.line([(left, margin), (left, height - margin)], fill=color)
        pen.text((left + 4, margin + 14 * (name == "tenth")), f"{name} {found[name]:.1e}",
                 fill=color)
    pen.line([place(*point) for point in zip(rates, losses, strict=True)], fill="black", width=2)
    for power in range(math.ceil(x[0]), math.floor(x[-1]) + 1):
        left, bottom = place(10.0**power, low)
        pen.line([(left, bottom), (left, bottom + 5)], fill="black")
        pen.text((left - 12, bottom + 8), f"1e{power}", fill="black")
    for loss in (low, high):
        pen.text((4, place(rates[0], loss)[1] - 5), f"{loss:.3g}", fill="black")
    pen.text((width // 2 - 40, height - 18), "learning rate", fill="black")
    pen.text((4, 8), "loss, smoothed", fill="black")
    try:
        picture.save(path)
    except OSError as error:
        raise failure(error, path) from error
    except ValueError as error:  # the ending is not that of a format
        raise ConfigError(str(error), where=f"--out={path}", fix="end it with .png") from error
