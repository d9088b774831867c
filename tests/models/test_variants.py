"""One signature for the variants of a family."""

import inspect

import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes


def options(num_classes: int, *, width: int = 64, rate: float = 0.0):
    """A signature."""


@takes(options, rate=0.5)
def variant(num_classes, **given):
    """A variant."""
    return num_classes, given


def test_a_variant_is_called_with_every_option():
    assert variant(7) == (7, {"width": 64, "rate": 0.5})
    assert variant(7, rate=0.1) == (7, {"width": 64, "rate": 0.1})


def test_its_signature_is_that_of_the_options_with_its_own_defaults():
    parameters = inspect.signature(variant).parameters
    assert {name: p.default for name, p in parameters.items()} == {
        "num_classes": inspect.Parameter.empty, "width": 64, "rate": 0.5}
    assert variant.__name__ == "variant" and variant.__doc__ == "A variant."


def test_a_default_of_no_option_is_refused():
    with pytest.raises(AssertionError, match="widht"):
        takes(options, widht=3)


def test_configs_are_checked_against_it():
    build = MODELS.bind({"name": "convnext_small", "drop_path": 0.2}, "config.model")
    assert build(10).drop_path == 0.2 and MODELS.get("convnext_small")(10).drop_path == 0.4
    with pytest.raises(ConfigError, match="no argument 'drop_paht'"):
        MODELS.bind({"name": "convnext_small", "drop_paht": 0.2}, "config.model")
    with pytest.raises(ConfigError, match=r"drop_path='0\.2' is a str"):
        MODELS.bind({"name": "resnet50", "drop_path": "0.2"}, "config.model")
