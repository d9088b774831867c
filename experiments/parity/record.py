"""Records parity cases from torchvision 0.28, timm 1.0.31 and transformers 5.24 on a CPU.

python -m experiments.parity.record tv:resnet18 timm:vit_tiny_patch16_224=vit_ti16
        hf:vit-base-patch16-224=vit_b16 npz:Ti_16=vit_ti16
        [--sizes=160,256] [--options="{'dynamic_img_size': True}"] [--arguments="{'aux': True}"]
        [--suffix=_aux] [--taps=GLOB] [--native=96]

NAME=OURS where our model has another name; --arguments are those of ours, --options of theirs, and
--suffix tells such a case from the plain one. --native is a size to use in place of the native one,
where that would take long.

Each writes tests/pretrained/cases/<source>_<name>.npz: names and shapes of the tensors, codes of
calibrated BatchNorm statistics, and for each size every sixteenth logit in f64 with the error of
the reference's own f32. hf: and npz: go through a whole file in that format, which the reference
itself reads (hf.py, npz.py). Install torch==2.13.0, torchvision==0.28.0, timm==1.0.31 and
transformers==5.24.0 first.
"""

import argparse
import ast
import fnmatch
import importlib
import json
from pathlib import Path

import numpy as np
import torch

from experiments.parity import rule

# A CPU build of torch lacks two operators that torchvision only declares wrappers of.
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _name, _schema in (("nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
                       ("qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")):
    if not hasattr(torch.ops.torchvision, _name):
        _LIBRARY.define(_name + _schema)

CASES = Path(__file__).parents[2] / "tests" / "pretrained" / "cases"
EVERY = 16  # of 1,000 logits


def build(source: str, name: str, options: dict):
    """(module, native image size, shapes of the tensors in a file of it by name); the tensors are
    drawn by the rule, but for statistics of BatchNorm."""
    if source in ("hf", "npz"):
        return importlib.import_module(f"experiments.parity.{source}").build(name, options)
    module, native = by_name(source, name, options)
    draw(module, any("norm" in type(layer).__name__.lower() for layer in module.modules()))
    return module, native, {name: tuple(v.shape) for name, v in module.state_dict().items()}


def by_name(source: str, name: str, options: dict):
    """(module, native image size)."""
    if source == "tv":
        import torchvision.models as models

        if name in ("googlenet", "inception_v3"):
            options = {"init_weights": False, **options}
        module = models.get_model(name, weights=None, **options)
        native = getattr(module, "image_size", None) or (299 if name == "inception_v3" else 224)
        weights = models.get_model_weights(name)
        if weights and not getattr(module, "image_size", None):
            first = next(iter(weights))
            native = first.transforms().crop_size[0]
        return module, native
    import timm

    module = timm.create_model(name, pretrained=False, **options)
    return module, options.get("img_size") or module.pretrained_cfg["input_size"][-1]


def is_batch_norm(module) -> bool:
    return (isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            and module.track_running_stats)


def draw(module: torch.nn.Module, normalised: bool):
    """Every parameter by the rule."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = rule.tensor(name, tuple(parameter.shape), normalised=normalised)
            parameter.copy_(torch.from_numpy(values))


def calibrate(module: torch.nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Sets the statistics of each BatchNorm to codes of what it sees, in forward order."""
    codes: dict[str, np.ndarray] = {}
    layers = {name: layer for name, layer in module.named_modules() if is_batch_norm(layer)}

    def write(name, layer, mean, var):
        codes[f"mean:{name}"], codes[f"var:{name}"] = rule.encode(mean, var, name)
        mean, var = rule.decode(codes[f"mean:{name}"], codes[f"var:{name}"])
        layer.running_mean.copy_(torch.from_numpy(mean))
        layer.running_var.copy_(torch.from_numpy(var))

    def hook(name):
        def before(layer, arguments):
            if f"mean:{name}" not in codes:
                seen = arguments[0].detach()
                axes = [axis for axis in range(seen.ndim) if axis != 1]
                write(name, layer, seen.mean(axes).numpy(), seen.var(axes, False).numpy())
        return before

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    module.eval()
    with torch.no_grad():
        module(x)
    for handle in handles:
        handle.remove()
    for name, layer in layers.items():  # auxiliary heads are not run in evaluation
        if f"mean:{name}" not in codes:
            zeros = np.zeros(layer.num_features)
            write(name, layer, zeros, zeros + 1)
    return codes


def torch_images(size: int, batch: int = 2) -> torch.Tensor:
    return torch.from_numpy(rule.images(size, batch=batch)).permute(0, 3, 1, 2).contiguous()


def record(source: str, name: str, ours: str, arguments: dict, sizes: list[int], options: dict,
           suffix: str, taps: str, native: int) -> Path:
    module, published, shapes = build(source, name, options)
    native = native or published
    module.requires_grad_(False)
    normalised = any("norm" in type(layer).__name__.lower() for layer in module.modules())
    case = {"source": f"{source}:{name}", "ours": json.dumps([ours, arguments]),
            "options": json.dumps(options), "normalised": normalised,
            "params": sum(p.numel() for p in module.parameters()),
            "names": np.array(list(shapes)),
            "shapes": np.array([",".join(map(str, shape)) for shape in shapes.values()])}
    case |= calibrate(module, torch_images(native, 4))
    sizes = list(dict.fromkeys([native, *sizes]))
    for size in sizes:
        case[f"f32:{size}"] = module(torch_images(size)).numpy()[:, ::EVERY]
    module.double()
    seen = {}
    for layer_name, layer in module.named_modules():
        if taps and fnmatch.fnmatch(layer_name, taps):
            layer.register_forward_hook(
                lambda _, __, out, layer_name=layer_name: seen.update({layer_name: out.numpy()}))
    for size in sizes:
        double = module(torch_images(size).double()).numpy()
        across = double.std(0).mean()
        error = np.abs(case.pop(f"f32:{size}") - double[:, ::EVERY]).max()
        case[f"logits:{size}"] = double[:, ::EVERY]
        case[f"error:{size}"], case[f"across:{size}"] = error, across
        print(f"{source}:{name} {case['params']:,} parameters, {size} px: logits of sd "
              f"{double.std():.3g}, {across:.3g} across inputs, f32 error {error:.2g}", flush=True)
        if not np.isfinite(double).all() or across < 1e-4:
            raise SystemExit("degenerate: the logits hardly depend on the images")
        case |= {f"tap:{size}:{k}": v for k, v in seen.items()}
    path = CASES / f"{source}_{name}{suffix}.npz" if not taps else Path(f"taps_{source}_{name}.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **case)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--sizes", default="", help="other sizes than the native one")
    parser.add_argument("--native", type=int, default=0, help="in place of the native size")
    parser.add_argument("--options", default="{}", help="a dict for the model's constructor")
    parser.add_argument("--arguments", default="{}", help="a dict for our model")
    parser.add_argument("--suffix", default="", help="of the case's name")
    parser.add_argument("--taps", default="", help="glob of modules whose outputs to keep")
    arguments = parser.parse_args()
    for word in arguments.names:
        source, _, name = word.partition(":")
        name, _, ours = name.partition("=")
        print(record(source, name, ours or name, ast.literal_eval(arguments.arguments),
                     [int(size) for size in arguments.sizes.split(",") if size],
                     ast.literal_eval(arguments.options), arguments.suffix, arguments.taps,
                     arguments.native))


if __name__ == "__main__":
    main()
