"""Two blocks of a ResNet and of a ViT, compiled for a TPU: what the compiler says stays as it was.

The figures are deterministic for one version of libtpu; compiled.json has those of each. After a
change that is meant: IMGCLS_RECORD=1 pytest tests/contracts/test_compiled.py
"""

import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path

import pytest

from imgcls_jax.assembly import build, measured
from imgcls_jax.bench import compiled, topology

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("libtpu"),
                                reason="needs the extra tpu")
RECORDS = Path(__file__).parent / "compiled.json"
MODELS = {"resnet": ("resnet50", dict(norm_group=32)),
          "vit": ("vit_s16", dict(pool="gap", gelu="tanh", remat="values"))}
# A pass over an activation that was not there is some 5 % of two blocks.
MORE = 1.01
KEYS = ("cycles", "bytes_per_image", "flops_per_image", "peak_bytes", "collectives")


def figures(model: str) -> dict:
    name, arguments = MODELS[model]
    devices = topology.devices("v5e:1x1")
    config = measured.plain(name, 32, 64, "bf16") | {"model": {"name": name, **arguments}}
    facts = compiled.measure(build(config, devices=devices), images="bfloat16")
    return {key: facts[key] for key in KEYS}


@pytest.mark.usefixtures("two_blocks", "optimized")
@pytest.mark.parametrize("model", MODELS)
def test_a_step_has_not_become_dearer(model):
    found, version = figures(model), importlib.metadata.version("libtpu")
    records = json.loads(RECORDS.read_text())
    if os.environ.get("IMGCLS_RECORD"):
        records.setdefault(version, {})[model] = found
        RECORDS.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
    if version not in records:
        pytest.skip(f"no figures of libtpu {version} are recorded")
    known = records[version][model]
    assert found["collectives"] == known["collectives"] == {}
    for key in ("cycles", "bytes_per_image", "peak_bytes"):
        assert found[key] <= MORE * known[key], key
    # Less work would be mathematics left out.
    assert found["flops_per_image"] >= known["flops_per_image"] / MORE
