"""What is saved comes back bit for bit or not at all: damage is named, the last good step used."""

import json
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from imgcls_jax import checkpoint, manifest, sharding, tree
from imgcls_jax.checkpoint import Checkpoints
from imgcls_jax.errors import CheckpointError, EnvironmentFailure
from imgcls_jax.types import TrainState
from tests.commands import environment

META = {"config": {"seed": 0}, "classes": ["a", "b"]}


def mesh(devices: int, fsdp: int = 1) -> Mesh:
    return sharding.make_mesh(jax.devices()[:devices], fsdp=fsdp)


def make_state(where: Mesh, fill: float = 0.0) -> TrainState:
    rng = np.random.default_rng(0)
    params = {"head": {"kernel": rng.standard_normal((128, 64), np.float32) + fill,
                       "bias": np.full(64, fill, np.float32)},
              "half": rng.standard_normal((3, 5)).astype(jnp.bfloat16)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    model_state = {"batch_stats": {"mean": np.arange(4, dtype=np.float32)}}
    state = TrainState(np.int32(7), params, model_state, optimizer.init(params),
                       {"params": params, "model_state": model_state})
    state = jax.tree.map(np.asarray, state)
    return sharding.place(state, sharding.state_shardings(state, where))


def abstract(state: TrainState, where: Mesh):
    return sharding.abstract(state, sharding.state_shardings(state, where))


def assert_equal(one, other):
    a, b = tree.flatten(one), tree.flatten(other)
    assert a.keys() == b.keys()
    for path in a:
        assert np.asarray(a[path]).tobytes() == np.asarray(b[path]).tobytes(), path


def saved(directory, *steps, keep=10, **options):
    """Each step with a state of its own; the states by step."""
    states = {step: make_state(mesh(1), float(step)) for step in steps}
    checkpoints = Checkpoints(directory, keep=keep, **options)
    for step, state in states.items():
        checkpoints.save(step, state, META, score=None)
    checkpoints.wait()
    checkpoints.close()
    return states


def restored(directory, like, where=None):
    checkpoints = Checkpoints(directory, keep=10)
    try:
        return checkpoints.restore(abstract(like, where or mesh(1)))
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two") / "checkpoints"
    return directory, saved(directory, 1, 2)


def copy(two_steps, tmp_path):
    directory = tmp_path / "w" / "checkpoints"
    shutil.copytree(two_steps[0], directory)
    return directory, two_steps[1]


def test_a_state_comes_back_bit_for_bit(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    state, config, step = restored(directory, states[2])
    assert step == 2 and config["classes"] == ["a", "b"]
    assert_equal(state, states[2])
    assert isinstance(state.opt_state[1][0], optax.ScaleByAdamState)


def test_nothing_saved_is_no_error(tmp_path):
    assert restored(tmp_path / "checkpoints", make_state(mesh(1))) is None


def test_a_state_without_average_and_model_state_comes_back(tmp_path):
    state = make_state(mesh(1)).replace(ema=None, model_state={})
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    checkpoints.save(1, state, META)
    checkpoints.wait()
    assert_equal(checkpoints.restore(abstract(state, mesh(1)))[0], state)
    checkpoints.close()


@pytest.mark.parametrize("before, after", [((8, 4), (1, 1)), ((1, 1), (8, 8)), ((8, 1), (4, 2))])
def test_a_topology_restores_what_another_has_saved(tmp_path, before, after):
    state = make_state(mesh(*before))
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    checkpoints.save(3, state, META)
    checkpoints.wait()
    checkpoints.close()
    wanted = abstract(state, mesh(*after))
    found, _, _ = restored(tmp_path / "c", state, mesh(*after))
    assert_equal(found, state)
    kernel = found.params["head"]["kernel"]
    assert kernel.sharding == wanted.params["head"]["kernel"].sharding


def files_of(two_steps):
    step = two_steps[0] / "2"
    return sorted(p.relative_to(step).as_posix() for p in step.rglob("*") if p.is_file())


DAMAGE = {
    "delete": lambda path, rng: path.unlink(),
    "empty": lambda path, rng: path.write_bytes(b""),
    "half": lambda path, rng: path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2]),
    "flip": lambda path, rng: flip(path, rng),
}


def flip(path, rng):
    data = bytearray(path.read_bytes())
    if data:
        bit = rng.integers(len(data) * 8)
        data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_to_any_file_is_never_restored_silently(two_steps, tmp_path, kind):
    """Every file of the newest step: the right state of step 2, or step 1 and a warning."""
    rng = np.random.default_rng(0)
    fallbacks = 0
    directory, states = copy(two_steps, tmp_path)
    for name in files_of(two_steps):
        shutil.rmtree(directory.parent)
        shutil.copytree(two_steps[0], directory)
        DAMAGE[kind](directory / "2" / name, rng)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            state, _, step = restored(directory, states[2])
        assert_equal(state, states[step])
        if step == 1:
            fallbacks += 1
            text = " ".join(str(w.message) for w in said)
            if not (name == "commit_success.txt" and kind == "delete"):
                assert "checkpoint 2" in text and (name in text or "manifest" in text), (name, text)
            assert not (directory / "2").exists(), "out of the way of the next save"
            assert (directory.parent / "damaged" / "2").exists() or kind == "delete"
    assert fallbacks >= 8, "the arrays' files at least"


@pytest.mark.nightly
def test_two_hundred_flipped_bits_are_never_restored_silently(two_steps, tmp_path):
    rng = np.random.default_rng(1)
    names = [n for n in files_of(two_steps) if "/d/" in n or n.endswith("metadata")]
    for i in range(200):
        directory = tmp_path / str(i) / "checkpoints"
        shutil.copytree(two_steps[0], directory)
        flip(directory / "2" / names[rng.integers(len(names))], rng)
        problem = manifest.verify(directory / "2")
        assert problem and "damaged" in problem
        shutil.rmtree(directory.parent)


def test_an_empty_step_and_strange_files_are_ignored(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    (directory / "9").mkdir()
    (directory / "notes").mkdir()
    (directory / "README").write_text("mine")
    _, _, step = restored(directory, states[2])
    assert step == 2 and (directory / "notes").exists() and (directory / "README").exists()
    assert not (directory / "9").exists()


def test_a_copy_without_its_marker_is_whole_by_its_manifest(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    (directory / "2" / "commit_success.txt").unlink()
    assert restored(directory, states[2])[2] == 2


def test_a_step_without_manifest_is_used_only_where_none_is_verified(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    (directory / "2" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="checkpoint 2 is not used: no manifest"):
        assert restored(directory, states[2])[2] == 1
    (directory / "1" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="used unverified"):
        state, _, step = restored(directory, states[1])
    assert step == 1
    assert_equal(state, states[1])


def test_where_none_is_good_each_is_named(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    for step in "12":
        (directory / step / "config" / "metadata").write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CheckpointError) as error:
            restored(directory, states[2])
    text = str(error.value)
    assert "checkpoint 1" in text and "checkpoint 2" in text and len(text.splitlines()) <= 5
    assert (directory / "1").exists() and (directory / "2").exists(), "nothing is lost"


def test_another_model_is_refused_with_the_difference(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    other = states[2].replace(params={**states[2].params, "extra": jnp.zeros(3)})
    with pytest.raises(CheckpointError, match="params/extra"):
        restored(directory, other)
    kernel = jnp.zeros((128, 65))
    other = states[2].replace(params={**states[2].params,
                                      "head": {**states[2].params["head"], "kernel": kernel}})
    with pytest.raises(CheckpointError, match=r"float32\[128,65\].*float32\[128,64\]"):
        restored(directory, other)


def test_another_dtype_is_refused_and_not_cast(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    other = states[2].replace(params=jax.tree.map(lambda x: x.astype(jnp.float16),
                                                  states[2].params))
    with pytest.raises(CheckpointError, match="float16"):
        restored(directory, other)


def test_the_newest_and_the_best_are_kept(tmp_path):
    state = make_state(mesh(1))
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    for step, score in ((1, 0.2), (2, 0.9), (3, 0.5), (4, None), (5, 0.3)):
        checkpoints.save(step, state, META, score)
    checkpoints.wait()
    checkpoints.close()
    assert sorted(int(p.name) for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == [2, 4, 5]
    assert checkpoint.choose(tmp_path / "c", "best") == 2
    assert checkpoint.choose(tmp_path / "c") == 5
    again = Checkpoints(tmp_path / "c", keep=2)  # the scores are part of the commits
    again.restore(abstract(state, mesh(1)))
    again.save(6, state, META, 0.4)
    again.wait()
    again.close()
    assert sorted(int(p.name) for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == [2, 5, 6]


def test_the_lowest_score_is_best_where_the_config_says_min(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep=3, best_mode="min")
    for step, score in ((1, 0.2), (2, 0.1), (3, 0.5)):
        checkpoints.save(step, make_state(mesh(1)), META, score)
    checkpoints.wait()
    checkpoints.close()
    assert checkpoint.choose(tmp_path / "c", "best") == 2


def test_weights_come_without_the_optimizer(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    weights, config, step = checkpoint.restore_weights(directory, 1)
    assert step == 1 and config["config"] == {"seed": 0}
    assert_equal(weights["params"], states[1].params)
    shutil.rmtree(directory / "2" / "training" / "d")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert checkpoint.restore_weights(directory)[2] == 1
    with pytest.raises(CheckpointError, match=r"there is no checkpoint '5'"):
        checkpoint.restore_weights(directory, "5")


def test_a_full_disk_is_told_before_anything_is_written(two_steps, tmp_path, monkeypatch):
    directory, states = copy(two_steps, tmp_path)
    checkpoints = Checkpoints(directory, keep=10)
    checkpoints.restore(abstract(states[2], mesh(1)))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentFailure, match="1,000 are free") as error:
        checkpoints.save(3, states[2], META)
    assert "step 2 is saved" in str(error.value)
    checkpoints.close()


def test_a_disk_that_fills_while_saving_leaves_no_remains(two_steps, tmp_path, monkeypatch):
    directory, states = copy(two_steps, tmp_path)
    checkpoints = Checkpoints(directory, keep=10)
    checkpoints.restore(abstract(states[2], mesh(1)))

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "sign", full)
    checkpoints.save(3, states[2], META)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        checkpoints.wait()
    assert not (directory / "3").exists()
    monkeypatch.undo()
    assert restored(directory, states[2])[2] == 2


KILLED = """
import os, signal, sys
from imgcls_jax import checkpoint, manifest
from tests.test_checkpoint import META, make_state, mesh, abstract
directory, point = sys.argv[1:]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if point == "before the manifest":
    manifest.sign = die
elif point == "before the marker":
    sign = manifest.sign
    manifest.sign = lambda folder: (sign(folder), die())
state = make_state(mesh(1), 3.0)
checkpoints = checkpoint.Checkpoints(directory, keep=1 if point == "while deleting" else 10)
checkpoints.restore(abstract(state, mesh(1)))
if point == "while deleting":
    import pathlib, shutil
    def half(path, *a, **k):
        for file in list(pathlib.Path(path).rglob("*"))[:5]:
            file.is_file() and file.unlink()
        die()
    import etils.epath
    type(etils.epath.Path(directory)).rmtree = half
    shutil.rmtree = half
checkpoints.save(3, state, META)
if point == "at once":
    die()
checkpoints.wait()
die()
"""


@pytest.mark.parametrize("point", ["at once", "before the manifest", "before the marker",
                                   "while deleting"])
def test_killed_while_saving(two_steps, tmp_path, point):
    directory, states = copy(two_steps, tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(directory), point],
                            env=environment(tmp_path / "cache"), capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    states = {**states, 3: make_state(mesh(1), 3.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state, _, step = restored(directory, states[2])
    assert_equal(state, states[step])
    assert step >= 2
    checkpoints = Checkpoints(directory, keep=10)  # and the next save finds a clean folder
    checkpoints.restore(abstract(state, mesh(1)))
    checkpoints.save(4, state, META)
    checkpoints.wait()
    checkpoints.close()
    assert all(manifest.verify(directory / str(s)) is None
               for s in manifest.steps(directory) if s >= step)


def test_the_manifest_lists_every_file_but_those_written_after_it(two_steps):
    step = two_steps[0] / "2"
    listed = json.loads((step / "manifest.json").read_text())["sha256"]
    assert set(files_of(two_steps)) - set(listed) == {"manifest.json", "commit_success.txt",
                                                     "_CHECKPOINT_METADATA"}
