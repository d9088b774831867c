"""Writes the tables of the front page and of docs/models.md from the registry, the catalogue of
published weights and the records under experiments/.

python -m docs.tables        # in a checkout; tests/docs/test_tables.py fails where one is stale

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a function here.
"""

import json
import re
import statistics
from collections import Counter
from pathlib import Path

from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import catalogue

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "experiments"
PAGES = ("README.md", "docs/models.md")
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FAMILIES = {  # file of imgcls_jax/models/ -> what the field calls it
    "alexnet": "AlexNet",
    "bit": "BiT (ResNet v2)",
    "convnext": "ConvNeXt",
    "convnextv2": "ConvNeXt V2",
    "deit": "DeiT, DeiT III",
    "densenet": "DenseNet",
    "dinov2": "DINOv2",
    "dinov3": "DINOv3",
    "efficientnet": "EfficientNet",
    "efficientnet_lite": "EfficientNet-Lite",
    "efficientnet_v2": "EfficientNetV2",
    "googlenet": "GoogLeNet",
    "inception": "Inception v3",
    "keras_resnet": "ResNet of Keras",
    "maxvit": "MaxViT",
    "mixer": "MLP-Mixer",
    "mnasnet": "MNASNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3": "MobileNetV3",
    "regnet": "RegNet",
    "resnet": "ResNet, ResNeXt, wide ResNet",
    "siglip": "SigLIP",
    "swin": "Swin",
    "swin_v2": "Swin v2",
    "seresnet": "SE-ResNet, ResNet-D",
    "shufflenet_v2": "ShuffleNetV2",
    "squeezenet": "SqueezeNet",
    "vgg": "VGG",
    "vit": "Vision Transformer",
}
PUBLISHERS = {  # layout of a file -> who publishes such files
    "torchvision": "torchvision", "timm": "timm", "transformers": "transformers", "npz": "Google",
    "big_vision": "big_vision", "facebook": "facebookresearch", "microsoft": "Microsoft",
    "keras": "Keras",
    "efficientnet_pytorch": "EfficientNet-Lite-PyTorch"}
SOURCES = {"tv": "torchvision", "timm": "timm", "hf": "transformers", "npz": "npz",
           "bv": "big_vision", "keras": "keras"}  # prefix of a parity case -> layout


def main():
    for page in PAGES:
        path = ROOT / page
        path.write_text(fill(path.read_text()))


def fill(text: str) -> str:
    """The page with every generated table written again."""
    made = {function.__name__: function for function in (models, results, variants)}
    return BLOCK.sub(lambda found: found[1] + made[found[2]]() + "\n" + found[3], text)


# ---- models ---------------------------------------------------------------------------------


def models() -> str:
    """A row per family: variants, sizes, weights that can be read, parity that was shown."""
    families: dict[str, list[str]] = {}
    for name in MODELS.names():
        families.setdefault(MODELS.get(name).__module__.rpartition(".")[2], []).append(name)
    compared, stepped = _parity("table.json"), _parity("training.json")
    rows = []
    for family, names in sorted(families.items(), key=lambda item: FAMILIES[item[0]].lower()):
        ordered = sorted(names, key=lambda name: MODELS.facts(name)["params"])
        least, most = (MODELS.facts(name)["params"] for name in (ordered[0], ordered[-1]))
        size = _millions(least) + (f" to {_millions(most)}" if len(names) > 1 else "")
        read = dict.fromkeys(PUBLISHERS[layout] for name in names
                             for layout in MODELS.facts(name).get("layouts", {})
                             if layout in PUBLISHERS)
        published = sum(len(catalogue.weights(name)) for name in names)
        checked = Counter(PUBLISHERS[layout] for name in names
                          for layout in compared.get(name, ()))
        steps = sum(len(stepped.get(name, ())) for name in names)
        rows.append((f"[{FAMILIES[family]}](imgcls_jax/models/{family}.py)", len(names), size,
                     published or "", ", ".join(read),
                     ", ".join(f"{publisher} {count}" for publisher, count in checked.items()),
                     steps or ""))
    return _table(("family", "variants", "parameters", "published weights", "reads files of",
                   "logits equal to", "training steps equal"), rows, "lrrrllr")


def variants() -> str:
    """A row per registered model."""
    compared, stepped = _parity("table.json"), _parity("training.json")
    rows = []
    for name in MODELS.names():
        facts = MODELS.facts(name)
        rows.append((f"`{name}`", f"{facts['params']:,}", facts["image_size"],
                     " ".join(f"`{tag}`" for tag in catalogue.weights(name)),
                     ", ".join(PUBLISHERS[layout] for layout in compared.get(name, ())),
                     ", ".join(PUBLISHERS[layout] for layout in stepped.get(name, ()))))
    return _table(("model", "parameters", "pixels", "published weights", "logits equal to",
                   "training step equal to"), rows, "lrrlll")


def _parity(record: str) -> dict[str, list[str]]:
    """Model -> layouts of the publishers whose numbers it gives, within what is allowed."""
    found: dict[str, dict] = {}
    for row in _read(f"parity/{record}"):
        if row.get("error", row.get("gradients")) <= row.get("allowed", 1e-4):
            layout = SOURCES[row["reference"].partition(":")[0]]
            found.setdefault(row["model"], {})[layout] = None
    return {name: list(layouts) for name, layouts in found.items()}


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count < 1e9 else f"{count / 1e9:.2f} G"


# ---- results --------------------------------------------------------------------------------


def results() -> str:
    """What was measured, with what it is to be compared with, and where the record is."""
    return _table(("question", "here", "to compare", "record"),
                  [*_accuracy(), *_agreement(), *_speed()], "lrll")


def _accuracy() -> list[tuple]:
    digits, torch = _read("sweeps/digits.json")["runs"], _read("parity/torch_training.json")["runs"]
    hog = _read("sweeps/hog.json")["eval"]["validation"]["top1"]
    transfer, photos = _read("sweeps/transfer.json"), _read("sweeps/photos.json")
    mnist = _read("sweeps/mnist5k.json")

    def of(rows, **wanted):
        return _spread([row["top1"] for row in rows
                        if all(row[key] == value for key, value in wanted.items())])

    return [
        ("Handwritten digits, 8 x 8 pixels, ResNet-20: top-1", of(digits, variant="resnet", fold=0),
         "", _link("sweeps/digits.json")),
        ("the same, a small ViT: top-1", of(digits, variant="vit", fold=0), "",
         _link("sweeps/digits.json")),
        *((f"4,000 images of MNIST, {what}: top-1", of(mnist, arm=arm), "",
           _link("sweeps/mnist5k.md")) for arm, what in (
               ("resnet", "a narrow ResNet-20"), ("vit", "a small ViT"),
               ("mixer", "a small MLP-Mixer"))),
        ("Drawn scenes, 10 classes, 200 images each, a narrow ResNet-18: top-1",
         of(torch, side="ours"), f"{of(torch, side='torch')} in torch with the same recipe",
         _link("parity/torch_training.json")),
        ("the same scenes, gradient histograms and a linear SVM: top-1", f"{100 * hog:.1f} %", "",
         _link("sweeps/hog.json")),
        ("The other 10 classes, 20 images each, fine-tuned: top-1", of(transfer, arm="finetune"),
         f"{of(transfer, arm='scratch')} from scratch", _link("sweeps/transfer.json")),
        ("12 photos as classes, 10 patches of each, the head of EfficientNet-Lite0: top-1",
         of(photos, arm="probe"), f"{of(photos, arm='scratch')}, a ResNet-18 from scratch",
         _link("sweeps/photos.md"))]


def _agreement() -> list[tuple]:
    logits, steps = _read("parity/table.json"), _read("parity/training.json")
    references = {row["reference"] for row in logits}
    good = {row["reference"] for row in logits} - {row["reference"] for row in logits
                                                   if row["error"] > row["allowed"]}
    worst = max(row["gradients"] for row in steps)
    return [
        ("Reference models whose logits ours equal, within the error of f32",
         f"{len(good)} of {len(references)}",
         "torchvision, timm, transformers, Google, big_vision, Keras",
         _link("parity/table.md")),
        (f"One training step of {len({row['reference'] for row in steps})} of them in f64: largest "
         "relative difference of a gradient", f"{worst:.1e}", "torchvision, timm",
         _link("parity/training.md"))]


def _speed() -> list[tuple]:
    compiled = {row["case"]: row for row in _read("bench/compiled.json")["rows"]}
    cores = {row["case"]: row for row in _read("bench/torch_cpu.json")["rows"]}
    found = [(f"{case} training step compiled for TPU v5e: cycles, relative to theirs",
              f"{compiled[case]['M cycles, share']:.2f}", compiled[case]["beside"],
              _link("bench/README.md"))
             for case in ("ResNet-50", "ViT-S/16", "ViT-B/16")]
    for mode, what in (("train", "training"), ("predict", "prediction")):
        for model in ("resnet50", "vit_s16", "efficientnet_b0"):
            row = cores[f"{model}/{mode}, 8 x 224 px"]
            found.append((f"`{model}` {what} on one CPU core: speed over torch",
                          f"{row['speed over torch']:.2f}", "torch, f32, batch 8",
                          _link("bench/README.md")))
    return found


def _spread(shares: list[float]) -> str:
    return (f"{100 * statistics.mean(shares):.1f} ± {100 * statistics.stdev(shares):.1f} % "
            f"({len(shares)} seeds)")


def _link(record: str) -> str:
    return f"[{record}](experiments/{record})"


def _read(record: str):
    return json.loads((RECORDS / record).read_text())


def _table(heads: tuple, rows: list[tuple], sides: str) -> str:
    """Markdown; sides: a letter per column, "l" or "r"."""
    rule = "|".join({"l": "---", "r": "---:"}[side] for side in sides)
    lines = [f"| {' | '.join(heads)} |", f"|{rule}|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


if __name__ == "__main__":
    main()
