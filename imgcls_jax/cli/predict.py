"""Labels images with a trained model: imgcls predict --workdir=W a.jpg photos/ --top=5

imgcls predict --weights=efficientnet_lite0/imagenet1k a.jpg photos/
imgcls predict --weights=FILE.pth --model=resnet50 a.jpg

imgcls predict --weights=FILE --model=siglip_b16 --text_embeddings=texts.npz a.jpg

Weights are those of `imgcls weights list` that are on this machine (`imgcls weights get`), with
the preprocessing that they were measured with; or another file, with that of its model. With
--text_embeddings an image encoder names any classes: the file has an array for each class, under
its name, of what the text encoder of these weights makes of one or several texts about it.

Folders are searched for images by the endings of names, but not what is hidden; `-` reads paths
from the standard input, one per line. A file that cannot be read is reported in its place and does
not stop the others. The command ends with code 3 if a file does not exist, or none can be read.
"""

import csv
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import flags

from imgcls_jax import config, untrusted
from imgcls_jax.cli import _flags
from imgcls_jax.errors import ConfigError, DataError, printable

FLAGS = _flags.verb()
_flags.define_start(FLAGS)
flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=FLAGS)
flags.DEFINE_string("weights", None, "Published weights (imgcls weights list) or a file, in place "
                    "of a workdir.", flag_values=FLAGS)
flags.DEFINE_string("model", None, "The model of a file that is not a published one (imgcls list "
                    "models).", flag_values=FLAGS)
flags.DEFINE_string("text_embeddings", None, "With --weights of an image encoder: file of an array "
                    "f[D] or f[texts,D] for each class, under its name.", flag_values=FLAGS)
flags.DEFINE_string("step", "latest", "Which checkpoint: a step, 'latest' or 'best'.",
                    flag_values=FLAGS)
flags.DEFINE_integer("top", None, "Labels per image, at most; by default 5, for a multilabel "
                     "model all.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_string("threshold", None, "For multilabel and binary models: the least probability "
                    "with which a label (or the positive class, the second in labels.json) is "
                    "given, by default 0.5; or the name of an evaluation of the run that has found "
                    "one for each class.",
                    flag_values=FLAGS)
flags.DEFINE_integer("batch", 64, "Images at a time.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_enum("format", "table", ("table", "json", "jsonl", "csv"), "How to print.",
                  flag_values=FLAGS)
flags.DEFINE_bool("strict", False, "End with code 3 if any file cannot be read.",
                  flag_values=FLAGS)


def main(words, overrides):
    _check_source()
    if overrides:
        raise ConfigError(f"predict does not take --config.{overrides[0][0]}", where="command line",
                          fix="the preprocessing is that of the checkpoint or the weights")
    paths = list(find(words))
    if not paths:
        raise ConfigError(f"there are no images in {', '.join(words)}" if words else
                          "no images are named", where="command line",
                          fix="imgcls predict --workdir=W FILE or FOLDER ...")
    _flags.start(FLAGS)
    from imgcls_jax import predict

    model = (predict.of_texts(FLAGS.weights, FLAGS.text_embeddings, FLAGS.model)
             if FLAGS.text_embeddings else predict.of_weights(FLAGS.weights, FLAGS.model)
             if FLAGS.weights else predict.load(FLAGS.workdir, step=FLAGS.step))
    if model.kind == "multiclass" and FLAGS.threshold is not None:
        raise ConfigError("--threshold does not apply to a multiclass model", where="--threshold",
                          fix="leave it out; --top sets the number of labels")
    choose = chooser(model.kind, FLAGS.top, _threshold(FLAGS.threshold, Path(FLAGS.workdir or ""),
                                                         model.step))
    rows = (row for start in range(0, len(paths), FLAGS.batch)
            for row in label(model, paths[start:start + FLAGS.batch], choose, FLAGS.batch))
    failed = missing = 0
    columns = 0 if model.kind == "multilabel" else len(choose(np.ones(len(model.labels))))
    for row in show(rows, FLAGS.format, columns):
        failed += not row["ok"]
        missing += not row["ok"] and not os.path.exists(row["file"])
    return DataError.code if missing or failed == len(paths) or (failed and FLAGS.strict) else 0


def _check_source():
    """ConfigError unless the flags name one model, and fit how it is named."""
    if bool(FLAGS.workdir) == bool(FLAGS.weights):
        raise ConfigError("--workdir and --weights are both given" if FLAGS.workdir else
                          "neither --workdir nor --weights is given", where="command line",
                          fix="give the --workdir of a run, or as --weights a name of `imgcls "
                              "weights list` or a file")
    if FLAGS.weights and (Path(FLAGS.weights) / "checkpoints").is_dir():
        raise ConfigError(f"--weights={FLAGS.weights} is a workdir", where="command line",
                          fix=f"--workdir={FLAGS.weights}")
    for name, why in (("model", "a workdir knows its model"),
                      ("text_embeddings", "a run has classes of its own")):
        if FLAGS.workdir and FLAGS[name].value:
            raise ConfigError(f"--{name} goes with --weights", where="command line",
                              fix=f"leave it out: {why}")
    for name, why in (("step", "published weights are of no run"),
                      ("threshold", "their labels are ranked, and --top sets their number")):
        if FLAGS.weights and FLAGS[name].present:
            raise ConfigError(f"--{name} goes with --workdir", where="command line",
                              fix=f"leave it out: {why}")


def _threshold(text: str | None, workdir: Path, step: int | None):
    """The number that the text is, or f64[K] of the evaluation of that name, which must have been
    found at this step."""
    try:
        number = 0.5 if text is None else float(text)
    except ValueError:
        path = workdir / "evaluations" / f"{text}.npz"
        try:
            with untrusted.opened(path) as opened, np.load(opened) as file:
                found, of_step = file["thresholds"], file.get("step", step)
        except Exception as error:  # of what is no such file, any
            raise ConfigError(f"there are no thresholds of an evaluation {text!r}",
                              where=f"--threshold ({path})",
                              fix="give a number from 0 to 1, or name one of the evaluator "
                                  "`thresholds`: imgcls eval --workdir=W "
                                  "--config.evals.NAME=\"{'name': 'thresholds'}\"") from error
        if not np.isfinite(found).all():
            raise ConfigError(f"the thresholds of {text!r} are not finite numbers",
                              where=f"--threshold ({path})",
                              fix="evaluate a checkpoint whose probabilities are finite") from None
        if of_step != step:  # other weights give other probabilities
            raise ConfigError(f"the thresholds of {text!r} were found at step {of_step}, and the "
                              f"model is that of step {step}", where=f"--threshold ({path})",
                              fix=f"evaluate this one: imgcls eval --workdir={workdir} "
                                  f"--step={step}; or take that one: --step={of_step}") from None
        return found
    if not 0 <= number <= 1:
        raise ConfigError(f"--threshold={number} is not a probability", where="command line",
                          fix="give a number from 0 to 1")
    return number


def find(words) -> Iterator[Path]:
    """The files that words of the command line mean; those of a folder by name, without what is
    hidden or left by a system."""
    from imgcls_jax.data.decoding import pillow
    from imgcls_jax.datasets.folder import CLUTTER

    def hidden(path: Path) -> bool:
        return any(part.startswith(".") or os.fsencode(part.lower()) in CLUTTER
                   for part in path.parts)

    for word in words:
        if word == "-":
            yield from (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
        elif Path(word).is_dir():
            files = sorted(path for path in Path(word).rglob("*")
                           if not hidden(path.relative_to(word)) and path.is_file())
            yield from (path for path in files if path.suffix.lower() in pillow.suffixes())
            heic = [path for path in files if path.suffix.lower() in pillow.SUFFIXES["HEIF"]]
            if heic and "HEIF" not in pillow.FORMATS:
                warnings.warn(f"{word}: {len(heic)} HEIC files are left out, such as {heic[0]}; "
                              "they are read with pip install pillow-heif", stacklevel=2)
        else:
            yield Path(word)


def chooser(kind: str, top: int | None, threshold) -> Callable:
    """A function: probabilities f32[K] -> numbers of the classes to print, most probable first.

    threshold: a number, or one for each output.
    """
    def choose(row):
        if kind == "binary":
            return [int(row[1] >= np.ravel(threshold)[0])]
        order = row.argsort()[::-1]
        if kind == "multilabel":
            return order[(row >= threshold)[order]][:top]
        return order[:top or 5]

    return choose


def label(model, paths: list[Path], choose: Callable, batch: int) -> list[dict]:
    """A row per file: {"file", "ok", "topk": [{"id", "label", "prob"}], "error"}."""
    try:
        probabilities = model(paths, batch_size=batch)
    except (DataError, OSError) as error:
        if len(paths) > 1:  # one of them is bad: each by itself
            return [row for path in paths for row in label(model, [path], choose, 1)]
        what = error.what if isinstance(error, DataError) else error.strerror
        what = what if paths[0].exists() else "there is no such file"
        return [{"file": str(paths[0]), "ok": False, "topk": [], "error": what}]
    rows = []
    for path, row in zip(paths, probabilities, strict=True):
        rows.append({"file": str(path), "ok": True, "error": None,
                     "topk": [{"id": int(i), "label": model.labels[i], "prob": float(row[i])}
                              for i in choose(row)]})
    return rows


def show(rows, form: str, columns: int) -> Iterator[dict]:
    """Prints each row as soon as it is there, and yields it.

    columns: labels of each row, in CSV; 0 where their number varies and `|` separates them.
    """
    out = csv.writer(sys.stdout)
    if form == "csv":
        out.writerow(["file", "error", *(f"{what}{i + 1}" for i in range(columns)
                                         for what in ("label", "prob"))]
                     if columns else ["file", "error", "labels", "probs"])
    kept = []
    for row in rows:
        if form == "jsonl":
            print(config.to_json(row, indent=None))
        elif form == "csv":
            cells = [(_cell(hit["label"]), f"{hit['prob']:.6f}") for hit in row["topk"]]
            if not columns:
                cells = [["|".join(part) for part in zip(*cells, strict=True)]]
            cells = [pair or ("", "") for pair in cells] + [("", "")] * (columns - len(cells))
            out.writerow([_cell(row["file"]), _cell(row["error"] or ""),
                          *(cell for pair in cells for cell in pair)])
        elif form == "json":
            kept.append(row)
        elif row["ok"]:
            hits = ", ".join(f"{hit['label']} {hit['prob']:.1%}" for hit in row["topk"])
            print(printable(f"{row['file']}: {hits or 'no label'}"))
        else:
            print(printable(f"{row['file']}: cannot be read: {row['error']}"))
        yield row
    if form == "json":
        print(config.to_json(kept))


def _cell(text: str) -> str:
    """The text of a CSV cell, quoted where a spreadsheet would run it as a formula."""
    return printable(f"'{text}" if text[:1] in tuple("=+-@\t\r") else text)
