"""What a config may not say is refused when it is built; what it says of an evaluation holds."""

import numpy as np
import pytest

from imgcls_jax import config
from imgcls_jax.assembly import build
from imgcls_jax.errors import ConfigError
from imgcls_jax.metrics import METRICS
from imgcls_jax.pretrained import adapt
from imgcls_jax.types import Metric
from tests.workdirs import save_workdir


def built(spec, *overrides):
    return build(config.load(spec, [tuple(text.split("=", 1)) for text in overrides]).config)


@pytest.mark.parametrize("spec, override, where", [
    ("digits", "total.step=5", "config.total"),
    ("digits", "step.accumulate=0", "config.step.accumulate"),
    ("digits", "evals.test=None", "config.evals.test"),
    ("digits", "data.mean=('a',)", "config.data.mean"),
    ("digits", "data.channels=2", "config.data.channels"),
    ("digits", "checkpoint.best_mode=maximum", "config.checkpoint.best_mode"),
    ("digits", "checkpoint.keep=0", "config.checkpoint.keep"),
    ("digits", "mesh.rules=(('a',),)", "config.mesh.rules"),
    ("digits", "freeze=(3,)", "config.freeze"),
    ("digits:vit", "model.heads=5", "config.model"),
    ("digits:vit", "model.patch_size=0", "config.model.patch_size"),
    ("digits", "seed=-1", "config.seed"),
    ("digits:vit", 'eval_transforms=({"name": "resize", "size": 16},)', "config.eval_transforms"),
    # As many patches as in training, in other places.
    ("digits:vit", 'eval_transforms=({"name": "resize", "size": (4, 16)},)',
     "config.eval_transforms"),
])
def test_what_no_run_could_do_is_refused(spec, override, where):
    with pytest.raises(ConfigError) as raised:
        built(spec, override)
    assert raised.value.where == where and raised.value.fix


VIT = ("model.name=vit_mini", "model.width=8", "model.depth=1", "model.heads=2", "model.stem=()",
       "model.patch_size=2")


def test_positions_go_from_the_grid_of_a_workdir_to_that_of_the_run(tmp_path):
    """Both have 16 patches: of 4 x 4, and of 2 x 8."""
    def wide(weights, *more):
        size = '({"name": "resize", "size": (4, 16)},)'
        run = built("digits", *VIT, f"transforms={size}", f"eval_transforms={size}",
                    f"init={dict(weights=str(weights), **dict(more))}")
        return run, np.asarray(run.init().params["positions"])

    square = built("digits", *VIT)
    save_workdir(square, tmp_path / "square")
    table = np.asarray(square.init().params["positions"])
    run, found = wide(tmp_path / "square")
    np.testing.assert_array_equal(found, adapt.positions(table, 16, (2, 8), (4, 4)))
    assert not np.allclose(found, table, atol=1e-3)
    save_workdir(run, tmp_path / "wide")
    np.testing.assert_array_equal(wide(tmp_path / "wide")[1], found)  # its own grid is known
    told = wide(tmp_path / "square", ("grid", (2, 8)))[1]  # what is said counts
    np.testing.assert_array_equal(told, table)


def test_one_number_is_the_mean_of_every_channel():
    run = built("imagenet/resnet:resnet18", "data.mean=0.5", "data.std=0.25")
    assert run.preprocessing["mean"] == (0.5,) * 3 and run.preprocessing["std"] == (0.25,) * 3


def test_an_evaluation_takes_its_own_metrics(monkeypatch):
    def count(kind: str, *, factor: float = 1.0) -> Metric:
        return Metric(lambda logits, targets, mask: {"counted": mask.sum() * factor},
                      lambda sums: {"count": float(sums["counted"])})

    METRICS.names()
    monkeypatch.setitem(METRICS._found, "count", count)
    monkeypatch.setitem(METRICS._facts, "count", {})
    run = built("digits", 'evals.test.metrics=({"name": "count", "factor": 2},'
                          ' {"name": "topk", "k": (3,)})')
    given = run.evaluations["test"].run(run.init().eval_variables())
    assert set(given) == {"loss", "count", "top3"}
    assert given["count"] == 2 * run.source.sizes["test"] and np.isfinite(given["loss"])
