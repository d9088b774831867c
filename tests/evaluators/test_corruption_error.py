"""The mean corruption error, beside numpy's of the same predictions."""

import numpy as np
import pytest

from imgcls_jax import config
from imgcls_jax.assembly import build
from imgcls_jax.datasets.imagenet_c import ARCHIVES
from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators.corruption_error import ALEXNET, corruption_error
from tests.evaluators.splits import KERNEL, VARIABLES, features, made, parts

REFERENCE = {"fog": 0.8, "snow": 0.5}
SPLITS = {f"{name}-{severity}": made(30 + severity, 10 * i + severity)
          for i, name in enumerate(REFERENCE) for severity in range(1, 6)}


@pytest.mark.parametrize("devices", [1, 8])
def test_errors_are_summed_over_severities_and_divided_by_the_references(devices):
    evaluate = corruption_error(parts(devices, SPLITS), reference=REFERENCE)
    found = evaluate(VARIABLES)
    errors = {}
    for name in REFERENCE:
        wrong = [((features(images) @ KERNEL).argmax(1) != labels).mean()
                 for images, labels in (SPLITS[f"{name}-{s}"] for s in range(1, 6))]
        errors[name] = np.mean(wrong)  # of splits of other sizes: the mean of means
    assert set(found) == {"mce", "error", "fog_error", "snow_error"}
    np.testing.assert_allclose([found["fog_error"], found["snow_error"]],
                               [errors["fog"], errors["snow"]], rtol=1e-6)
    np.testing.assert_allclose(found["mce"], (errors["fog"] / 0.8 + errors["snow"] / 0.5) / 2,
                               rtol=1e-6)
    np.testing.assert_allclose(found["error"], np.mean(list(errors.values())), rtol=1e-6)
    assert 0 < found["error"] < 1
    assert set(evaluate.splits) == set(SPLITS)


def test_the_benchmark_is_the_15_corruptions_of_four_archives():
    assert set(ALEXNET) == {name for group, names in ARCHIVES.items() if group != "extra"
                            for name in names}
    np.testing.assert_allclose(np.mean(list(ALEXNET.values())), 0.787, atol=0.003)


def test_a_run_has_it_on_imagenet_c_and_refuses_it_elsewhere():
    c = config.load("imagenet/resnet:resnet18").config
    choice = {"name": "corruption_error", "transforms": ({"name": "center_crop", "size": 224},)}
    c["evals"] = {"c": {**choice, "data": {"name": "imagenet_c"}}}
    c["checkpoint"]["best"] = None
    assert set(build(c).evaluations) == {"c"}
    with pytest.raises(ConfigError, match="no split 'gaussian_noise-1'"):
        build({**c, "evals": {"c": choice}})
    with pytest.raises(ConfigError, match="reference"):
        build({**c, "evals": {"c": {**c["evals"]["c"], "reference": {"fog": 0.0}}}})
