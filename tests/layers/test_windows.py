"""Windows beside loops over the pixels of a map."""

import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.layers import windows


@pytest.mark.parametrize("height, width, shift", [(8, 8, (0, 0)), (5, 11, (2, 2)), (3, 9, (0, 2))])
def test_pixels_are_together_if_a_window_holds_both_without_turning(height, width, shift):
    size, rows, columns = 4, -(-height // 4) * 4, -(-width // 4) * 4
    assert windows.shift_of(height, width, size) == (shift if any(shift) else (2, 2))
    y, x = np.mgrid[:rows, :columns]
    place = (y * columns + x + 1).astype(np.float32)
    image = place[None, :height, :width, None]
    cut = np.asarray(windows.split(jnp.asarray(image), size, shift))
    np.testing.assert_array_equal(windows.join(cut, height, width, size, shift), image)
    assert cut.shape == (rows * columns // 16, 16, 1)

    whole = np.asarray(windows.split(jnp.asarray(place[None, ..., None]), size, shift))[..., 0]
    number = (whole - 1).astype(int)  # of each pixel, by window and place in it
    beyond = (number // columns >= height) | (number % columns >= width)
    np.testing.assert_array_equal(cut[..., 0], np.where(beyond, 0, whole))  # filled with zeros
    found = np.zeros((rows * columns,) * 2, bool)
    mask = windows.apart(height, width, size, shift)[:, 0]
    assert set(np.unique(mask)) <= {0, windows.APART}
    for pixels, apart in zip(number, mask, strict=True):
        found[np.ix_(pixels, pixels)] = apart == 0
    window = np.stack(((y - shift[0]) // size, (x - shift[1]) // size), -1).reshape(-1, 2)
    np.testing.assert_array_equal(found, (window[:, None] == window).all(-1))


def test_a_table_is_read_by_the_offset_of_the_key_from_the_query():
    size, table = 3, np.random.default_rng(0).normal(size=(25, 2))
    found = windows.of_pairs(jnp.asarray(table), size)
    for query in range(9):
        for key in range(9):
            dy, dx = query // 3 - key // 3, query % 3 - key % 3
            expected = table.reshape(5, 5, 2)[dy + 2, dx + 2]
            np.testing.assert_allclose(found[:, query, key], expected, rtol=1e-6)


def test_the_pixels_of_a_grid_are_spread_over_the_map():
    size, height, width = 3, 6, 9
    y, x = np.mgrid[:height, :width]
    image = jnp.asarray(np.stack((y, x), -1)[None], jnp.float32)
    cells = windows.split_grid(image, size)
    assert cells.shape == (6, 9, 2)
    for i, cell in enumerate(np.asarray(cells)):
        first = np.array(divmod(i, 3))  # rows 2 and columns 3 apart
        np.testing.assert_array_equal(cell, first + np.mgrid[:6:2, :9:3].reshape(2, -1).T)
    np.testing.assert_array_equal(windows.join_grid(cells, height, width, size), image)
