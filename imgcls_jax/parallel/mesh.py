"""The mesh of devices, the batch split over it, and gradients computed per shard.

Axes: the batch is split over `data` and `fsdp`; `fsdp` also splits big leaves of the state; `model`
is used where a rule names it.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from imgcls_jax.errors import ConfigError

AXES = ("data", "fsdp", "model")
SHARDS = ("data", "fsdp")  # the axes that the batch is split over
BATCH = PartitionSpec(SHARDS)


def make_mesh(devices=None, *, data: int = -1, fsdp: int = 1, model: int = 1,
              rules: tuple = ()) -> Mesh:
    """The devices (by default all) as data x fsdp x model; -1 takes the remaining devices.

    `rules` is checked here and used by `state_shardings`. Raises ConfigError if sizes do not fit.
    """
    # Sorted by process, so that each one's rows of a batch are contiguous: by id they may not be.
    devices = np.array(sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
                       if devices is None else devices)
    sizes = [data, fsdp, model]
    named = dict(zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(n < 1 and n != -1 for n in sizes):
        raise ConfigError(f"mesh sizes {named} are not valid", where="config.mesh",
                          fix="use numbers of 1 or more, and -1 at most once")
    rest = int(np.prod([n for n in sizes if n != -1]))
    if -1 in sizes and devices.size % rest == 0:
        sizes[sizes.index(-1)] = devices.size // rest
    if np.prod(sizes) != devices.size:
        raise ConfigError(f"mesh {named} does not fit {devices.size} devices", where="config.mesh",
                          fix="use sizes whose product is the number of devices; -1 fills the rest")
    for rule in rules:
        if not isinstance(rule, tuple) or list(map(type, rule)) != [str, tuple]:
            raise ConfigError(f"{rule!r} is not a rule", where="config.mesh.rules",
                              fix="write it as ('.*/kernel', ('fsdp', None))")
        pattern, axes = rule
        for axis in axes:
            if axis is not None and axis not in AXES:
                raise ConfigError(f"rule {pattern!r} names the unknown axis {axis!r}",
                                  where="config.mesh.rules", fix=f"use one of {AXES} or None")
    # Mesh(), not jax.make_mesh, whose axes are Explicit, which linen cannot trace.
    return Mesh(devices.reshape(sizes), AXES)


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1):
    """ConfigError, with the two nearest sizes, unless every microbatch divides over the mesh."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    parts = shards * max(accumulate, 1)
    if batch_size % parts:
        below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
        over = f"{shards} devices (mesh {dict(mesh.shape)})"
        if accumulate > 1:
            over = f"{accumulate} microbatches on {over}"
        raise ConfigError(f"batch_size={batch_size} does not divide over {over}",
                          where="config.batch_size",
                          fix=f"use {' or '.join(str(n) for n in (below, above) if n)}")


def by_shard(gradients: Callable, mesh: Mesh, dtype: str) -> Callable:
    """`gradients`, computed for each shard's rows separately; one sum over the shards at the end.

    gradients: (state, images, targets, key) -> (gradients, model state, sums), the first two being
      means over the rows it is given. The shards' mean gradients are sent in `dtype`, all else in
      its own; every shard gets a different key. The state is replicated on all of them.
    """
    shards = mesh.shape["data"] * mesh.shape["fsdp"]

    def local(state, images, targets, key):
        key = jax.random.fold_in(key, jax.lax.axis_index(SHARDS))
        grads, model_state, sums = gradients(state, images, targets, key)
        mean = jax.tree.map(lambda leaf: leaf / shards, (grads, model_state))
        sent = jax.tree.map(lambda leaf: leaf.astype(dtype), mean[0])
        sent, *others = jax.lax.psum((sent, mean[1], sums), SHARDS)
        return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), sent, grads), *others

    # check_vma=False: with checking on, JAX would insert its own sum for replicated parameters.
    return jax.shard_map(local, mesh=mesh, in_specs=(PartitionSpec(), BATCH, BATCH,
                                                     PartitionSpec()),
                         out_specs=PartitionSpec(), check_vma=False)
