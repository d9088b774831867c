"""Variables drawn from shapes: the distributions of linen's own init, without compiling it."""

import functools
import logging
import sys
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from imgcls_jax import init, tree
from imgcls_jax.models import MODELS

SHAPE = (3, 3, 16, 64)
INITIALISERS = {
    "zeros": nn.initializers.zeros,
    "ones": nn.initializers.ones,
    "constant": nn.initializers.constant(0.3),
    "uniform": nn.initializers.uniform(0.2),
    "normal": nn.initializers.normal(0.02),
    "truncated_normal": nn.initializers.truncated_normal(0.02),
    "truncated_normal, own bounds": nn.initializers.truncated_normal(0.5, lower=-1.0, upper=3.0),
    "lecun_normal": nn.initializers.lecun_normal(),
    "lecun_uniform": nn.initializers.lecun_uniform(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "xavier_uniform": nn.initializers.xavier_uniform(),
    "he_normal": nn.initializers.he_normal(),
    "kaiming_uniform": nn.initializers.kaiming_uniform(),
    "fan_out": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    "fan_geo_avg": nn.initializers.variance_scaling(1.0, "fan_geo_avg", "uniform"),
    "axes": nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1),
                                             out_axis=3, batch_axis=2),
}
UNBOUNDED = ("normal", "fan_out")


class Leaves(nn.Module):
    """One parameter per initialiser, all of one shape."""

    initialisers: dict
    shape: tuple = SHAPE

    @nn.compact
    def __call__(self, x, train=False):
        for name, initialiser in self.initialisers.items():
            self.param(name, initialiser, self.shape)
        return x


def draw(module, seed=0):
    return init.initialise(module, (2, 4, 4, 3), seed)


@pytest.fixture(scope="module")
def drawn():
    return draw(Leaves(INITIALISERS))["params"]


@pytest.mark.parametrize("name", INITIALISERS)
def test_an_initialiser_of_jax_is_drawn_on_the_host_from_its_distribution(name, drawn):
    assert init._kind(INITIALISERS[name]) in init._KNOWN
    ours = drawn[name]
    theirs = np.asarray(INITIALISERS[name](jax.random.key(1, impl="rbg"), SHAPE, jnp.float32))
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    if theirs.std() == 0:
        np.testing.assert_array_equal(ours, theirs)
        return
    assert stats.ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1e-3
    np.testing.assert_allclose(ours.std(), theirs.std(), rtol=0.03)
    if name not in UNBOUNDED:
        for end in (np.min, np.max):  # where the distribution is cut
            np.testing.assert_allclose(end(ours), end(theirs), rtol=0.01, atol=1e-4)


def test_values_are_a_function_of_seed_and_path_alone(drawn):
    again = draw(Leaves({name: INITIALISERS[name] for name in reversed(INITIALISERS)}))["params"]
    for name in INITIALISERS:
        np.testing.assert_array_equal(drawn[name], again[name])
    other = draw(Leaves(INITIALISERS), seed=1)["params"]
    assert np.abs(np.corrcoef(drawn["normal"].ravel(), other["normal"].ravel())[0, 1]) < 0.03
    assert np.abs(np.corrcoef(drawn["normal"].ravel(), drawn["fan_out"].ravel())[0, 1]) < 0.03


@pytest.mark.daily(1)
@pytest.mark.parametrize("name", ["resnet20", "vit_mini"])
def test_shapes_and_dtypes_are_those_of_init(name):
    module = MODELS.bind(dict(name=name), "model")(10)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    wanted = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    assert not tree.diff(dict(wanted), init.abstract(module, images.shape))
    found = init.initialise(module, images.shape, 0)
    assert not tree.diff(dict(wanted), found)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
    assert jax.eval_shape(functools.partial(module.apply, train=False), found, images).shape == (
        2, 10)


def test_floats_take_the_dtype_asked_for():
    module = MODELS.bind(dict(name="resnet20"), "model")(10)
    found = init.initialise(module, (2, 32, 32, 3), 0, dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"bfloat16"}


def test_any_other_initialiser_is_called_as_it_is():
    others = {"orthogonal": nn.initializers.orthogonal(),
              "own": lambda key, shape: jnp.full(shape, 7.0)}
    params = draw(Leaves(others, (6, 6)))["params"]
    np.testing.assert_allclose(params["orthogonal"] @ params["orthogonal"].T, np.eye(6), atol=1e-5)
    assert (params["own"] == 7).all()


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.Dense(x.shape[-1], name="dense")(x), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        scan = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
        return scan(name="blocks")(x, None)[0]


class OfTheData(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        center = jnp.arange(3.0)
        x += self.param("center", nn.initializers.constant(center), (3,))
        x *= self.param("scale", lambda key: 1 + x.std((0, 1, 2)))
        return x + self.variable("stats", "noise", lambda: jax.random.normal(
            self.make_rng("params"), (3,))).value


@pytest.mark.parametrize("module", [Scanned(), OfTheData()])
def test_what_shapes_do_not_tell_is_left_to_a_compiled_init(module, caplog):
    with caplog.at_level(logging.WARNING):
        found = draw(module)
    assert "compiling init" in caplog.text
    wanted = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((2, 4, 4, 3))))
    assert not tree.diff(dict(wanted), found)
    leaf = found["params"]["center"] if "center" in found["params"] else \
        found["params"]["blocks"]["dense"]["kernel"]
    assert len(np.unique(leaf, axis=0)) == len(leaf), "each layer has its own draw"


def test_an_error_leaves_nothing_that_records():
    with pytest.raises(ZeroDivisionError):
        draw(Leaves({"bad": lambda key, shape: 1 / 0}))
    assert init._recorded.get() is None


def test_a_leaf_left_to_a_compiled_init_changes_no_other():
    class Both(nn.Module):
        scanned: bool

        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Dense(3, name="plain")(x)
            return Scanned(name="scanned")(x) if self.scanned else x

    alone, beside = (draw(Both(scanned))["params"]["plain"] for scanned in (False, True))
    np.testing.assert_array_equal(alone["kernel"], beside["kernel"])


class Stack(nn.Module):
    """As many layers as it takes for a thread to be switched while they are traced."""

    width: int

    @nn.compact
    def __call__(self, x, train=False):
        for i in range(12):
            x = nn.Dense(self.width, name=f"layer{i}")(x)
        return x


def test_other_threads_that_trace_the_same_names_change_no_number():
    wanted, stop = draw(Stack(16)), threading.Event()

    def trace():  # as the training step with a teacher of other widths is traced
        while not stop.is_set():
            jax.eval_shape(Stack(24).init, jax.random.key(0), jnp.zeros((2, 4, 4, 3)))

    before = sys.getswitchinterval()
    threads = [threading.Thread(target=trace) for _ in range(2)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(6):
            found = draw(Stack(16))
            for path, leaf in tree.flatten(wanted).items():
                np.testing.assert_array_equal(tree.flatten(found)[path], leaf, err_msg=path)
    finally:
        stop.set()
        sys.setswitchinterval(before)
        for thread in threads:
            thread.join()
