"""How fast are training and inference on one CPU core, compared with torch?

python -m experiments.bench.torch_cpu --torch=PYTHON [--size=224 --batch=8 --rounds=7] [CASE ...]

Same shapes, f32 on both sides. PYTHON: an interpreter with torch and timm; this one by default. A
case is MODEL/train or MODEL/predict. Each side is a process of its own, pinned to the same core
with one thread, and they take turns, round by round: what counts is the median over the rounds of
torch's processor time divided by ours. A turn is three steps, of which the last two count: memory
that was given back before a pause may come from the host of a virtual machine, which takes longer
than it ever does between the steps of a run. Both have their memory in huge pages, as `imgcls`
takes it (pages.py). Training is forward, backward and update (SGD with momentum, AdamW for the
transformer). For inference torch's BatchNorm is folded into the convolutions first; ours is applied
with the running statistics, inside the compiled program.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

MODELS = {"resnet50": "resnet50", "vit_s16": "vit_small_patch16_224",
          "efficientnet_b0": "efficientnet_b0"}  # ours -> timm's
CASES = [f"{model}/{mode}" for model in MODELS for mode in ("train", "predict")]


# ---- the two sides: (model, mode, size, batch) -> a function that computes once ---------------


def ours(model: str, mode: str, size: int, batch: int):
    import jax
    import numpy as np

    from imgcls_jax import init
    from imgcls_jax.assembly import build, measured
    from imgcls_jax.models import MODELS as REGISTRY
    from imgcls_jax.parallel import transfer

    images = np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)
    labels = np.arange(batch, dtype=np.int32)
    if mode == "predict":
        module = REGISTRY.get(model)(1000)
        variables = jax.device_put(init.initialise(module, images[:1].shape, 0, dtype="float32"))
        predict = jax.jit(lambda variables, images: module.apply(variables, images, train=False))
        return lambda: jax.block_until_ready(predict(variables, images))
    config = measured.plain(model, batch, size, "f32")
    if model.startswith("vit"):
        config["optimizer"] = {"name": "adamw"}
    run = build(config)
    batch = transfer.to_device({"image": images, "label": labels,
                                "mask": np.ones(batch, np.float32)}, batch, run.mesh)
    step, state = jax.jit(run.step, donate_argnums=0), [run.init()]

    def once():
        state[0], sums = step(state[0], batch)
        jax.block_until_ready((state[0], sums))

    return once


def theirs(model: str, mode: str, size: int, batch: int):
    import torch

    # A CPU build of torch lacks two operators that torchvision, which timm imports, only names.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm

    torch.set_num_threads(1)
    torch.manual_seed(0)
    vit = model.startswith("vit")
    net = timm.create_model(MODELS[model], **({"img_size": size} if vit else {}))
    images, labels = torch.randn(batch, 3, size, size), torch.arange(batch)
    if not vit:  # oneDNN's convolutions are quickest so
        net, images = (x.to(memory_format=torch.channels_last) for x in (net, images))
    if mode == "predict":
        net = net.eval()
        if not vit:
            fold(net)
            net = net.to(memory_format=torch.channels_last)

        def once():
            with torch.inference_mode():
                net(images)

        return once
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3) if vit else torch.optim.SGD(
        net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)

    def once():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return once


def fold(net):
    """Folds each BatchNorm of a network of timm's into the convolution named before it, in place;
    torch.fx finds only those that have no activation inside."""
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    before = None
    for name, module in list(net.named_modules()):
        if isinstance(module, torch.nn.Conv2d):
            before = name
        elif isinstance(module, torch.nn.BatchNorm2d):
            net.set_submodule(before, fuse_conv_bn_eval(net.get_submodule(before), module))
            net.set_submodule(name, getattr(module, "act", torch.nn.Identity()))


# ---- the rounds -------------------------------------------------------------------------------


def child(side: str, *what):
    """Computes twice, to warm up, then takes a turn per line of the input; answers in seconds."""
    model, mode, size, batch = what
    once = {"ours": ours, "theirs": theirs}[side](model, mode, int(size), int(batch))
    once(), once()
    print("ready", flush=True)
    for _ in sys.stdin:
        once()
        began = time.process_time()
        once(), once()
        print((time.process_time() - began) / 2, flush=True)


def start(python: str, side: str, case: str, size: int, batch: int,
          huge_pages: bool = True) -> subprocess.Popen:
    from imgcls_jax.__main__ import HUGE_PAGES  # which the interpreter with torch lacks

    core = min(os.sched_getaffinity(0))
    environment = {key: value for key, value in os.environ.items() if key not in HUGE_PAGES}
    environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1",
                    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
                    **(HUGE_PAGES if huge_pages else {})}
    return subprocess.Popen(
        [python, __file__, "--child", side, *case.split("/"), str(size), str(batch)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}))


def answer(process: subprocess.Popen) -> str:
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{process.args[0]} ended: its message stands above; for torch's side give "
                 "--torch=PYTHON, an interpreter with torch and timm")
    return line.strip()


def version(python: str, name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True,
                          check=True).stdout.strip()


def by_turns(sides: dict[str, subprocess.Popen], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time of each round of each side; the processes end."""
    try:
        for process in sides.values():
            answer(process)
        taken: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, process in sides.items():
                process.stdin.write("\n")
                process.stdin.flush()
                taken[side].append(float(answer(process)))
        return taken
    finally:
        for process in sides.values():
            process.stdin.close()
            process.wait()


def compare(case: str, python: str, size: int, batch: int, rounds: int) -> dict:
    taken = by_turns({"ours": start(sys.executable, "ours", case, size, batch),
                      "theirs": start(python, "theirs", case, size, batch)}, rounds)
    ratios = [b / a for a, b in zip(*taken.values(), strict=True)]
    return {"case": f"{case}, {batch} x {size} px", "speed over torch": statistics.median(ratios),
            "least": min(ratios), "most": max(ratios), "rounds": rounds,
            **{f"{side}, s": statistics.median(seconds) for side, seconds in taken.items()}}


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    from experiments.bench import record

    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--torch", default=sys.executable)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    for case in given.cases:
        row = compare(case, given.torch, given.size, given.batch, given.rounds)
        print(json.dumps(row), flush=True)
        record.save("torch_cpu", "One CPU core, compared with torch", [row],
                    other={name: version(given.torch, name) for name in ("torch", "timm")})


if __name__ == "__main__":
    main()
