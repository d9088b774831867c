"""Is our training step faster than timm's, compiled by torch, on this GPU?

python -m experiments.bench.gpu [--beside_python=PYTHON] [--models=resnet50,...]
                                [--batch=N] [--size=N] [--steps=N] [--rounds=N] [--profile=DIR]

For each of four models, `imgcls bench step --beside=timm` in a process of its own: bf16 compute and
f32 parameters on both sides, theirs channels_last under torch.compile, SGD with momentum, images
already on the device. The two take turns, and rounds with a disturbed probe are void. `ratio` is
ours over theirs in images per second, to be compared with `aim`; it is left empty where too few
rounds were undisturbed, and `least` and `most` then tell of all rounds. --beside_python is a Python
that has torch and timm; --profile keeps a trace per model and tells its costliest operations.

Without a GPU all of it runs on one core of the CPU, small and in f32, to show that it works; the
rows say CPU, have no aim, and say nothing of a GPU. Writes gpu.json.
"""

import argparse
import json
import os
import subprocess
import sys

from experiments.bench import record

AIMS = {"resnet50": 1.3, "vit_s16": 1.15, "vit_b16": 1.15, "efficientnet_b0": 1.3}
SIZES = {"gpu": {"batch": 256, "size": 224, "steps": 20, "rounds": 10, "precision": "bf16"},
         "cpu": {"batch": 4, "size": 64, "steps": 2, "rounds": 3, "precision": "f32"}}


def backend() -> str:
    """Of JAX, asked in another process: this one must not hold the GPU."""
    done = subprocess.run([sys.executable, "-c", "import jax; print(jax.default_backend())"],
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"JAX finds no device: {done.stderr.strip()[-300:]}")
    return done.stdout.split()[-1]


def one_core():
    """Binds a new process, and those it starts, to one core.

    Threads that wait for each other by spinning, as torch's do, are slowed by any other work on the
    machine many times more than the probe is: ratios between 0.3 and 5 were seen for one model.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure(model: str, words: list[str], where: str) -> dict | None:
    """What `imgcls bench step` says of one model beside timm's; None where it fails."""
    command = [sys.executable, "-m", "imgcls_jax", "bench", "step", "--beside=timm",
               f"--model={model}", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                          preexec_fn=one_core if where == "cpu" else None)
    if done.returncode:
        print(f"{model} failed, with {done.returncode}: it is left out\n", flush=True)
        return None
    return json.loads(done.stdout)


def row(found: dict, aim: float | None) -> dict:
    """The figures of a record, from those of `imgcls bench step`."""
    image = "x".join(map(str, found["image"][:2]))
    theirs, rounds = found["beside"], found["rounds"]
    ratio = found["ratio"]["of_medians"] if rounds["trusted"] else None
    return {"case": f"{found['model']}, {_device(found)}", "batch": found["batch_size"],
            "image": image, "dtype": found["dtype"], "ours img/s": found["images_per_second"],
            "timm img/s": theirs["images_per_second"], "torch.compile": theirs["compile"],
            "ratio": ratio, "least": found["ratio"]["min"],
            "most": found["ratio"]["max"], "aim": aim,
            "undisturbed rounds": f"{rounds['run'] - rounds['void']} of {rounds['run']}",
            "of peak": found["share_of_peak"], "of bandwidth": found["share_of_bandwidth"],
            "kernels": found["kernels"]["per_step"]}


def _device(found: dict) -> str:
    return "CPU" if found["backend"] == "cpu" else found["device"]


def say(found: dict, row: dict):
    """One model's result, for the terminal."""
    theirs, rounds = found["beside"], found["rounds"]
    aim = f", aim {row['aim']}" if row["aim"] else ""
    ratio = "no ratio to" if row["ratio"] is None else f"{row['ratio']:.3f} of"
    print(f"{row['case']}: {ratio} timm{aim} "
          f"({row['ours img/s']:.1f} and {row['timm img/s']:.1f} img/s, by round "
          f"{row['least']:.3f} to {row['most']:.3f})\n"
          f"  batch {row['batch']}, {row['image']} px, {row['dtype']}; torch {theirs['torch']}, "
          f"timm {theirs['timm']}, torch.compile: {theirs['compile']}, channels_last\n"
          f"  {row['kernels']} kernels a step; share of peak {_share(row['of peak'])}, of "
          f"bandwidth {_share(row['of bandwidth'])}\n"
          f"  undisturbed rounds: {row['undisturbed rounds']}")
    for warning in filter(None, (rounds.get("warning"), found.get("warning"))):
        print(f"  warning: {warning}")
    profile = found.get("profile", {})
    if profile:
        print(f"  traced: {profile['runs_per_step']:g} kernels a step, "
              f"{profile['milliseconds_per_step']:.3f} ms together; the costliest:")
    for cost in profile.get("costliest", ()):
        names = cost["operations"]
        print(f"  {cost['milliseconds']:8.3f} ms {cost['share']:6.1%}  {cost['place']}  ("
              + (names[0] if len(names) == 1 else f"{len(names)} operations") + ")")
    if profile:
        print(f"  trace: {profile['trace']}")
    print(flush=True)


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(AIMS))
    parser.add_argument("--profile", help="a folder; a trace per model goes into it")
    for name in ("beside_python", "beside_compile", "probe_tolerance"):
        parser.add_argument(f"--{name}", help="as of imgcls bench step")
    for name in SIZES["gpu"]:
        parser.add_argument(f"--{name}", help="as of imgcls bench step")
    given = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    models, profile = given.pop("models").split(","), given.pop("profile", None)
    where = backend()
    if where == "cpu":
        print("no GPU here: this runs on the CPU, and says nothing of a GPU\n", flush=True)
    words = [f"--{k}={v}" for k, v in {**SIZES.get(where, SIZES["gpu"]), **given}.items()]
    done = 0
    for model in models:
        found = measure(model, [*words, *([f"--profile={profile}/{model}"] if profile else [])],
                        where)
        if found is None:
            continue
        figures = row(found, None if where == "cpu" else AIMS.get(model))
        say(found, figures)
        theirs = {k: found["beside"][k] for k in ("torch", "timm")}
        machine = "one core of" if where == "cpu" else f"{_device(found)};"
        record.save("gpu", "Training step and timm's, compiled by torch, in the same run",
                    [figures], other=theirs, machine=f"{machine} {record.machine()}")
        done += 1
    raise SystemExit(0 if done == len(models) else 1)


if __name__ == "__main__":
    main()
