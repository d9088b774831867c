"""Asked to stop from outside: SIGTERM and Ctrl-C."""

import signal

import jax


class Signals:
    """The first SIGTERM or Ctrl-C asks the loop to save and stop, the second ends it at once.

    With several processes SIGTERM is JAX's, which makes all agree on the step to stop at; Ctrl-C
    is passed on as SIGTERM, for it comes to each process at another step, or to one alone.
    """

    def __init__(self):
        self.asked: str | None = None
        self._old: dict = {}

    def __enter__(self):
        handlers = ({signal.SIGINT: self._handle, signal.SIGTERM: self._handle}
                    if jax.process_count() == 1 else {signal.SIGINT: self._pass_on})
        try:
            for kind, handler in handlers.items():
                self._old[kind] = signal.signal(kind, handler)
        except ValueError:  # not in the main thread, as in a notebook's worker: no handlers
            pass
        return self

    def _handle(self, number, frame):
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = signal.Signals(number).name

    def _pass_on(self, number, frame):
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    def __exit__(self, *_):
        for kind, handler in self._old.items():  # None is one that Python did not install
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)
