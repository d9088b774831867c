"""A process that sleeps is named, one that is gone ends the wait; no wait is for ever."""

import signal
import subprocess
import sys

import pytest

from imgcls_jax.errors import Stalled
from imgcls_jax.parallel import waits
from tests.commands import environment


class Service:
    """JAX's coordination service as a dict; `answers` false: its process is stopped."""

    def __init__(self):
        self.kept, self.answers = {}, True

    def key_value_set(self, key, value, allow_overwrite):
        if not self.answers:
            raise TimeoutError
        self.kept[key] = value

    def key_value_dir_get(self, key):
        return [(name, value) for name, value in self.kept.items() if name.startswith(key)]


def lines(index, others, *, until, own=7, service=None):
    """(second, line) that process `index` says, which fed its last batch at second 0. others:
    process -> its pulse at a second."""
    service = service or Service()
    watch, said = waits.Watch(service, index, 0.0), []
    for second in range(until):
        for process, pulse in others.items():
            service.kept[f"{waits.KEY}/{process}"] = pulse(second)
        if service.answers and second % 5 == 0:
            watch.exchange(second, float(second))
        line = watch.look(own, float(second))
        said += [(second, line)] if line else []
    return said


def alive(fed):
    return lambda second: f"{second} {fed}"


def test_the_one_that_has_fed_least_is_named_ever_more_rarely():
    said = lines(0, {1: alive(7), 2: alive(5), 3: alive(6)}, until=300)
    assert [second for second, _ in said] == [30, 60, 120, 240]
    assert said[0][1] == "waiting for process 2 since 30 s: it has fed 5 batches, this one 7"


def test_the_wait_for_one_that_lives_has_an_end():
    with pytest.raises(Stalled, match="process 1 has fed 5 batches where this one has fed 7, for "
                                      "3601 s") as error:
        lines(0, {1: alive(5)}, until=4000)
    assert len(str(error.value).splitlines()) == 3 and error.value.code == 70


def test_one_that_is_stopped_ends_the_wait_before_jax_does():
    def pulse(second):
        return f"{min(second, 12)} 7"  # as many batches: it was stopped in a step

    with pytest.raises(Stalled, match="process 1 gives no sign of life"):
        lines(0, {1: pulse}, until=waits.HEARTBEAT)


def test_so_does_the_coordinator():
    service = Service()
    service.answers = False
    with pytest.raises(Stalled, match="process 0 gives no sign of life"):
        lines(1, {}, until=waits.HEARTBEAT, service=service)
    said = lines(1, {}, until=60, service=service)
    assert said == [(31, "process 0 gives no sign of life since 31 s")]


def test_where_none_is_behind_a_compilation_is_not_ended():
    said = lines(0, {1: alive(7), 2: alive(9)}, until=9000)
    assert [second for second, _ in said] == [300, 600, 1200, 2400, 4800]
    assert said[0][1] == "no batch since 300 s, and no process is behind this one"


def test_one_that_has_ended_is_not_waited_for():
    assert lines(0, {1: lambda second: waits.ENDED}, until=299) == []


def test_progress_is_no_wait():
    watch = waits.Watch(Service(), 0, 0.0)
    for second in range(0, 4000, 20):
        watch.exchange(second, float(second))
        assert watch.look(second, float(second)) is None


PAIR = """
import os, signal, sys
from imgcls_jax.parallel import processes, waits
waits.PULSE, waits.QUIET, waits.WORD, waits.SILENT = 0.2, 0.5, 2.0, 5.0
process, other, port = map(int, sys.argv[1:])
processes.start(coordinator=f"127.0.0.1:{port}", processes=2, process_id=process, cache="off")
import time
from jax.experimental import multihost_utils
multihost_utils.sync_global_devices("begin")
time.sleep(2)
"""
STOPPED = """
if process == other:
    os.kill(os.getpid(), signal.SIGSTOP)
multihost_utils.sync_global_devices("end")
"""
SLEEPING = """
for _ in range(1 if process == other else 3):
    waits.fed()
time.sleep(7 * (process == other))
multihost_utils.sync_global_devices("end")
"""
ENDING = """
time.sleep(12 * (process == other))
"""


def pair(program, other, port, tmp_path):
    """Two processes of a program, in which `other` does something else."""
    return [subprocess.Popen([sys.executable, "-c", PAIR + program, str(i), str(other), str(port)],
                             env=environment(tmp_path), stderr=subprocess.PIPE, text=True)
            for i in range(2)]


@pytest.mark.nightly
@pytest.mark.parametrize("stopped", [1, 0])
def test_of_two_processes_one_is_stopped(stopped, free_port, tmp_path):
    both = pair(STOPPED, stopped, free_port, tmp_path)
    try:
        _, said = both[1 - stopped].communicate(timeout=60)
    finally:
        for process in both:
            process.kill()
    both[stopped].communicate()
    assert both[1 - stopped].returncode == 70
    assert said.splitlines()[-3].startswith(f"error: process {stopped} gives no sign of life for")
    assert both[stopped].returncode == -signal.SIGKILL


@pytest.mark.nightly
@pytest.mark.parametrize("program, words", [
    (SLEEPING, "waiting for process 1 since 2 s: it has fed 1 batches, this one 3\n"),
    # Process 0 waits in JAX's shutdown for longer than the limit of silence.
    (ENDING, "")], ids=["sleeps", "ends later"])
def test_of_two_processes_one_is_late(program, words, free_port, tmp_path):
    both = pair(program, 1, free_port, tmp_path)
    try:
        said = [process.communicate(timeout=60)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0] and words in said[0], said
