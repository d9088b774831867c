"""The training step lowers for GPUs and TPUs on a machine that has none."""

import jax
import pytest

from imgcls_jax.assembly import build, measured

NIGHTLY = pytest.mark.nightly
MODELS = ("vit_mini", *(pytest.param(name, marks=NIGHTLY) for name in (
    "resnet50", "vit_s16", "vit_b16", "efficientnet_b0")))


@pytest.mark.parametrize("model", MODELS)
def test_a_step_lowers_for_a_device_that_is_not_there(model):
    """Forms are chosen by platform while lowering: each must have one for every platform."""
    size = 16 if model == "vit_mini" else 64
    depth = {"depth": 1} if model == "vit_mini" else {}  # its six blocks are alike
    config = measured.plain(model, 8, size, "bf16")
    run = build({**config, "model": {**config["model"], **depth}})
    traced = jax.jit(run.step).trace(run.abstract_state, run.abstract_batch)
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "bf16" in text and "stablehlo.dot_general" in text, platform
