"""Asked to stop from outside: SIGTERM and Ctrl-C."""

import os
import signal
import sys
import threading
import time

import jax


class Signals:
    """The first SIGTERM or Ctrl-C asks the loop to save and stop, the second ends it at once.

    A line says so at the moment of the first: the loop itself may wait minutes for a compilation.
    With several processes SIGTERM is JAX's, which makes all agree on the step to stop at; Ctrl-C
    is passed on as SIGTERM, for it comes to each process at another step, or to one alone.
    """

    def __init__(self):
        self.asked: str | None = None
        self._old: dict = {}
        self._pipe: tuple[int, int] | None = None
        self._teller: threading.Thread | None = None

    def __enter__(self):
        handlers = ({signal.SIGINT: self._handle, signal.SIGTERM: self._handle}
                    if jax.process_count() == 1 else {signal.SIGINT: self._pass_on})
        try:
            for kind, handler in handlers.items():
                self._old[kind] = signal.signal(kind, handler)
        except ValueError:  # not in the main thread, as in a notebook's worker: no handlers
            return self
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        # A handler runs only between operations of the main thread; this is written at once.
        self._before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._teller = threading.Thread(target=self._tell, args=self._pipe[:1], daemon=True)
        self._teller.start()
        return self

    def _tell(self, pipe: int):
        told = False
        while (number := os.read(pipe, 1)[0]):
            if number not in self._old:
                continue
            if told:
                time.sleep(1)  # the handler has ended the process by then, if it could run
                os._exit(128 + number)
            told = True
            print(f"{signal.Signals(number).name}: the run stops when the step or the compilation "
                  "under way has ended, and saves; a second one ends it at once, without saving",
                  file=sys.stderr, flush=True)

    def _handle(self, number, frame):
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = signal.Signals(number).name

    def _pass_on(self, number, frame):
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    def __exit__(self, *_):
        if self._teller and self._pipe:
            signal.set_wakeup_fd(self._before)
            os.write(self._pipe[1], b"\0")
            self._teller.join()
            for end in self._pipe:
                os.close(end)
        for kind, handler in self._old.items():  # None is one that Python did not install
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)
