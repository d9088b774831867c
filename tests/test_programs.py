"""A training run compiles one program per phase, and all of them before they are needed."""

import json

import pytest
from jax import monitoring

from imgcls_jax import config, programs
from imgcls_jax.__main__ import main
from imgcls_jax.build import build
from imgcls_jax.log import read_rows

PHASES = {"jit(_state)": "init", "jit(step)": "train step", "jit(count)": "evaluation"}
WORDS = ("--config.model.name=vit_mini", "--config.model.width=16", "--config.model.depth=1",
         "--config.model.heads=2", "--config.model.stem=()", "--config.batch_size=32",
         "--config.schedule.warmup.steps=1", "--config.log.every.steps=2",
         "--config.evals.test.every.steps=4", "--config.checkpoint.every.steps=4",
         "--config.total.steps=8")


@pytest.fixture
def compiled():
    """Names of the programs that XLA was asked for since."""
    names = []

    def note(event, seconds, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    monitoring.register_event_duration_secs_listener(note)
    yield names
    monitoring.unregister_event_duration_listener(note)


def test_a_run_with_evaluations_compiles_one_program_per_phase(compiled, tmp_path):
    assert main(["train", "--config=digits", *WORDS, "--quiet", "--cache=off",
                 f"--workdir={tmp_path / 'w'}"]) == 0
    rows = [row for _, row in read_rows(tmp_path / "w" / "metrics.jsonl")]
    assert [row["step"] for row in rows if "test/loss" in row] == [4, 8]
    assert len(compiled) == len(PHASES), compiled
    assert sorted(PHASES[name] for name in compiled) == ["evaluation", "init", "train step"]


def test_a_run_that_goes_on_compiles_no_init(compiled, tmp_path):
    words = ["train", "--config=digits", *WORDS, "--quiet", f"--cache={tmp_path / 'cache'}",
             f"--workdir={tmp_path / 'w'}"]
    assert main(words) == 0
    compiled.clear()
    assert main([*words, "--config.total.steps=12"]) == 0
    assert sorted(PHASES[name] for name in compiled) == ["evaluation", "train step"]
    assert json.loads((tmp_path / "w" / "results.json").read_text())["step"] == 12


def test_a_compiled_evaluation_counts_as_one_that_compiles_itself(compiled):
    run = build(config.load("digits", config.split_argv(list(WORDS))[1]).config)
    variables = run.init().eval_variables()
    program = programs.compile_evaluations(run)["test"].result()[0]
    compiled.clear()
    evaluate = run.evaluations["test"].run
    found = evaluate(variables, program)
    assert not compiled
    assert found == evaluate(variables)


def test_the_rate_of_a_row_is_the_schedules(tmp_path):
    assert main(["train", "--config=digits", *WORDS, "--quiet",
                 f"--workdir={tmp_path / 'w'}"]) == 0
    run = build(config.load("digits", config.split_argv(list(WORDS))[1]).config)
    rates = {row["step"]: row["learning_rate"] for _, row in
             read_rows(tmp_path / "w" / "metrics.jsonl") if "learning_rate" in row}
    assert rates == {step: pytest.approx(float(run.schedule(step - 1)), rel=1e-6)
                     for step in (2, 4, 6, 8)}
