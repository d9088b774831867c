"""The process beside `imgcls bench step`: what it is told, what it says, how it fails."""

import json
import stat
import sys

import jax
import pytest

from imgcls_jax.__main__ import main
from imgcls_jax.bench import compare
from imgcls_jax.errors import EnvironmentFailure
from tests.commands import error_lines, imgcls

# In place of a Python that has torch and timm: it answers requests and logs them.
FAKE = '''#!{python}
import json, sys, time

log = open({log!r}, "w")
for line in sys.stdin:
    request = json.loads(line)
    print(line, end="", file=log, flush=True)
    kind = request["request"]
    if kind == "find":
        reply = {{"timm": "1.2.3", "torch": "4.5.6"}}
    elif kind == "prepare":
        reply = {{"name": request["name"], "compile": request["compile"], "device": "fake"}}
    else:
        time.sleep(0.01)
        reply = {{"seconds": request["steps"] * 0.5, "loss": 6.9}}
    print(json.dumps(reply), flush=True)
'''
# Runs the real script where torch cannot be imported, whether it is installed or not.
WITHOUT_TORCH = '''#!{python}
import runpy, sys

sys.modules["torch"] = None
runpy.run_path(sys.argv[1], run_name="__main__")
'''


def script(path, text, **values) -> str:
    path.write_text(text.format(python=sys.executable, **values))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.nightly
def test_a_step_takes_turns_with_the_other_process(tmp_path):
    log = tmp_path / "log"
    fake = script(tmp_path / "fake", FAKE, log=str(log))
    code, out, err = imgcls(tmp_path, "bench", "step", "--model=vit_mini", "--batch=2",
                            "--size=16", "--steps=4", "--rounds=3", "--probe_tolerance=1000",
                            "--beside=timm", f"--beside_python={fake}", "--beside_compile=off",
                            f"--profile={tmp_path / 'traces'}", "--config.model.depth=1",
                            "--config.model.width=16", "--config.model.stem=()")
    assert code == 0, err
    found = json.loads(out)
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["request"] for line in asked] == ["find", "prepare", "go", "go", "go"]
    spec = asked[1]
    assert (spec["name"], spec["size"], spec["batch_size"]) == ("vit_mini", 16, 2)
    assert (spec["dtype"], spec["platform"], spec["compile"]) == ("float32", "cpu", "off")
    assert spec["learning_rate"] == pytest.approx(0.1 * 2 / 256)
    assert (spec["momentum"], spec["weight_decay"]) == (0.9, 1e-4)

    theirs = found["beside"]
    assert (theirs["timm"], theirs["torch"], theirs["device"]) == ("1.2.3", "4.5.6", "fake")
    assert theirs["images_per_second"] == pytest.approx(2 / 0.5)
    assert found["ratio"]["of_medians"] == pytest.approx(found["images_per_second"] / 4)
    assert found["rounds"]["run"] == 3 and found["rounds"]["void"] == 0
    assert found["device"] == "cpu" and "measured on a CPU" in found["warning"]
    assert found["share_of_roofline"] is None
    # On a CPU the trace has an event for every operation of the compiled text, but for those of
    # the branch that a step with a finite loss does not take.
    kernels = found["kernels"]["per_step"]
    assert 0.95 * kernels < found["profile"]["runs_per_step"] <= kernels
    costs = [row["milliseconds"] for row in found["profile"]["costliest"]]
    assert costs == sorted(costs, reverse=True) and costs[-1] > 0


@pytest.fixture
def refused(capsys):
    """refused(*words) -> (exit code, standard error) of `imgcls bench step --beside=timm`."""
    def run(*words):
        capsys.readouterr()
        code = main(["bench", "step", "--model=vit_mini", "--beside=timm", *words])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def test_without_torch_the_mending_is_named(tmp_path, refused, one_device):
    python = script(tmp_path / "python", WITHOUT_TORCH)
    code, err = refused(f"--beside_python={python}")
    lines = error_lines(err)
    assert code == 6 and len(lines) == 3, err
    assert "torch cannot be imported" in lines[0] and python in lines[1]
    assert "pip install torch timm" in lines[2] and "--beside_python" in lines[2]


def test_a_python_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EnvironmentFailure, match="cannot be run"):
        compare.Child(str(tmp_path / "nothing"))


def test_a_process_that_dies_shows_its_last_words(tmp_path):
    code = "import sys; sys.exit('killed by a fact')"
    child = tmp_path / "dies.py"
    child.write_text(code)
    with pytest.raises(EnvironmentFailure, match="killed by a fact"):
        with compare.Child(sys.executable, child):
            pass


def test_what_the_other_side_refuses_is_an_error_of_ours(tmp_path):
    child = tmp_path / "refuses.py"
    child.write_text("import json\ninput()\nprint(json.dumps("
                     "{'error': 'no such model', 'fix': 'another'}), flush=True)\n")
    with pytest.raises(EnvironmentFailure, match="no such model") as error:
        with compare.Child(sys.executable, child):
            pass
    assert error.value.fix == "another"


@pytest.mark.daily(1)
@pytest.mark.parametrize("words, named", [
    (("--config=digits",), "--model"), (("--precision=f64",), "precision"),
    (("--config.optimizer.momentum=0.5",), "config.optimizer")])
def test_unlike_things_are_not_compared(words, named, refused, one_device):
    code, err = refused("--batch=2", *words)
    assert code == 2 and named in err, err


def test_one_device_is_compared(refused):
    code, err = refused()
    assert code == 2 and "there are 8" in err, err


@pytest.mark.parametrize("ours, theirs", [
    ("resnet50", "resnet50"), ("vit_s16", "vit_small_patch16_224"),
    ("vit_b16", "vit_base_patch16_224"), ("vit_ti16", "vit_tiny_patch16_224"),
    ("efficientnet_b0", "efficientnet_b0"), ("vit_mini", "vit_mini")])
def test_models_have_timms_names(ours, theirs):
    assert compare.timm_name(ours) == theirs
