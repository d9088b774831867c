"""Records parity cases from big_vision's own modules, on a CPU.

PYTHONPATH=.:BIG_VISION python -m experiments.parity.record_big_vision vit_ti16_map vit_ti16_token
        vit_s16_gap bit_r50x1 [--sizes=160]

BIG_VISION is a checkout of google-research/big_vision, here 0127fb6b337e; it needs nothing that
this package does not. Each writes tests/pretrained/cases/bv_<name>.npz, which holds what the cases
of record.py hold, under the names of big_vision's parameters.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from big_vision.models import bit_paper, vit

from experiments.parity import rule

CASES = Path(__file__).parents[2] / "tests" / "pretrained" / "cases"
EVERY = 16  # of 1,000 logits
# name -> their module, our model and its arguments
MODELS = {
    "vit_ti16_map": (vit.Model(1000, variant="Ti/16", pool_type="map", head_zeroinit=False),
                     "vit_ti16", {"gelu": "tanh", "pool": "map"}),
    "vit_ti16_token": (vit.Model(1000, variant="Ti/16", pool_type="tok", head_zeroinit=False),
                       "vit_ti16", {"gelu": "tanh"}),
    "vit_s16_gap": (vit.Model(1000, variant="S/16", pool_type="gap", posemb="sincos2d",
                              rep_size=True, head_zeroinit=False),
                    "vit_s16", {"gelu": "tanh", "pool": "gap", "positions": "sincos2d",
                                "representation": True}),
    "bit_r50x1": (bit_paper.Model(1000, head_zeroinit=False),
                  "bit_r50x1", {"pool_padding": "none"}),
}


def named(tree, prefix="") -> dict:
    if not hasattr(tree, "items"):
        return {prefix: tree}
    return {name: leaf for key, value in tree.items()
            for name, leaf in named(value, f"{prefix}/{key}" if prefix else key).items()}


def nested(leaves: dict) -> dict:
    found: dict = {}
    for name, value in leaves.items():
        *parents, last = name.split("/")
        at = found
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
    return found


def record(name: str, sizes: list[int]) -> Path:
    module, ours, arguments = MODELS[name]

    def apply(params, images, dtype):
        cast = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        call = module.clone(dtype_mm=dtype) if hasattr(module, "dtype_mm") else module
        return np.asarray(jax.jit(lambda p, x: call.apply({"params": p}, x)[0])(
            cast, images.astype(dtype)), np.float64)

    native = 224
    shapes = named(jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(
        (1, native, native, 3), np.float32))["params"])
    case = {"source": f"bv:{name}", "ours": json.dumps([ours, arguments]), "normalised": True,
            "params": sum(int(np.prod(leaf.shape)) for leaf in shapes.values()),
            "names": np.array(list(shapes)),
            "shapes": np.array([",".join(map(str, leaf.shape)) for leaf in shapes.values()])}
    params = nested({key: rule.tensor(key, leaf.shape) for key, leaf in shapes.items()})
    for size in dict.fromkeys([native, *sizes]):
        images = rule.images(size)
        single = apply(params, images, "float32")
        with jax.enable_x64(True):
            double = apply(params, images, "float64")
        across = double.std(0).mean()
        case[f"logits:{size}"] = double[:, ::EVERY]
        case[f"error:{size}"] = np.abs(single - double)[:, ::EVERY].max()
        case[f"across:{size}"] = across
        print(f"bv:{name} {case['params']:,} parameters, {size} px: logits of sd "
              f"{double.std():.3g}, {across:.3g} across inputs, f32 error "
              f"{case[f'error:{size}']:.2g}", flush=True)
        if not np.isfinite(double).all() or across < 1e-4:
            raise SystemExit("degenerate: the logits hardly depend on the images")
    path = CASES / f"bv_{name}.npz"
    np.savez_compressed(path, **case)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=MODELS)
    parser.add_argument("--sizes", default="", help="other image sizes, as 160,256")
    words = parser.parse_args()
    for name in words.names:
        print(record(name, [int(size) for size in words.sizes.split(",") if size]))


if __name__ == "__main__":
    main()
