"""Checks a config without training: parameters, FLOPs, memory: imgcls check --config=digits

imgcls check --config=imagenet/resnet:resnet50 [--fake_devices=64] [--compile] [--json]
imgcls check --config=imagenet/resnet:resnet50 --topology=v5e:16x16

Everything is built and the training step is traced, but no image is read. How parameters are
split over devices is printed, too. With --topology the step is compiled for that TPU slice, which
need not be there (needs the extra "tpu"), and the figures of imgcls bench compile are printed.
"""

import json
from pathlib import Path

from absl import flags

from imgcls_jax.cli import _flags
from imgcls_jax.cli._compiled import lines, size
from imgcls_jax.errors import ConfigError

FLAGS = _flags.verb()
_flags.define_config(FLAGS)
_flags.define_start(FLAGS)
flags.DEFINE_integer("fake_devices", None, "Check as on this many devices, which the CPU "
                     "simulates.", flag_values=FLAGS)
flags.DEFINE_string("topology", None, "Compile the step for this TPU slice, such as v5e:16x16.",
                    flag_values=FLAGS)
flags.DEFINE_bool("compile", False, "Also compile the step, and print peak memory and collectives.",
                  flag_values=FLAGS)
flags.DEFINE_bool("json", False, "Print JSON.",
                  flag_values=FLAGS)


def main(words, overrides):
    loaded = _flags.load_config(FLAGS, words, overrides)
    import jax

    if FLAGS.fake_devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", FLAGS.fake_devices)
    chosen, devices = loaded.config, None
    if FLAGS.topology and FLAGS.fake_devices:
        raise ConfigError("--topology and --fake_devices exclude each other",
                          where="--fake_devices", fix="give only one of them")
    if FLAGS.topology:
        from imgcls_jax.bench import topology

        devices = topology.devices(FLAGS.topology)  # before anything asks JAX for a device
        from imgcls_jax.assembly import measured

        chosen = measured.for_slice(chosen, len(devices))
    _flags.start(FLAGS)
    from imgcls_jax.assembly import build

    facts = examine(build(chosen, claim=loaded.claim, devices=devices, features=Path("features")),
                    compiled=FLAGS.compile or bool(devices))
    print(json.dumps(facts, indent=1) if FLAGS.json else render(facts))


def examine(run, *, compiled: bool = False) -> dict:
    """What is known of a Run without data; `compiled`: also of the program that XLA makes of it."""
    import jax

    from imgcls_jax import tree
    from imgcls_jax.assembly.network import tracing
    from imgcls_jax.training.programs import lower_step

    with tracing("config"):
        lowered = lower_step(run)
        for _, phase in run.phases[1:]:
            jax.eval_shape(phase.step, phase.abstract_state, phase.abstract_batch)
    state, batch = run.abstract_state, run.abstract_batch
    claimed = (run.claim or {}).get("params")
    parameters = tree.count(state.params)
    facts = {
        "model": run.spec.name, "data": run.source.name, "classes": len(run.source.classes),
        "positive": run.source.classes[1] if run.task.kind == "binary" else None,
        "input": list(batch["image"].shape[1:]),
        "phases": {str(first): list(phase.abstract_batch["image"].shape[1:])
                   for first, phase in run.phases}, "parameters": parameters,
        "claimed_parameters": claimed,
        **{key: _say(run.config[key]) for key in ("transforms", "device_transforms", "loss",
                                                  "optimizer", "schedule")},
        "dtype": str(jax.eval_shape(run.step, state, batch)[1]["loss"].dtype),
        "flops_per_image": (lowered.cost_analysis() or {}).get("flops", 0) / run.batch_size,
        "mesh": dict(run.mesh.shape), "batch_size": run.batch_size,
        "bytes_per_device": {"parameters": _bytes(state.params),
                             "optimizer": _bytes(state.opt_state),
                             "other": _bytes((state.model_state, state.ema, state.step)),
                             "batch": _bytes(batch)},
        "sharding": _sharding(state),
        "steps": {"total": run.total_steps, "per_epoch": round(run.steps_per_epoch, 2),
                  "checkpoint_every": run.checkpoint.every,
                  "evaluate_every": {k: e.every for k, e in run.evaluations.items()}},
        "learning_rate": {str(s): float(run.schedule(s)) for s in sorted(
            {0, run.total_steps // 4, run.total_steps // 2, run.total_steps - 1})},
    }
    if compiled:
        from imgcls_jax.bench import hlo, topology

        program = lowered.compile()
        facts["compiled"] = hlo.summary(program)
        if run.mesh.devices.flat[0].platform == "tpu":
            facts["slice"] = topology.figures(run, program)
    return facts


def _say(choice) -> str:
    """dict(name="mixup", alpha=0.2) -> "mixup(alpha=0.2)"; a tuple of them, in order."""
    if isinstance(choice, tuple):
        return ", ".join(map(_say, choice)) or "none"
    arguments = ", ".join(f"{k}={v!r}" for k, v in choice.items() if k != "name")
    return f"{choice['name']}({arguments})"


def _bytes(tree) -> int:
    """Bytes of one device's part of the arrays."""
    import jax
    import numpy as np

    return sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
               for leaf in jax.tree.leaves(tree))


def _sharding(state) -> dict:
    """Partition -> how many leaves and bytes of the whole state are partitioned so."""
    import jax

    found: dict[str, dict] = {}
    for leaf in jax.tree.leaves(state):
        spec = ", ".join(str(axis) for axis in leaf.sharding.spec if axis) or "replicated"
        row = found.setdefault(spec, {"leaves": 0, "bytes": 0})
        row["leaves"] += 1
        row["bytes"] += leaf.size * leaf.dtype.itemsize
    return found


def render(facts: dict) -> str:
    per, steps = facts["bytes_per_device"], facts["steps"]
    claimed = facts["claimed_parameters"]
    note = "" if claimed is None else (" (as claimed)" if claimed == facts["parameters"] else
                                       f" ({claimed:,} in the config as it is shipped)")
    shape = "x".join(map(str, facts["input"]))
    positive = f" ({facts['positive']!r} is the positive one)" if facts["positive"] else ""
    text = [
        f"model      {facts['model']}, {facts['parameters']:,} parameters{note}",
        f"data       {facts['data']}, {facts['classes']} classes{positive}, input {shape}",
        f"transforms {facts['transforms']}; on the device {facts['device_transforms']}",
        f"training   {facts['loss']}, {facts['optimizer']}, {facts['schedule']}",
        f"step       {facts['flops_per_image'] / 1e9:.3f} GFLOP per image, batch "
        f"{facts['batch_size']} on mesh {facts['mesh']}",
        "per device " + ", ".join(f"{key} {size(value)}" for key, value in per.items()),
        "sharding   " + "; ".join(f"{spec}: {row['leaves']} leaves, {size(row['bytes'])}"
                                  for spec, row in facts["sharding"].items()),
        f"steps      {steps['total']} ({steps['per_epoch']} an epoch), checkpoint every "
        f"{steps['checkpoint_every']}, evaluation every {steps['evaluate_every']}",
        "rate       " + ", ".join(f"step {s}: {r:.3g}" for s, r in facts["learning_rate"].items()),
    ]
    if facts["phases"]:
        text.append("phases     " + ", ".join(f"step {first}: {'x'.join(map(str, shape))}"
                                              for first, shape in facts["phases"].items()))
    if "slice" in facts:
        text += [f"for        {facts['slice']['devices']} {facts['slice']['device']}",
                 *lines(facts["slice"])]
    elif "compiled" in facts:
        made = facts["compiled"]
        text.append(f"compiled   peak memory {size(made['peak_bytes'])} per device, collectives "
                    f"{made['collectives'] or 'none'}")
    return "\n".join(text)
