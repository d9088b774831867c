"""Our logits against those of the references, with every tensor drawn anew by a rule."""

import pytest

from imgcls_jax.models import MODELS
from tests.pretrained import parity


def compared():
    """Every case at every size; by default and nightly the least ones, at their least size."""
    found, least = [], parity.least()
    for case, facts in parity.cases().items():
        for size in facts.sizes:
            small = facts.params < parity.SMALL
            first = case in least and size == min(facts.sizes)
            found.append(pytest.param(case, size, marks=(
                () if first and small else pytest.mark.nightly(rotating=not first))))
    return found


@pytest.mark.parametrize("case, size", compared())
def test_logits_are_the_references(case, size):
    found = parity.compare(case, size)
    assert found["error"] <= found["allowed"], found
    if 10 * found["reference_error"] > 1e-3 * found["across"]:
        assert parity.compare(case, size, "float64")["relative"] <= 1e-6


def test_parameters_are_as_many_as_the_references():
    # With arguments ours is another size than the one whose count is registered.
    recorded = {facts.model: facts.params for facts in parity.cases().values()
                if not facts.arguments}
    assert recorded == {model: MODELS.facts(model)["params"] for model in recorded}
