"""Rows that survive a kill, a logger that ends nothing."""

import collections
import json
import subprocess
import sys
import warnings

import pytest

from imgcls_jax.training.log import Log, duration, read_rows


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(Log, "_plot", lambda *_: None)

    def opened(step=0, **options):
        return Log(tmp_path, step=step, total=10, **options)

    return opened


def steps(folder):
    return [row["step"] for _, row in read_rows(folder / "metrics.jsonl")]


@pytest.mark.filterwarnings("ignore:1 of the 5 lines")
def test_rows_after_the_restored_step_and_half_written_ones_are_dropped(log, tmp_path):
    first = log()
    for step in (1, 2, 3, 4):
        first.row(step, {"loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    second = log(step=2)
    assert steps(tmp_path) == [1, 2]
    second.row(3, {"loss": 0.25})
    assert steps(tmp_path) == [1, 2, 3]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == {
        "step": 3, "loss": 0.25}


FOREIGN = (b'{"step": 3, "lo\xff\xfe', b"\x00" * 64, b"[1, 2]", b'"text"', b'{"loss": 0.5}',
           b'{"step": "3"}', b'\xff\xfe{"step": 3}', b"[" * 100_000)


def test_lines_that_are_no_rows_are_set_aside_with_one_word(log, tmp_path):
    """Torn within a character, zeros of a file system that had no time, and what others wrote."""
    log().row(1, {"loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\n".join(FOREIGN) + b"\n")
        file.write(b'{"step": 2, "loss": 0.4}\n{"step": 3, "lo')
    with pytest.warns(UserWarning, match="9 of the 11 lines of .*the first is line 2") as said:
        again = log(step=2)
    assert len(said) == 1
    again.row(3, {"loss": 0.125})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == steps(tmp_path) == [1, 2, 3]
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes().split(b"\n")[:-2] == list(FOREIGN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log(step=3)


def test_a_torn_list_of_bad_examples_is_read_as_far_as_it_is_whole(log, tmp_path):
    rows = [{"split": "train", "id": number, "reason": "cut off"} for number in range(3)]
    log().bad_samples(collections.deque(rows[:2]))
    with (tmp_path / "bad_samples.jsonl").open("ab") as file:
        file.write(b'{"split": "train", "id": 2, "reason": "\xc3')
    with pytest.warns(UserWarning, match="1 of the 3 lines of .*bad_samples.jsonl cannot be read"):
        again = log()
    assert again.bad_samples(collections.deque(rows)) == 3
    assert [row for _, row in read_rows(tmp_path / "bad_samples.jsonl")] == rows


def test_lines_go_to_the_terminal_and_with_the_time_to_a_file(log, tmp_path, capsys):
    text = "step 1 [bold] " + "x" * 300
    log().line(text)
    assert capsys.readouterr().out == text + "\n"
    assert (tmp_path / "train.log").read_text().endswith(f" {text}\n")
    log(quiet=True).line("unsaid")
    assert capsys.readouterr().out == "" and "unsaid" in (tmp_path / "train.log").read_text()


def test_what_cannot_be_written_is_said_once_and_ends_nothing(log, tmp_path, capsys):
    (tmp_path / "metrics.jsonl").mkdir()
    opened = log()
    for step in (1, 2, 3):
        opened.row(step, {"loss": 0.5})
    opened.close()
    assert capsys.readouterr().err.count("metrics.jsonl cannot be written") == 1


def test_a_tensorboard_that_cannot_be_written_ends_nothing(tmp_path, capsys):
    (tmp_path / "tb").write_text("a file stands in its way")
    opened = Log(tmp_path, step=0, total=10, quiet=True)
    for step in (1, 2, 3):
        opened.row(step, {"loss": 0.5})
    opened.close()
    assert steps(tmp_path) == [1, 2, 3]
    assert capsys.readouterr().err.count("tb cannot be written") == 1


def test_a_reader_that_has_gone_ends_nothing(tmp_path):
    # As `imgcls train | head -1`: the pipe is closed while the run goes on.
    program = ("import sys; from pathlib import Path; from imgcls_jax.training.log import Log\n"
               "log = Log(Path(sys.argv[1]), step=0, total=10)\n"
               "for i in range(3): log.line(f'line {i}'); sys.stdin.readline()\n")
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        process.stdin.write("\n" * 3)
        process.stdin.close()
        said = process.stderr.read()
    assert process.returncode == 0 and said.count("the terminal cannot be written") == 1
    assert (tmp_path / "train.log").read_text().count("line") == 3


def test_only_process_0_writes(log, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    other = log()
    other.row(1, {"loss": 0.5})
    other.line("hello")
    other.close()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr() == ("", "")


@pytest.mark.parametrize("seconds, text", [(0, "0s"), (7.9, "7s"), (60, "1m00s"), (125, "2m05s"),
                                           (3725, "1h02m"), (90_000, "25h00m")])
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text
