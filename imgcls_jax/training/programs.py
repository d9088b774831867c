"""What the loop has compiled: the step and the evaluations, each once, before they are needed.

The step is compiled while the caller decodes the first batch, and the evaluations beside it. They
are traced one after the other, for tracing holds Python's lock.
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable

import jax

from imgcls_jax.errors import ConfigError
from imgcls_jax.training import xla_flags
from imgcls_jax.types import Run

_tracing = threading.Lock()


def lower_step(run: Run) -> jax.stages.Lowered:
    """The step for its mesh: the state is donated and comes back where it lay.

    Its Sums also have the `learning_rate` of the step: evaluated on the host, a schedule would be
    a dozen programs of one operation each.
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

    Its failure is a ConfigError.
    """
    return _compile(lambda: lower_step(run), "the training step")


def compile_evaluations(run: Run) -> dict[str, concurrent.futures.Future]:
    """The same for the programs of the evaluations, by name, but for those that have none."""
    variables = run.abstract_state.eval_variables()
    return {name: _compile(lambda lower=evaluation.lower: lower(variables), f"config.evals.{name}")
            for name, evaluation in run.evaluations.items() if evaluation.lower}


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

    pool = concurrent.futures.ThreadPoolExecutor(1)
    future = pool.submit(compiled)
    pool.shutdown(wait=False)
    return future
