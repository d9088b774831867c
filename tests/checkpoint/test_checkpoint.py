"""What is saved comes back bit for bit or not at all: damage is named, the last good step used."""

import json
import os
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

from imgcls_jax import tree
from imgcls_jax.checkpoint import digests, reading
from imgcls_jax.checkpoint.saving import Checkpoints
from imgcls_jax.errors import CheckpointError, EnvironmentFailure
from imgcls_jax.parallel import rules, transfer
from imgcls_jax.parallel.mesh import make_mesh
from imgcls_jax.parallel.rules import state_shardings
from imgcls_jax.types import TrainState
from tests.commands import environment, two_processes

META = {"config": {"seed": 0}, "classes": ["a", "b"]}


def mesh(devices: int, fsdp: int = 1) -> Mesh:
    return make_mesh(jax.devices()[:devices], fsdp=fsdp)


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
    return transfer.place(state, state_shardings(state, where))


def abstract(state: TrainState, where: Mesh):
    return rules.abstract(state, state_shardings(state, where))


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
    "flip": lambda path, rng: flip(path, rng),
    "delete": lambda path, rng: path.unlink(),
    "empty": lambda path, rng: path.write_bytes(b""),
    "half": lambda path, rng: path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2]),
}


def flip(path, rng):
    data = bytearray(path.read_bytes())
    if data:
        bit = rng.integers(len(data) * 8)
        data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


@pytest.mark.daily(1)
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
                assert "checkpoint 2" in text, (name, text)
                assert name in text or "digest file" in text, (name, text)
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
        problem = digests.verify(directory / "2")
        assert problem and "damaged" in problem
        shutil.rmtree(directory.parent)


def test_what_is_no_checkpoint_of_ours_is_kept(two_steps, tmp_path):
    """A folder of somebody else that is named like a step, and a checkpoint whose marker and digest
    file were lost in copying, are moved away whole; other names stay where they are."""
    directory, states = copy(two_steps, tmp_path)
    (directory / "2024").mkdir()
    (directory / "2024" / "thesis.tex").write_text("mine")
    shutil.copytree(directory / "2", directory / "3")
    shutil.copytree(directory / "1", directory / "0")
    for step in "03":
        (directory / step / "commit_success.txt").unlink()
        (directory / step / "manifest.json").unlink()
    for name in ("9", "notes", "007", "²", "3.orbax-checkpoint-tmp"):
        (directory / name).mkdir()
    (directory / "README").write_text("mine")
    before = sorted(path.name for path in (directory / "3").rglob("*"))
    with pytest.warns(UserWarning, match="2024 is moved to .*damaged/2024: it is no complete"):
        assert restored(directory, states[2])[2] == 2
    assert (directory / "notes").exists() and (directory / "README").exists()
    aside = directory.parent / "damaged"
    assert (aside / "2024" / "thesis.tex").read_text() == "mine"
    assert {path.name for path in aside.iterdir()} == {"0", "3", "9", "2024"}
    assert sorted(path.name for path in (aside / "3").rglob("*")) == before
    assert {path.name for path in directory.iterdir() if path.name in ("0", "3", "9")} == set()


def test_nothing_that_was_moved_away_before_is_replaced(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    for text in ("first", "second"):
        (directory / "9").mkdir()
        (directory / "9" / "note").write_text(text)
        with pytest.warns(UserWarning, match="moved"):
            restored(directory, states[2])
    aside = directory.parent / "damaged"
    assert [(aside / name / "note").read_text() for name in ("9", "9.1")] == ["first", "second"]


def test_where_all_checkpoints_lost_their_small_files_a_resume_is_refused(two_steps, tmp_path):
    """Copied with a filter, or written by Orbax without a marker: neither deleted nor begun at
    step 0 in silence. With the marker that the message asks for it is used."""
    directory, states = copy(two_steps, tmp_path)
    for step in "12":
        (directory / step / "commit_success.txt").unlink()
        (directory / step / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="has neither commit_success") as error:
        restored(directory, states[2])
    assert len(str(error.value).splitlines()) == 3 and "commit_success.txt" in error.value.fix
    with pytest.raises(CheckpointError, match="the checkpoint 1 has neither commit_success"):
        reading.choose(directory)
    (directory / "2" / "commit_success.txt").touch()
    with pytest.warns(UserWarning, match="used unverified"):
        state, _, step = restored(directory, states[2])
    assert step == 2
    assert_equal(state, states[2])
    assert (directory.parent / "damaged" / "1" / "weights").exists()


def test_a_folder_in_the_way_of_a_save_is_moved_away(two_steps, tmp_path):
    """Orbax would delete it. So is a plain Orbax step, which retention leaves, too."""
    directory, states = copy(two_steps, tmp_path)
    (directory / "1" / "manifest.json").unlink()
    checkpoints = Checkpoints(directory, keep=1)
    checkpoints.restore(abstract(states[2], mesh(1)))
    (directory / "3").mkdir()
    (directory / "3" / "note").write_text("mine")
    with pytest.warns(UserWarning, match="3 is moved"):
        checkpoints.save(3, states[2], META)
    checkpoints.close()
    assert (directory.parent / "damaged" / "3" / "note").read_text() == "mine"
    assert digests.verify(directory / "3") is None
    assert digests.steps(directory) == [3, 1], "2 was ours, and went"


def test_a_copy_without_its_marker_is_whole_by_its_manifest(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    (directory / "2" / "commit_success.txt").unlink()
    assert restored(directory, states[2])[2] == 2


def test_a_step_without_manifest_is_used_only_where_none_is_verified(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    (directory / "2" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="checkpoint 2 is not used: no digest file"):
        assert restored(directory, states[2])[2] == 1
    (directory / "1" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="used unverified"):
        state, _, step = restored(directory, states[1])
    assert step == 1
    assert_equal(state, states[1])


def test_an_unverified_step_that_cannot_be_read_is_no_traceback(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    shutil.rmtree(directory / "1")
    (directory / "2" / "manifest.json").unlink()
    (directory / "2" / "weights" / "_METADATA").write_text("{")
    with pytest.warns(UserWarning, match="used unverified"):
        with pytest.raises(CheckpointError, match="cannot be read") as error:
            restored(directory, states[2])
    assert len(str(error.value).splitlines()) <= 5


@pytest.mark.filterwarnings("ignore:checkpoint 3 has no digest file")
@pytest.mark.parametrize("text", [None, "", "[", "[" * 100_000, "[]", "{}", '{"config": 1}',
                                  "\xff"])
def test_a_config_that_is_none_is_told_and_no_traceback(tmp_path, text):
    (tmp_path / "3" / "config").mkdir(parents=True)
    (tmp_path / "3" / digests.MARKER).touch()
    if text is not None:
        (tmp_path / "3" / "config" / "metadata").write_bytes(text.encode("latin1"))
    with pytest.raises(CheckpointError, match="cannot be read") as error:
        reading.read_config(tmp_path)
    assert error.value.where == str(tmp_path / "3")


@pytest.mark.filterwarnings("ignore:checkpoint 3")
def test_a_pipe_in_a_checkpoint_does_not_block(tmp_path):
    (tmp_path / "3" / "config").mkdir(parents=True)
    os.mkfifo(tmp_path / "3" / digests.MANIFEST)
    (tmp_path / "3" / digests.MARKER).touch()
    assert digests.verify(tmp_path / "3") == "manifest.json is damaged"
    (tmp_path / "3" / digests.MANIFEST).unlink()
    os.mkfifo(tmp_path / "3" / "config" / "metadata")
    with pytest.raises(CheckpointError, match="a named pipe"):
        reading.read_config(tmp_path)


def test_a_damaged_copy_without_marker_is_moved_and_not_removed(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    (directory / "2" / "commit_success.txt").unlink()
    (directory / "2" / "weights" / "_METADATA").write_text("{")
    with pytest.warns(UserWarning, match="checkpoint 2 is not used: weights/_METADATA is damaged"):
        assert restored(directory, states[2])[2] == 1
    assert (directory.parent / "damaged" / "2" / "training" / "_METADATA").exists()


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
    assert reading.choose(tmp_path / "c", "best") == 2
    assert reading.choose(tmp_path / "c") == 5
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
    assert reading.choose(tmp_path / "c", "best") == 2


def test_the_best_is_the_best_good_one(tmp_path):
    state, directory = make_state(mesh(1)), tmp_path / "c"
    checkpoints = Checkpoints(directory, keep=9)
    for step, score in ((1, 0.7), (2, 0.8), (3, 0.9), (4, float("nan")), (5, 0.1)):
        checkpoints.save(step, state, META, score)
    checkpoints.close()
    (directory / "3" / "weights" / "_METADATA").write_text("{")
    with pytest.warns(UserWarning, match="checkpoint 3 is not used: weights/_METADATA is damaged"):
        assert reading.choose(directory, "best") == 2
    (directory / "2" / "config" / "metadata").write_text("{")
    with pytest.warns(UserWarning):
        assert reading.choose(directory, "best") == 1


def test_weights_come_without_the_optimizer(two_steps, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    weights, config, step = reading.restore_weights(directory, 1)
    assert step == 1 and config["config"] == {"seed": 0}
    assert_equal(weights["params"], states[1].params)
    shutil.rmtree(directory / "2" / "training" / "d")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reading.restore_weights(directory)[2] == 1
    with pytest.raises(CheckpointError, match=r"there is no checkpoint '5'"):
        reading.restore_weights(directory, "5")


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

    monkeypatch.setattr(digests, "sign", full)
    checkpoints.save(3, states[2], META)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        checkpoints.wait()
    assert not (directory / "3").exists()
    monkeypatch.undo()
    assert restored(directory, states[2])[2] == 2


READ_ONLY = """
import sys, time
from pathlib import Path
from imgcls_jax.checkpoint.saving import Checkpoints
from imgcls_jax.errors import EnvironmentFailure
from tests.checkpoint.test_checkpoint import META, make_state, mesh
def refuse(*_, **__):
    raise OSError(30, "Read-only file system")
checkpoints, state = Checkpoints(Path(sys.argv[1]), keep=2), make_state(mesh(1))
checkpoints.save(1, state, META)
checkpoints.wait()
import pathlib, os
pathlib.Path.mkdir = os.mkdir = os.makedirs = refuse
try:
    checkpoints.save(2, state, META)
    checkpoints.wait()
except EnvironmentFailure as error:
    print(error)
checkpoints.close()
"""


def test_a_folder_that_cannot_be_made_does_not_hold_the_process(tmp_path):
    """Orbax's threads would wait five minutes for the folder, and the process for them."""
    done = subprocess.run([sys.executable, "-c", READ_ONLY, str(tmp_path / "c")], timeout=60,
                          env=environment(tmp_path / "cache"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Read-only" in done.stdout and "step 1 is saved" in done.stdout
    assert "Traceback" not in done.stderr


TWO = """
import sys
import jax
import numpy as np
process, directory, port = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
from imgcls_jax.parallel.mesh import make_mesh
from imgcls_jax.checkpoint.saving import Checkpoints
from tests.checkpoint.test_checkpoint import META, abstract, make_state
where = make_mesh(fsdp=4)
checkpoints = Checkpoints(directory, keep=2)
wanted = make_state(where, 2.0)
state, _, step = checkpoints.restore(abstract(wanted, where))
assert step == 2
for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
    for a, b in zip(one.addressable_shards, other.addressable_shards, strict=True):
        assert np.asarray(a.data).tobytes() == np.asarray(b.data).tobytes()
for step in (3, 4):
    checkpoints.save(step, make_state(where, float(step)), META)
assert not checkpoints.reached_preemption(4)
checkpoints.close()
"""


def test_two_processes_restore_and_save_one_checkpoint(two_steps, free_port, tmp_path):
    directory, states = copy(two_steps, tmp_path)
    two_processes(tmp_path / "cache", TWO, directory, free_port, timeout=120)
    assert digests.steps(directory) == [4, 3]
    state, _, step = restored(directory, states[1], mesh(8, fsdp=2))
    assert step == 4
    assert_equal(state, make_state(mesh(1), 4.0))


POINTS = ("before the folder", "in the empty folder", "among the arrays", "behind the arrays",
          "before the manifest", "within the manifest", "before the marker", "before deleting",
          "while deleting")

KILLED = """
import os, pathlib, shutil, signal, sys
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.path import atomicity
from imgcls_jax.checkpoint import digests
from imgcls_jax.checkpoint.saving import Checkpoints
from tests.checkpoint.test_checkpoint import META, POINTS, abstract, make_state, mesh

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def with_death_after(function):
    return lambda *a, **k: (function(*a, **k), die())

async def death_after_create(path):
    await create(path)
    die()

def delete_some(path, *_, **__):
    for file in [f for f in pathlib.Path(path).rglob("*") if f.is_file()][::2]:
        file.unlink()
    die()

def set_to_die(point, directory):
    if point == "before the folder":
        atomicity.CommitFileTemporaryPath.create = die
    elif point == "in the empty folder":
        atomicity.CommitFileTemporaryPath.create = death_after_create
    elif point == "behind the arrays":
        ocp.StandardCheckpointHandler.finalize = die
    elif point == "before the manifest":
        digests.sign = die
    elif point == "within the manifest":
        digests.os.fsync = die
    elif point == "before the marker":
        digests.sign = with_death_after(digests.sign)
    elif "deleting" in point:
        shutil.rmtree = die if point == "before deleting" else delete_some
        type(epath.Path(directory)).rmtree = shutil.rmtree

def save(directory, point):
    state = make_state(mesh(1), 3.0)
    checkpoints = Checkpoints(directory, keep=1 if "deleting" in point else 10)
    checkpoints.restore(abstract(state, mesh(1)))
    set_to_die(point, directory)
    checkpoints.save(3, state, META)
    if point == "among the arrays":
        die()
    checkpoints.wait()

create = atomicity.CommitFileTemporaryPath.create
# JAX has no threads before its first array: a fork is safe, and saves imports.
for point in sys.argv[2:]:
    child = os.fork()
    if not child:
        save(os.path.join(sys.argv[1], point, "checkpoints"), point)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (point, status)
"""


@pytest.mark.daily(1)
@pytest.mark.parametrize("points", [POINTS[::2], POINTS[1::2]], ids=["even", "odd"])
def test_a_kill_at_any_point_of_a_save_leaves_a_whole_step(two_steps, tmp_path, points):
    for point in points:
        shutil.copytree(two_steps[0], tmp_path / point / "checkpoints")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), *points], timeout=120,
                            env=environment(tmp_path / "cache"), capture_output=True, text=True)
    assert killed.returncode == 0, killed.stderr
    states = {**two_steps[1], 3: make_state(mesh(1), 3.0)}
    whole = POINTS.index("before the marker")
    for point in points:
        directory = tmp_path / point / "checkpoints"
        checkpoints = Checkpoints(directory, keep=10)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a killed save is no damage
            state, _, step = checkpoints.restore(abstract(states[2], mesh(1)))
        assert step == (3 if POINTS.index(point) >= whole else 2), point
        assert_equal(state, states[step])
        checkpoints.save(4, state, META)
        checkpoints.wait()
        checkpoints.close()
        found = {int(p.name) for p in directory.iterdir()}
        assert found - {1, 2} == {step, 4} - {1, 2}, f"no remains of a save killed {point}"
        assert digests.verify(directory / "4") is None
        assert not (directory.parent / "damaged").exists()


def test_the_manifest_lists_every_file_but_those_written_after_it(two_steps):
    step = two_steps[0] / "2"
    listed = json.loads((step / "manifest.json").read_text())["sha256"]
    assert set(files_of(two_steps)) - set(listed) == {"manifest.json", "commit_success.txt",
                                                     "_CHECKPOINT_METADATA"}
