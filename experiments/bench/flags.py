"""Which of XLA's flags make our training step faster here?

python -m experiments.bench.flags [--flags=NAME=VALUE,...] [--models=resnet50,vit_s16]
                                  [--batch=N] [--size=N] [--steps=N] [--rounds=N]

Each candidate is tried alone, in a process of its own that compiles the step twice, without it and
with it, and lets the two take turns; rounds with a disturbed probe are void. `ratio` is the speed
with over that without. "none" changes nothing and shows how far a ratio is from 1 by chance. A flag
`wins` where it is faster in every round that counts, and by 2% in the median; what wins for all
models may be entered in imgcls_jax/training/xla_flags.py, with its figure. On a CPU one core is
used, and process time. Writes flags.json.

Not among the candidates: --xla_cpu_enable_fast_math and fast_min_max, under which the step would no
longer see that a loss is not finite.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from experiments.bench import record
from experiments.bench.gpu import SIZES, backend, one_core

CANDIDATES = {
    "cpu": ("none", "xla_cpu_prefer_vector_width=512", "xla_cpu_use_xnnpack=true",
            "xla_cpu_copy_insertion_use_region_analysis=true",
            "xla_cpu_enable_concurrency_optimized_scheduler=true",
            "xla_cpu_experimental_onednn_custom_call=true", "xla_cpu_optimize_for_size=true"),
    "gpu": ("none", "xla_gpu_triton_gemm_any=true", "xla_gpu_enable_triton_gemm=false",
            "xla_gpu_enable_cublaslt=true", "xla_gpu_cudnn_gemm_fusion_level=2",
            "xla_gpu_enable_cudnn_layer_norm=true", "xla_gpu_exhaustive_tiling_search=true",
            "xla_gpu_experimental_enable_fusion_autotuner=true",
            "xla_gpu_enable_latency_hiding_scheduler=true", "xla_gpu_graph_min_graph_size=1",
            "xla_gpu_dot_merger_threshold_mb=64"),
}
GAIN = 1.02


def value(word: str) -> bool | int | str:
    """As XLA's option has it: "true", "512", or a word."""
    return {"true": True, "false": False}.get(word, int(word) if word.isdigit() else word)


def try_one(flag: str, model: str, size: dict) -> dict:
    """Rounds without and with a flag, in this process."""
    import jax

    from imgcls_jax.assembly import build, measured
    from imgcls_jax.bench import rounds
    from imgcls_jax.bench.step import Step
    from imgcls_jax.parallel import processes

    processes.enable_cache()
    config = measured.plain(model, size["batch"], size["size"], size["precision"])
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    name, _, word = flag.partition("=")
    run = build(config)
    plain = Step(run, clock=clock)
    flagged = Step(run, None if flag == "none" else {name: value(word)}, clock=clock)
    steps = size["steps"]
    done = rounds.alternate({"without": lambda: plain.go(steps),
                              "with": lambda: flagged.go(steps)},
                             rounds.matmul(clock), rounds=size["rounds"],
                             tolerance=rounds.tolerance())
    ratio, void = done.ratio("with", "without"), done.void
    return {"case": f"{model}, {jax.devices()[0].device_kind}, {flag}",
            "batch": size["batch"], "size": size["size"], "dtype": size["precision"],
            "ratio": ratio["of_medians"], "least": ratio["min"], "most": ratio["max"],
            "undisturbed rounds": f"{void.count(False)} of {len(void)}",
            "wins": done.trusted and ratio["min"] > 1 and ratio["of_medians"] >= GAIN}


def attempt(flag: str, model: str, words: list[str], where: str) -> dict | None:
    """The row of a candidate, tried in a process of its own; None where it fails."""
    command = [sys.executable, "-m", "experiments.bench.flags", f"--one={flag}",
               f"--models={model}", *words]
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment,
                          preexec_fn=one_core if where == "cpu" else None)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if lines:
        return json.loads(lines[0].removeprefix("RESULT "))
    why = (done.stderr.strip() or "it printed nothing").splitlines()[-1][-200:]
    if "No such compile option" in done.stderr:
        why = "this version of XLA has no such flag"
    print(f"{model}, {flag}: not measured (exit {done.returncode}): {why}", flush=True)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet50,vit_s16")
    parser.add_argument("--flags", help="NAME=VALUE,... in place of the candidates")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of a candidate
    for name, default in SIZES["gpu"].items():
        parser.add_argument(f"--{name}", type=type(default))
    given = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    models, flags, one = given.pop("models"), given.pop("flags", None), given.pop("one", None)
    if one:
        print("RESULT " + json.dumps(try_one(one, models, given)))
        return
    where = backend()
    size = {**SIZES.get(where, SIZES["gpu"]), **given}
    candidates = flags.split(",") if flags else CANDIDATES.get(where, ())
    if not candidates:
        raise SystemExit(f"no candidates are known for {where}: name some, --flags=NAME=VALUE,...")
    words = [f"--{k}={v}" for k, v in size.items()]
    for model in models.split(","):
        for flag in candidates:
            row = attempt(flag, model, words, where)
            if row:
                print(f"{row['case']}: {row['ratio']:.3f} ({row['least']:.3f} to "
                      f"{row['most']:.3f}), undisturbed rounds {row['undisturbed rounds']}"
                      + (", wins" if row["wins"] else ""), flush=True)
                used = "one core of " if where == "cpu" else ""
                record.save("flags", "Training step with a flag of XLA over that without", [row],
                            machine=f"{used}{record.machine()}")


if __name__ == "__main__":
    main()
