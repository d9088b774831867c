"""config.data and the transforms: what comes in, on the host and on the devices."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from imgcls_jax.assembly.probe import Probe
from imgcls_jax.data import feed, listing, resident
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import ConfigError
from imgcls_jax.parallel import transfer
from imgcls_jax.parallel.mesh import BATCH
from imgcls_jax.registry import bind, divide
from imgcls_jax.types import Source


def fed(choice: Mapping, seed: int) -> feed.Feed:
    """config.data."""
    options = bind(feed.DataOptions, divide(choice, feed.DataOptions)[0], "config.data")()
    found = source(choice)
    if found.channels not in (1, 3):
        raise ConfigError(f"channels={found.channels}", where="config.data.channels",
                          fix="use 1 (gray) or 3 (color)")
    return feed.Feed(feed.select(found, options, seed), seed, options)


def source(choice: Mapping) -> Source:
    """The dataset that config.data names, with all of its classes and examples."""
    return DATASETS.bind(divide(choice, feed.DataOptions)[1], "config.data")()


def examples(data: feed.Feed, evals: Mapping) -> listing.Examples:
    """Those of the training split and of each that an evaluation of config.evals names."""
    names = dict.fromkeys([data.options.train, *(
        (choice or {}).get("split") or data.options.eval for choice in evals.values()
        if not (choice or {}).get("data"))])
    return listing.Examples(tuple(names), functools.cache(
        lambda name: listing.listing(data.split(name))), data.options.on_change)


def chain(choices, registry, where: str) -> list:
    """A tuple of choices -> the things they name, in order."""
    return [registry.bind(choice, f"{where}[{i}]")() for i, choice in enumerate(choices)]


def preparation(transforms, normalise):
    """(key, images, targets) -> (f[B,H,W,C], targets): the device transforms in order.

    Those that declare `levels = True` are given u8 images, and come before `normalise`.
    """
    of_levels = [getattr(transform, "levels", False) for transform in transforms]
    first = of_levels.index(False) if False in of_levels else len(of_levels)
    if any(of_levels[first:]):
        place = f"config.device_transforms[{of_levels.index(True, first)}]"
        raise ConfigError("it works on the levels 0 to 255, but one before it on normalised images",
                          where=place, fix="put those that work on levels first")

    def prepare(key, images, targets):
        if first and images.dtype != jnp.uint8:
            raise ConfigError(f"it needs levels 0 to 255, but the images are {images.dtype}",
                              where="config.device_transforms[0]",
                              fix="feed u8 images, or leave out the transforms of levels")
        keys = [jax.random.fold_in(key, i) for i in range(len(transforms))]
        for i, transform in enumerate(transforms[:first]):
            images, targets = transform(keys[i], images, targets)
        images = normalise(images)
        for i, transform in enumerate(transforms[first:], first):
            images, targets = transform(keys[i], images, targets)
        return images, targets

    return prepare


def image_size(transforms, source, where: str) -> tuple[int, int]:
    """(H, W) of every image after the transforms, from what each of them declares."""
    size = source.image_size
    for transform in transforms:
        size = getattr(transform, "size", size)
    if size is None:
        raise ConfigError(f"the images of {source.name} have no one size", where=where,
                          fix="end with a transform that gives one, such as center_crop")
    return size


def abstract_batch(size: int, image_size: tuple[int, int], source, mesh) -> dict:
    """Shapes, dtypes and shardings of a batch on the mesh."""
    where = jax.sharding.NamedSharding(mesh, BATCH)
    label = (((size, len(source.classes)), jnp.float32) if source.kind == "multilabel" else
             ((size,), jnp.int32))
    shapes = {"image": ((size, *image_size, source.channels), jnp.uint8), "label": label,
              "mask": ((size,), jnp.float32)}
    return {name: jax.ShapeDtypeStruct(*leaf, sharding=where) for name, leaf in shapes.items()}


def training(data: feed.Feed, transforms: list, batch_size: int, mesh, probed: Probe | None,
             size: tuple[int, int]):
    """(start step -> iterator of this process's batches, such a batch -> the one on the mesh, kept)

    kept: (split, transforms, on_error) -> Resident where data is on the devices, else None. probed:
    where batches have features, of images of `size`.
    """
    split, rows = data.options.train, transfer.rows(batch_size, mesh)
    if probed:
        found = probed.kept(data, split, tuple(transforms), size, data.options.on_error,
                            "config.transforms", probed.views)
        return (functools.partial(found.train, batch_size, rows=rows),
                functools.partial(found.put, batch_size=batch_size), None)
    if not data.options.on_device:
        def from_host(start_step: int):
            return data.train(split, transforms, batch_size=batch_size, start_step=start_step,
                              rows=rows)

        return from_host, functools.partial(transfer.to_device, batch_size=batch_size,
                                            mesh=mesh), None

    @functools.cache
    def kept(split: str, transforms: tuple, on_error: str):
        return resident.Resident(data, split, transforms, mesh, on_error)

    chosen = split, tuple(transforms), data.options.on_error

    def batches(start_step: int):
        return kept(*chosen).train(batch_size, start_step, rows)

    def put(batch):
        return kept(*chosen).put(batch, batch_size)

    return batches, put, kept


def eval_batches(data: feed.Feed, split: str, transforms, abstract_batch, mesh, kept, on_error: str,
                 where: str):
    """Batches on the mesh. kept: (split, transforms, on_error) -> Resident or Features, or None."""
    batch_size = abstract_batch["mask"].shape[0]
    rows = transfer.rows(batch_size, mesh)
    if kept:
        held = kept(split, tuple(transforms), on_error)
        host, put = held.evaluate(batch_size, rows), held.put
    else:
        host = data.evaluate(split, transforms, batch_size=batch_size, rows=rows,
                             on_error=on_error)
        put = functools.partial(transfer.to_device, mesh=mesh)
    for _, batch in transfer.prefetch(host, functools.partial(put, batch_size=batch_size)):
        transfer.check_arrays(batch, abstract_batch, where)
        yield batch
