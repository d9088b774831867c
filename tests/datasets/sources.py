"""What a test of any source needs: images that tell their number, and batches as runs see them."""

import io
import itertools

import numpy as np
from PIL import Image

from imgcls_jax import datasets
from imgcls_jax.data.batches import eval_batches, train_batches
from imgcls_jax.transforms import TRANSFORMS


def png(number: int) -> bytes:
    """6 x 4 pixels of red `number`, none of which is like another's."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (4, 6, 3), np.uint8)
    pixels[..., 0] = number
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def read_all(source, split):
    count = source.sizes[split]
    (batch,) = eval_batches(datasets.split(source, split), [], batch_size=count,
                                     rows=slice(0, count), channels=3, classes=len(source.classes))
    return batch


def train(source, count, start=0, rows=None, size=8):
    batches = train_batches(
        datasets.split(source, "train"), [TRANSFORMS.get("pad_crop")(padding=1)], batch_size=size,
        seed=5, start_step=start, rows=rows or slice(0, size), channels=3,
        classes=len(source.classes))
    return list(itertools.islice(batches, count))


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_a_function_of_the_step(source, monkeypatch, hosts=(2,), threads=(16,), starts=(4,)):
    """The same ids and bytes for several hosts, of other threads, that begin at a later step."""
    whole = train(source, 6)
    assert len({tuple(batch["id"]) for batch in whole}) > 1
    for count, number, start in zip(hosts, threads, starts, strict=True):
        monkeypatch.setattr("imgcls_jax.data.batches._threads", lambda number=number: number)
        parts = [train(source, 6 - start, start, slice(h * 8 // count, (h + 1) * 8 // count))
                 for h in range(count)]
        assert_same([{name: np.concatenate([part[name] for part in step]) for name in step[0]}
                     for step in zip(*parts, strict=True)], whole[start:])
