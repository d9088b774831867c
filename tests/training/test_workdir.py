"""One job per folder; files whole or not at all."""

import errno
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
