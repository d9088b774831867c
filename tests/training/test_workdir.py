"""One job per folder; files whole or not at all."""

import concurrent.futures
import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from imgcls_jax.errors import ConfigError, EnvironmentFailure
from imgcls_jax.training import workdir


def test_two_jobs_in_one_workdir_are_refused_until_the_first_ends(tmp_path):
    first = workdir.open_workdir(tmp_path / "run", main=True)
    with pytest.raises(ConfigError, match=f"process {os.getpid()}") as caught:
        workdir.open_workdir(tmp_path / "run", main=True)
    assert str(tmp_path / "run") in str(caught.value) and "--workdir" in caught.value.fix
    first.release()
    workdir.open_workdir(tmp_path / "run", main=True).release()


def test_a_killed_job_leaves_no_lock(tmp_path):
    code = ("import os, pathlib, sys; from imgcls_jax.training import workdir; "
            "lock = workdir.open_workdir(pathlib.Path(sys.argv[1]), main=True); "
            "print('held', flush=True); os.kill(os.getpid(), 9)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True,
                          text=True)
    assert done.stdout == "held\n" and done.returncode == -9
    workdir.open_workdir(tmp_path, main=True).release()


@pytest.mark.parametrize("loss", ["removed", "forgotten"])
def test_a_job_notices_that_another_has_its_workdir(tmp_path, monkeypatch, loss):
    """A clean-up removed `lock`, or the file system forgot who held it."""
    first = workdir.open_workdir(tmp_path, main=True)
    first.check()
    if loss == "removed":
        (tmp_path / "lock").unlink()
        with pytest.raises(ConfigError, match="is gone"):
            first.check()
        second = workdir.open_workdir(tmp_path, main=True)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", lambda *_: None)
            second = workdir.open_workdir(tmp_path, main=True)
    with pytest.raises(ConfigError, match=f"another job has taken .*process {os.getpid()}") as said:
        first.check()
    assert len(str(said.value).splitlines()) == 3
    first.release()
    second.check()
    second.release()


def test_an_error_that_another_job_has_caused_is_told_as_such(tmp_path):
    with pytest.raises(ConfigError, match="another job may have taken"):
        with workdir.open_workdir(tmp_path, main=True):
            workdir.open_workdir(tmp_path, main=True, take_over=True).release()
            raise FileNotFoundError("checkpoints/3")
    with pytest.raises(FileNotFoundError), workdir.open_workdir(tmp_path, main=True):
        raise FileNotFoundError("checkpoints/3")


@pytest.fixture(params=["ENOSYS", "EOPNOTSUPP", "ENOLCK"])
def no_locks(request, monkeypatch):
    """A file system without flock, as Lustre mounted without it, or some of FUSE."""
    number = getattr(errno, request.param)

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(workdir, "MOMENT", 0.01)


def test_without_locks_the_file_names_its_holder_and_goes_with_it(tmp_path, no_locks):
    first = workdir.open_workdir(tmp_path, main=True)
    assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()
    with pytest.raises(ConfigError, match=f"process {os.getpid()}") as said:
        workdir.open_workdir(tmp_path, main=True)
    assert "--take_over" in said.value.fix and len(str(said.value).splitlines()) == 3
    first.check()
    first.release()
    assert not (tmp_path / "lock").exists()
    workdir.open_workdir(tmp_path, main=True).release()


def test_without_locks_a_killed_jobs_workdir_is_taken_over_when_asked(tmp_path, no_locks):
    killed = workdir.open_workdir(tmp_path, main=True)
    taken = workdir.open_workdir(tmp_path, main=True, take_over=True)
    with pytest.raises(ConfigError, match="another job has taken"):
        killed.check()  # had it only been thought dead
    killed.release()
    taken.check()
    taken.release()
    assert not (tmp_path / "lock").exists()


def test_without_locks_the_file_of_a_job_that_had_one_and_ended_is_free(tmp_path, no_locks):
    (tmp_path / "lock").write_text("")
    lock = workdir.open_workdir(tmp_path, main=True)
    lock.check()
    lock.release()


def test_of_many_jobs_without_locks_one_has_the_workdir(tmp_path, no_locks):
    def attempt(_):
        try:
            return workdir.open_workdir(tmp_path, main=True)
        except ConfigError:
            return None

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        taken = list(filter(None, pool.map(attempt, range(16))))
    assert len(taken) == 1
    taken[0].check()


def test_other_processes_than_0_touch_nothing(tmp_path):
    assert workdir.open_workdir(tmp_path / "run", main=False) is None
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(EnvironmentFailure, match="cannot write") as caught:
        workdir.open_workdir(tmp_path / "run", main=True)
    assert caught.value.where == str(tmp_path / "run") and "there is a file" in caught.value.fix


@pytest.mark.parametrize("number, words", [
    (errno.EROFS, "read-only"), (errno.EACCES, "may not write"), (errno.ENOSPC, "disk is full"),
    (errno.EDQUOT, "quota"), (errno.EIO, "--workdir")])
def test_a_folder_that_cannot_be_written_says_how_to_mend_it(tmp_path, monkeypatch, number, words):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(EnvironmentFailure) as caught:
        workdir.open_workdir(tmp_path, main=True)
    assert words in caught.value.fix and os.strerror(number) in caught.value.what


def test_json_comes_back(tmp_path):
    workdir.write_json(tmp_path / "a.json", {"x": (1, 2.5, None)})
    assert workdir.read_json(tmp_path / "a.json") == {"x": [1, 2.5, None]}


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    workdir.write_json(path, {"x": 1})

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match="No space"):
        workdir.write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1} and list(tmp_path.iterdir()) == [path]
