"""The public surface: what `import imgcls_jax` promises."""

import subprocess
import sys
from pathlib import Path

import pytest

import imgcls_jax

FRESH = """
import sys
import imgcls_jax
assert set(imgcls_jax.__all__) <= set(dir(imgcls_jax)) and "models" in dir(imgcls_jax)
assert not {"jax", "flax", "numpy", "tensorflow"} & set(sys.modules), "the import is not instant"
assert "resnet50" in imgcls_jax.models.MODELS.names()
assert imgcls_jax.MODELS is imgcls_jax.models.MODELS
assert "tensorflow" not in sys.modules
"""


def test_the_names_are_there_when_asked_for_and_cost_nothing_before():
    subprocess.run([sys.executable, "-c", FRESH], check=True)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'modles'"):
        imgcls_jax.modles  # noqa: B018


def test_the_package_says_that_it_is_typed():
    assert Path(imgcls_jax.__file__).with_name("py.typed").exists()
