"""Records one training step of a reference: its loss, gradients and new running statistics.

python -m experiments.parity.gradients tv_resnet18 timm_mixer_s32_224 [--size=96] [--batch=4]
        [--options="{'bn_momentum': 0.01}"]

Of cases that record.py has written, with the same tensors. In train mode (statistics of the batch)
with dropout and stochastic depth off, in f64. The loss is the mean cross-entropy of the head and
0.3 of it for each auxiliary head; of a distilled DeiT the head is the mean of the two, as in
evaluation, and both are auxiliary. --options: more arguments of the reference's constructor, where
timm keeps another momentum of BatchNorm than the weights' publisher trained with. Writes
tests/pretrained/gradients/<case>.npz: for each tensor its norm and its products with vectors of
random signs (rule.summary).
"""

import argparse
import ast
import json
from pathlib import Path

import numpy as np
import torch

from experiments.parity import record, rule

OUT = record.CASES.with_name("gradients")
AUXILIARY = 0.3
RANDOM = ("Dropout", "DropPath", "StochasticDepth")


def train(module: torch.nn.Module):
    """Train mode, with nothing left to chance."""
    module.train()
    for layer in module.modules():
        if type(layer).__name__.startswith(RANDOM):
            layer.eval()
        # Some layers read a rate of their own in forward.
        for rate in ("drop_rate", "dropout_p", "drop_prob"):
            if isinstance(getattr(layer, rate, None), float):
                setattr(layer, rate, 0.0)
    if hasattr(module, "set_distilled_training"):
        module.set_distilled_training(True)


def write(case: str, size: int | None, batch: int, options: dict) -> Path:
    with np.load(record.CASES / f"{case}.npz") as file:
        recorded = dict(file)
    source, _, name = str(recorded["source"]).partition(":")
    module, native = record.by_name(
        source, name, json.loads(str(recorded.get("options", "{}"))) | options)
    state = module.state_dict()  # with the version that some modules require
    state.update((k, torch.from_numpy(np.asarray(v))) for k, v in rule.state_dict(recorded).items()
                 if not k.endswith(rule.CONSTANTS))
    module.load_state_dict(state)
    module.double()
    train(module)
    size = size or native
    outputs = module(record.torch_images(size, batch).double())
    if hasattr(module, "set_distilled_training"):
        outputs = (sum(outputs) / 2, *outputs)
    labels = torch.from_numpy(rule.labels(batch))
    loss = 0
    for i, logits in enumerate((outputs,) if torch.is_tensor(outputs) else outputs):
        loss = loss + (AUXILIARY if i else 1) * torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    found = {"size": size, "batch": batch, "loss": float(loss.detach())}
    for key, parameter in module.named_parameters():
        found[f"gradient:{key}"] = rule.summary(key, parameter.grad.numpy())
    for key, buffer in module.named_buffers():
        if key.rpartition(".")[2] in ("running_mean", "running_var"):
            found[f"statistic:{key}"] = rule.summary(key, buffer.numpy())
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{case}.npz"
    np.savez_compressed(path, **found)
    print(f"{case}: loss {found['loss']:.6f}, {len(found) - 3} tensors, "
          f"{path.stat().st_size} bytes", flush=True)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--size", type=int, help="of the images; the native one if not given")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--options", default="{}", type=ast.literal_eval)
    arguments = parser.parse_args()
    for case in arguments.cases:
        write(case, arguments.size, arguments.batch, arguments.options)


if __name__ == "__main__":
    main()
