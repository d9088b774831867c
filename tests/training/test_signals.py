"""The first signal is answered at once, whatever the main thread is doing; the second ends it."""

import ctypes
import os
import signal
import subprocess
import sys
import threading

import pytest

from imgcls_jax.training.signals import Signals
from tests.commands import ROOT


def test_a_line_is_said_while_the_main_thread_is_within_a_compiler(monkeypatch):
    """No handler of Python runs there: the main thread waits in C until the line is said."""
    end, begin = os.pipe()
    said, seen = [], threading.Event()

    class Terminal:
        def write(self, text):
            said.append(text)
            seen.set()
            os.write(begin, b"1")

        def flush(self):
            pass

    def interrupt():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # C goes on in the main thread
        if not seen.wait(20):
            os.write(begin, b"0")

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Signals() as signals:
        threading.Thread(target=interrupt).start()
        read = ctypes.create_string_buffer(1)
        ctypes.CDLL(None).read(end, read, 1)
    assert read.raw == b"1" and signals.asked == "SIGINT"
    assert "".join(said).startswith("SIGINT: the run stops when") and "".join(said).count("\n") == 1
    os.close(end)
    os.close(begin)


TWICE = """
import ctypes, signal, threading
from imgcls_jax.training.signals import Signals
def interrupt():
    for _ in range(2):
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
with Signals():
    threading.Thread(target=interrupt, daemon=True).start()
    ctypes.CDLL(None).sleep(60)
"""


@pytest.mark.nightly
def test_the_second_ends_a_process_that_is_within_a_compiler():
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, timeout=50, text=True,
                          stderr=subprocess.PIPE)
    assert done.returncode == 128 + signal.SIGINT and done.stderr.count("SIGINT") == 1


def test_what_was_there_before_is_there_again():
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with Signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
