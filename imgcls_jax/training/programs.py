"""The programs of the loop: the step and the evaluations, compiled once, before they are needed.

The step is compiled while the caller decodes the first batch, the evaluations at the same time.
They are traced one after the other, because tracing holds Python's lock.
"""

import concurrent.futures
import functools
import threading
import time
from collections.abc import Callable

import jax

from imgcls_jax.errors import ConfigError
from imgcls_jax.training import xla_flags
from imgcls_jax.training.log import duration
from imgcls_jax.types import Run

SAY_AFTER = 5.0
COMPILES = "imgcls_compiles"  # begins the names of threads
_tracing = threading.Lock()


def lower_step(run: Run) -> jax.stages.Lowered:
    """The step for its mesh: the state is donated, and returned with the same sharding.

    Its Sums also hold the `learning_rate` of the step: evaluated outside the step, a schedule would
    be a dozen programs of one operation each.
    """
    def step(state, batch):
        after, sums = run.step(state, batch)
        return after, {**sums, "learning_rate": run.schedule(state.step, state.opt_state)}

    shardings = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
    program = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None),
                      compiler_options=xla_flags.options(run.mesh.devices.flat[0].platform))
    return program.lower(run.abstract_state, run.abstract_batch)


def compile_step(run: Run) -> concurrent.futures.Future:
    """(the compiled step, its seconds of "trace" and "compile"), made in a thread.

    A failure is raised as a ConfigError.
    """
    return _compile(lambda: lower_step(run), "the training step")


def compile_evaluations(run: Run) -> dict[str, concurrent.futures.Future]:
    """The same for the evaluations, by name, except those without a program."""
    variables = run.abstract_state.eval_variables()
    return {name: _compile(functools.partial(evaluation.lower, variables), f"config.evals.{name}")
            for name, evaluation in run.evaluations.items() if evaluation.lower}


def wait(compiling: concurrent.futures.Future, what: str, say: Callable[[str], None]):
    """The result of a compilation, with a line after SAY_AFTER seconds and after each minute."""
    began, seconds = time.perf_counter(), SAY_AFTER
    while True:
        try:
            return compiling.result(timeout=seconds)
        except TimeoutError:
            if compiling.done():  # its own
                raise
            say(f"compiling {what} ({duration(time.perf_counter() - began)} so far)")
            seconds = 60.0


def _compile(lower: Callable[[], jax.stages.Lowered], where: str) -> concurrent.futures.Future:
    def compiled():
        try:
            with _tracing:
                began = time.perf_counter()
                lowered = lower()
            traced = time.perf_counter()
            program = lowered.compile()
        except ValueError as error:
            raise ConfigError(str(error).strip().splitlines()[0], where=where,
                              fix="see imgcls check") from error
        return program, {"trace": traced - began, "compile": time.perf_counter() - traced}

    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=COMPILES)
    future = pool.submit(compiled)
    pool.shutdown(wait=False)
    return future
