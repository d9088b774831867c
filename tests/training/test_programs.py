"""A training run compiles one program per phase, and all of them before they are needed."""

import concurrent.futures
import threading

import jax
import pytest
from jax import monitoring

from imgcls_jax import config
from imgcls_jax.assembly import build
from imgcls_jax.errors import ConfigError
from imgcls_jax.training import programs
from imgcls_jax.training.log import read_rows
from imgcls_jax.training.loop import train

PHASES = {"jit(_state)": "init", "jit(step)": "train step", "jit(count)": "evaluation"}
WORDS = ("--config.model.name=vit_mini", "--config.model.width=16", "--config.model.depth=0",
         "--config.model.stem=()", "--config.batch_size=32",
         "--config.schedule.warmup.steps=1", "--config.log.every.steps=2",
         "--config.evals.test.every.steps=4", "--config.checkpoint.every.steps=4")


@pytest.fixture
def compiled():
    """Names of the programs that XLA was asked for since."""
    names = []
    for thread in threading.enumerate():  # of a run before that had no steps left to take
        if thread.name.startswith(programs.COMPILES):
            thread.join()

    def note(event, seconds, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    monitoring.register_event_duration_secs_listener(note)
    yield names
    monitoring.unregister_event_duration_listener(note)


def made(devices: int, steps: int = 8):
    chosen = config.load("digits", config.split_argv(list(WORDS))[1]).config
    return build(chosen | {"total": {"steps": steps}}, devices=jax.devices()[:devices])


def phases(compiled: list) -> list[str]:
    """Of several devices each writes a part of every leaf, which Orbax cuts out: jit(slice)."""
    return sorted(PHASES.get(name, name) for name in compiled if name != "jit(slice)")


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_a_run_with_evaluations_compiles_one_program_per_phase(compiled, tmp_path, devices):
    train(made(devices), tmp_path, quiet=True)
    rows = [row for _, row in read_rows(tmp_path / "metrics.jsonl")]
    assert [row["step"] for row in rows if "test/loss" in row] == [4, 8]
    assert phases(compiled) == ["evaluation", "init", "train step"]
    assert devices > 1 or len(compiled) == 3


@pytest.mark.nightly
def test_a_run_that_goes_on_compiles_no_init(compiled, tmp_path):
    train(made(1), tmp_path, quiet=True)
    compiled.clear()
    assert train(made(1, steps=12), tmp_path, quiet=True)["step"] == 12
    assert phases(compiled) == ["evaluation", "train step"]


def test_a_compiled_evaluation_counts_as_one_that_compiles_itself(compiled):
    run = made(1)
    variables = run.init().eval_variables()
    program = programs.compile_evaluations(run)["test"].result()[0]
    compiled.clear()
    evaluate = run.evaluations["test"].run
    found = evaluate(variables, program)
    assert not compiled
    assert found == evaluate(variables)


@pytest.mark.nightly
def test_the_rate_of_a_row_is_the_schedules(tmp_path):
    run = made(1)
    train(run, tmp_path, quiet=True)
    rates = {row["step"]: row["learning_rate"] for _, row in
             read_rows(tmp_path / "metrics.jsonl") if "learning_rate" in row}
    assert rates == {step: pytest.approx(float(run.schedule(step - 1)), rel=1e-6)
                     for step in (2, 4, 6, 8)}


def test_a_long_compilation_is_not_silent(monkeypatch):
    monkeypatch.setattr(programs, "SAY_AFTER", 0.01)
    future, said = concurrent.futures.Future(), []

    def say(line):
        said.append(line)
        future.set_result("program")

    assert programs.wait(future, "the training step", say) == "program"
    assert said == ["compiling the training step (0s so far)"]
    assert programs.wait(future, "the training step", said.append) == "program" and len(said) == 1
    failed = concurrent.futures.Future()
    failed.set_exception(ConfigError("no such thing"))
    with pytest.raises(ConfigError, match="no such thing"):
        programs.wait(failed, "the training step", said.append)
