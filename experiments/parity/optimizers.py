"""Records ten steps of the optimizers of torch 2.13, timm 1.0.31, schedulefree 1.4.1 and
TensorFlow 2.21, and their schedules.

python -m experiments.parity.optimizers torch        (torch, timm and schedulefree installed)
python -m experiments.parity.optimizers tensorflow

Writes tests/optimizers/fixtures/<which>.npz, in f64 the parameters of trajectories.py after some of
the steps of every case, and, of torch, tests/schedules/fixtures/schedules.json. Muon is torch's own
but for the iteration of Newton and Schulz, which torch computes in bf16 whatever it is given.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np

from experiments.parity import trajectories

TESTS = Path(__file__).parents[2] / "tests"


# ---- torch ----------------------------------------------------------------------------------


def torch_optimizers() -> dict:
    """Case -> (parameter groups -> optimizer)."""
    import timm.optim as timm
    import torch
    from schedulefree import AdamWScheduleFree, SGDScheduleFree

    start = {"lr": trajectories.PEAK}
    f64 = {"momentum_dtype": torch.float64, "min_dim_size_to_factor": 4, "momentum": 0.9}
    of = {
        "sgd": (torch.optim.SGD, dict(momentum=0.9)),
        "sgd nesterov": (torch.optim.SGD, dict(momentum=0.9, nesterov=True)),
        "sgd without momentum": (torch.optim.SGD, {}),
        "adam": (torch.optim.Adam, dict(betas=(0.8, 0.95))),
        "adamw": (torch.optim.AdamW, dict(betas=(0.8, 0.95), eps=1e-3)),
        "rmsprop": (torch.optim.RMSprop, dict(alpha=0.9, eps=0.0316, momentum=0.9)),
        "rmsprop tensorflow": (timm.RMSpropTF, dict(alpha=0.9, eps=1e-3, momentum=0.9)),
        "rmsprop tensorflow, rate outside": (timm.RMSpropTF, dict(
            alpha=0.9, eps=1e-3, momentum=0.9, lr_in_momentum=False)),
        "rmsprop tensorflow, decay apart": (timm.RMSpropTF, dict(
            alpha=0.9, eps=1e-3, momentum=0.9, decoupled_decay=True)),
        "lamb": (timm.Lamb, dict(max_grad_norm=None)),
        "lamb, clipped": (timm.Lamb, dict(max_grad_norm=1.0)),
        "lamb, all": (timm.Lamb, dict(max_grad_norm=None, always_adapt=True)),
        "lars": (timm.Lars, dict(momentum=0.9, trust_coeff=0.02)),
        "lars nesterov, all": (timm.Lars, dict(momentum=0.9, trust_coeff=0.02, nesterov=True,
                                               always_adapt=True)),
        "lion": (timm.Lion, {}),
        "adafactor": (timm.AdafactorBigVision, f64),
        "adafactor, clipped": (timm.AdafactorBigVision, dict(f64, clipping_threshold=0.7)),
        "adafactor, decay by the schedule": (timm.AdafactorBigVision, dict(
            f64, unscaled_wd=True, corrected_weight_decay=True)),
        "adafactor without momentum": (timm.AdafactorBigVision, dict(f64, momentum=None)),
        "schedule_free": (AdamWScheduleFree, dict(betas=(0.9, 0.95), eps=1e-3, foreach=False)),
        "schedule_free sgd": (SGDScheduleFree, dict(momentum=0.8, foreach=False)),
    }
    return {case: lambda groups, kind=kind, given=given: kind(groups, **start, **given)
            for case, (kind, given) in of.items()}


def run_torch(make) -> dict:
    """Parameters after the steps that are kept, by "name at step"; of what is evaluated last."""
    import torch

    params = {name: torch.nn.Parameter(torch.from_numpy(value.copy()))
              for name, value in trajectories.parameters().items()}
    optimizer = make([{"params": [p], "weight_decay": trajectories.decay(name)}
                      for name, p in params.items()])
    if hasattr(optimizer, "train"):
        optimizer.train()
    found = {}
    for step in range(trajectories.STEPS):
        for group in optimizer.param_groups:
            group["lr"] = trajectories.rate(step)
        for name, p in params.items():
            value = p.detach().numpy()
            p.grad = torch.from_numpy(trajectories.gradient(name, value, step))
        optimizer.step()
        if step + 1 in trajectories.KEPT:
            found |= {f"{name} at {step + 1}": p.detach().numpy().copy()
                      for name, p in params.items()}
    if hasattr(optimizer, "eval"):
        optimizer.eval()
        found |= {f"{name} evaluated": p.detach().numpy().copy() for name, p in params.items()}
    return found


def run_muon(**options) -> dict:
    """Kernels as matrices [outputs, inputs] by torch.optim.Muon, the others by AdamW at a factor of
    0.1 on the rate."""
    import torch

    def in_its_dtype(matrix, coefficients, steps, eps):
        a, b, c = coefficients
        x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
        x = x / x.norm().clamp(min=eps)
        for _ in range(steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.T if matrix.shape[0] > matrix.shape[1] else x

    torch.optim._muon._zeropower_via_newtonschulz = in_its_dtype
    params = {name: torch.nn.Parameter(torch.from_numpy(
        value.reshape(len(value), -1) if name.endswith("kernel") else value.copy()))
        for name, value in trajectories.parameters().items()}
    muon = torch.optim.Muon([params[name] for name in params if name.endswith("kernel")],
                            weight_decay=trajectories.DECAY, **options)
    adamw = torch.optim.AdamW([params[name] for name in params if not name.endswith("kernel")],
                              betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
    found = {}
    for step in range(trajectories.STEPS):
        for optimizer, factor in ((muon, 1.0), (adamw, 0.1)):
            for group in optimizer.param_groups:
                group["lr"] = trajectories.rate(step) * factor
        for name, p in params.items():
            value = p.detach().numpy().reshape(trajectories.SHAPES[name])
            gradient = trajectories.gradient(name, value, step)
            p.grad = torch.from_numpy(gradient.reshape(p.shape))
        muon.step()
        adamw.step()
        if step + 1 in trajectories.KEPT:
            found |= {f"{name} at {step + 1}": p.detach().numpy().reshape(trajectories.SHAPES[name])
                      .copy() for name, p in params.items()}
    return found


def run_adaptive_clipping() -> dict:
    """One step of plain descent, with a rate of 1."""
    import torch
    from timm.utils.agc import adaptive_clip_grad

    params = {name: torch.nn.Parameter(torch.from_numpy(value.copy()))
              for name, value in trajectories.parameters().items()}
    for name, p in params.items():
        p.grad = torch.from_numpy(trajectories.gradient(name, p.detach().numpy(), 0))
    adaptive_clip_grad(params.values(), clip_factor=0.5, eps=1e-3)
    return {f"{name} gradient": p.grad.numpy() for name, p in params.items()}


# ---- schedules ------------------------------------------------------------------------------


def schedules() -> dict:
    """Case -> learning rates of the steps, of a peak of 0.2."""
    import torch
    from timm import scheduler as timm
    from torch.optim import lr_scheduler as torchs

    def optimizer():
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)

    def of_timm(kind, count=50, **given):
        made = optimizer()
        schedule = kind(made, **given)
        rates = []
        for step in range(count):
            schedule.step(step)
            rates.append(made.param_groups[0]["lr"])
        return rates

    def of_torch(make, count=50, losses=None):
        made = optimizer()
        schedule, rates = make(made), []
        for step in range(count):
            rates.append(made.param_groups[0]["lr"])
            made.step()
            schedule.step(*([losses[step]] if losses else []))
        return rates

    warm = dict(warmup_t=10, warmup_lr_init=0.02)
    return {
        "cosine, prefix": of_timm(timm.CosineLRScheduler, t_initial=40, lr_min=0.01,
                                  warmup_prefix=True, **warm),
        "cosine": of_timm(timm.CosineLRScheduler, t_initial=50, lr_min=0.01, **warm),
        "polynomial": of_timm(timm.PolyLRScheduler, t_initial=50, lr_min=0.01, power=0.5, **warm),
        "staircase": of_timm(timm.StepLRScheduler, decay_t=2.4, decay_rate=0.97, **warm),
        "milestones": of_timm(timm.MultiStepLRScheduler, decay_t=[15, 30], decay_rate=0.1, **warm),
        "rsqrt": of_timm(timm.WSDLRScheduler, t_initial=40, decay_t=12, stable_fn="rsqrt",
                         decay_fn="linear", stable_timescale=7, **warm),
        "torch cosine": of_torch(lambda o: torchs.CosineAnnealingLR(o, 50, 0.01)),
        "torch milestones": of_torch(lambda o: torchs.MultiStepLR(o, [15, 30], 0.1)),
        "torch exponential": of_torch(lambda o: torchs.ExponentialLR(o, 0.97)),
        "torch polynomial": of_torch(lambda o: torchs.PolynomialLR(o, 50, 2.0)),
        "torch linear": of_torch(lambda o: torchs.LinearLR(o, 1.0, 0.25, 50)),
        "torch one cycle": of_torch(lambda o: torchs.OneCycleLR(o, 0.2, total_steps=50), 49),
        "torchvision": of_torch(lambda o: torchs.SequentialLR(o, [  # once in an epoch of 5 steps
            torchs.LinearLR(o, start_factor=0.01, total_iters=2),
            torchs.CosineAnnealingLR(o, T_max=8)], milestones=[2]), 10),
        "torch plateau": of_torch(lambda o: torchs.ReduceLROnPlateau(
            o, factor=0.5, patience=2, threshold=1e-3, cooldown=2, min_lr=0.04),
            len(trajectories.LOSSES), trajectories.LOSSES),
    }


# ---- TensorFlow -----------------------------------------------------------------------------


def run_tensorflow(form: str, nesterov: bool = False) -> dict:
    """The kernels of TensorFlow's own optimizers; what decay adds is L2 of the gradient."""
    import tensorflow as tf

    ops = tf.raw_ops
    params = {name: tf.Variable(value) for name, value in trajectories.parameters().items()}
    moments = {name: (tf.Variable(tf.ones_like(p)), tf.Variable(tf.zeros_like(p)))
               for name, p in params.items()}
    found, number = {}, lambda value: tf.constant(value, tf.float64)
    for step in range(trajectories.STEPS):
        for name, p in params.items():
            value = p.numpy()
            gradient = trajectories.gradient(name, value, step) + trajectories.decay(name) * value
            square, buffer = moments[name]
            given = dict(var=p.handle, lr=number(trajectories.rate(step)), grad=number(gradient))
            if form == "rmsprop":
                ops.ResourceApplyRMSProp(**given, ms=square.handle, mom=buffer.handle,
                                         rho=number(0.9), momentum=number(0.9),
                                         epsilon=number(1e-3))
            else:
                ops.ResourceApplyKerasMomentum(**given, accum=buffer.handle, momentum=number(0.9),
                                               use_nesterov=nesterov)
        if step + 1 in trajectories.KEPT:
            found |= {f"{name} at {step + 1}": p.numpy() for name, p in params.items()}
    return found


# ---- both -----------------------------------------------------------------------------------


def write(which: str, cases: dict):
    path = TESTS / "optimizers" / "fixtures" / f"{which}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{f"{case}: {name}": value for case, values in cases.items()
                                 for name, value in values.items()})
    print(f"{path}: {len(cases)} cases, {path.stat().st_size:,} bytes")


def main(which: str):
    if which == "tensorflow":
        write(which, {"rmsprop": run_tensorflow("rmsprop"), "sgd paper": run_tensorflow("momentum"),
                      "sgd paper nesterov": run_tensorflow("momentum", nesterov=True)})
        return
    from experiments.parity import record  # noqa: F401  declares what a CPU build of torch lacks

    warnings.simplefilter("ignore")
    cases = {case: run_torch(make) for case, make in torch_optimizers().items()}
    cases |= {"muon": run_muon(), "muon, as AdamW": run_muon(
        adjust_lr_fn="match_rms_adamw", nesterov=False)}
    write(which, {**cases, "adaptive clipping": run_adaptive_clipping()})
    path = TESTS / "schedules" / "fixtures" / "schedules.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(schedules(), indent=0) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
