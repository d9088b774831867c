"""The command: verbs, exit codes, the form of errors."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imgcls_jax import __main__, config, errors
from imgcls_jax.cli import _command as command
from imgcls_jax.errors import ConfigError
from imgcls_jax.pretrained import catalogue, load

README = Path(__file__).parents[2] / "README.md"


def imgcls(*words, code=None):
    """(exit code, output, error lines) of a fresh process."""
    start = [sys.executable, "-c", code, *words] if code else [sys.executable, "-m", "imgcls_jax",
                                                              *words]
    done = subprocess.run(start, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_without_a_verb_or_with_a_wrong_one_the_verbs_are_told(capsys):
    assert command.main([]) == 2 and command.main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(f"imgcls {verb}" in usage for verb in command.verbs())
    assert command.main(["trian"]) == 2
    error = capsys.readouterr().err
    assert error.splitlines() == ["error: there is no verb 'trian'", "where: command line",
                                  "fix:   did you mean 'train'?"]


@pytest.mark.parametrize("theirs", [None, "glibc.malloc.check=1"])
def test_memory_comes_in_huge_pages_unless_the_user_says_otherwise(theirs, monkeypatch):
    (name, ours), = __main__.HUGE_PAGES.items()
    monkeypatch.setenv(name, theirs) if theirs else monkeypatch.delenv(name, raising=False)
    code = ("import os, sys; from imgcls_jax import __main__; from imgcls_jax.cli import _command;"
            f"_command.main = lambda argv: print(os.environ.get({name!r}), *argv) or 0;"
            "sys.exit(__main__.main())")
    status, out, _ = imgcls("train", "--config=digits", code=code)
    expected = theirs or (ours if sys.platform == "linux" else None)
    assert (status, out.strip()) == (0, f"{expected} train --config=digits")


@pytest.mark.parametrize("theirs, level", [(None, "3"), ("0", "0")])
def test_libraries_log_nothing_of_their_own_unless_asked_to(theirs, level, monkeypatch):
    name = "TF_CPP_MIN_LOG_LEVEL"
    monkeypatch.setenv(name, theirs) if theirs else monkeypatch.delenv(name, raising=False)
    code = ("import os, sys; from imgcls_jax import __main__;"
            "__main__._with_huge_pages = lambda: None;"
            "sys.argv = ['imgcls', 'list']; __main__.main(); import jax;"
            f"print(os.environ[{name!r}])")
    status, out, _ = imgcls(code=code)
    assert status == 0 and out.split()[-1] == level


def test_every_verb_has_one_line_about_it_and_a_main():
    for verb, about in command.verbs().items():
        path = Path(command.cli.__path__[0]) / f"{verb}.py"
        functions = {node.name: node for node in ast.parse(path.read_text()).body
                     if isinstance(node, ast.FunctionDef)}
        assert len(about) > 20
        assert [a.arg for a in functions["main"].args.args] == ["words", "overrides"]


def test_usage_answers_without_jax_and_help_without_tensorflow():
    code = ("import sys; from imgcls_jax.__main__ import main;"
            "shown = lambda: print(sorted({'jax', 'tensorflow', 'clu'} & set(sys.modules)));"
            "main([]); shown(); main(['check', '--help']); shown()")
    status, out, _ = imgcls(code=code)
    assert status == 0 and "--[no]compile" in out
    assert [line for line in out.splitlines() if line.startswith("[")] == ["[]", "['jax']"]


@pytest.mark.parametrize("words, said", [
    (["train"], ("no config is named", "--config=NAME", "digits")),
    (["train", "digits"], ("unexpected argument 'digits'",)),
    (["train", "--confg=digits"], ("confg",)),
    (["check", "--config=digits", "--config.modle.width=4"], ("'modle'", "'model'")),
    (["check", "--config=digits", "--config.model.name=resnet5"], ("'resnet5'", "resnet50")),
])
def test_a_wrong_line_ends_in_three_lines_and_code_2(words, said, capsys):
    assert command.main(words) == 2
    out, err = capsys.readouterr()
    assert_told(out, err.splitlines(), said)


def test_so_does_a_process_with_a_wrong_line():
    status, out, lines = imgcls("check", "--config=digits", "--config.batch_size=60",
                                "--fake_devices=8")
    assert status == 2
    assert_told(out, lines, ("56 or 64",))


def assert_told(out, lines, said):
    assert out == ""
    assert [line[:7].strip() for line in lines] == ["error:", "where:", "fix:"], lines
    assert all(word in "\n".join(lines) for word in said), lines


def test_every_kind_is_listed_with_a_line_about_each(capsys):
    from imgcls_jax.cli.list import _kinds

    for kind, registry in _kinds().items():
        assert command.main(["list", kind]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == registry.names()
        assert all(len(line.split()) > 1 for line in lines)
        assert (" parameters " in lines[0]) == (kind == "models")


@pytest.mark.parametrize("words, said", [
    ("schedules cosine", ("cosine(floor: float = 0.0)", "Half a cosine", "All schedules also take",
                          "warmup_prefix: bool = True")),
    ("losses focal", ("gamma: float = 2.0", "tasks: ('binary', 'multilabel')")),
    ("models resnet50", ("params: 25557032", "norm_group")),
    ("evaluators knn", ("k: int = 20", "on_error")), ("datasets digits", ("fold", "per_class"))])
def test_one_thing_is_told_with_all_its_options(words, said, capsys):
    assert command.main(["list", *words.split()]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in said), out
    assert command.main(["list", words.split()[0], "zzzz"]) == 2


def test_a_config_is_told_with_its_variants(capsys):
    assert command.main(["list", "configs", "finetune"]) == 0
    out = capsys.readouterr().out
    assert "imgcls train --config=finetune" in out and "task='multiclass'" in out
    assert command.main(["list", "configs", "imagenet/resnet"]) == 0
    assert "imagenet/resnet:resnet152" in capsys.readouterr().out
    assert command.main(["list", "configs", "finetun"]) == 2
    assert "'finetune'" in capsys.readouterr().err


def test_names_are_listed_by_a_pattern(capsys):
    from imgcls_jax.models import MODELS

    assert command.main(["list", "models", "resnet?0*"]) == 0
    found = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert found == [name for name in MODELS.names() if re.match("resnet.0", name)]
    assert command.main(["list", "configs", "w*/*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(line.startswith("worked/") for line in lines)
    assert command.main(["list", "models", "rsnet*"]) == 2
    assert command.main(["list", "models", "resnet18", "resnet50"]) == 2


def test_photos_are_fine_tuned_from_the_weights_of_the_extra_where_that_is_installed(monkeypatch):
    def chosen(variant):
        found = config.load(f"finetune:{variant}").config
        return found["model"]["name"], (found["init"] or {}).get("weights")

    name = "efficientnet_lite0"
    assert chosen("data=./photos") == (name, f"{name}/imagenet1k")
    assert chosen(f"data=./photos,weights={name}/x") == (name, f"{name}/x")
    assert chosen("data=./photos,model=resnet50") == ("resnet50", None)
    assert chosen("data=./photos,weights=runs/w") == ("resnet18", "runs/w")
    assert chosen("") == ("resnet20", None)
    probed = config.load("finetune:data=./photos,probe=true").config
    published = catalogue.weights(name)["imagenet1k"]
    assert probed["transforms"] == probed["eval_transforms"] == load.transforms(published)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert chosen("data=./photos") == ("resnet18", None)
    with pytest.raises(ConfigError, match="probe=true needs weights"):
        chosen("data=./photos,probe=true")


def test_flags_are_helped_with_in_the_order_of_their_use(capsys):
    assert command.main(["train", "--help"]) == 0
    shown = re.findall(r"^  (?:-\w, )?--(?:\[no\])?(\w+)", capsys.readouterr().out, re.M)
    assert shown == ["config", "workdir", "record", "quiet", "take_over", "coordinator",
                     "processes", "process_id", "cache", "debug"]
    assert command.main(["data", "--help"]) == 0
    out = capsys.readouterr().out
    assert "(default: tfrecord)" in out and "(default: 0)" in out and "(default: False)" not in out


def test_a_wrong_config_is_not_told_how_to_resume(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["train", "--config=digits", "--config.model.name=resnet5"]) == 2
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def test_what_was_asked_for_is_no_error(capsys, monkeypatch):
    def stop(*_):
        raise errors.Preempted("stopped by SIGINT: the state is saved at step 3", where="w",
                               fix="run the same line again to go on")

    monkeypatch.setattr(command, "_dispatch", stop)
    assert command.main(["train"]) == 75
    assert capsys.readouterr().err == ("stopped by SIGINT: the state is saved at step 3\nwhere: w\n"
                                       "fix:   run the same line again to go on\n")


def test_debug_adds_the_traceback(capsys):
    assert command.main(["train", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error, code", [
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes"), 6), (MemoryError(), 6)])
def test_out_of_memory_is_told_with_what_lowers_it(error, code, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(command, "_dispatch", fail)
    assert command.main(["train"]) == code
    assert "config.batch_size" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_dressed_up(monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(command, "_dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        command.main(["train"])


def test_the_exit_codes_are_distinct_and_documented():
    kinds = [kind for kind in vars(errors).values()
             if isinstance(kind, type) and errors.Failure in kind.__bases__]
    codes = {kind.code for kind in kinds}
    assert len(codes) == len(kinds)
    documented = {int(code) for code in re.findall(r"^\|\s*(\d+)\s*\|", README.read_text(), re.M)}
    assert codes <= documented


def test_the_shipped_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"digits", "finetune", "imagenet/resnet", "imagenet/vit"} <= set(config.shipped())
