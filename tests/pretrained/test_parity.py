"""Our logits against those of the references, with every tensor drawn anew by a rule."""

import pytest

from experiments.parity import compare
from imgcls_jax.models import MODELS

ALONE = 150_000_000  # parameters: larger ones take up to 16 GB of memory


def compared():
    """Every case at every size; by default the least of each publisher, and nightly the least
    ones, at their least size."""
    found, least, seen = [], compare.least(), set()
    for case, facts in compare.cases().items():
        for size in facts.sizes:
            publisher, small = case.partition("_")[0], facts.params < compare.SMALL
            first = case in least and size == min(facts.sizes)
            found.append(pytest.param(case, size, marks=(
                () if first and small and publisher not in seen else pytest.mark.nightly(
                    rotating=not first, alone=facts.params > ALONE))))
            seen |= {publisher} if first else set()
    return found


@pytest.mark.parametrize("case, size", compared())
def test_logits_are_the_references(case, size):
    found = compare.compare(case, size)
    assert found["error"] <= found["allowed"], found
    if 10 * found["reference_error"] > 1e-3 * found["across"]:
        assert compare.compare(case, size, "float64")["relative"] <= 1e-6


def test_parameters_are_as_many_as_the_references():
    # With arguments ours is another size than the one whose count is registered.
    recorded = {facts.model: facts.params for facts in compare.cases().values()
                if not (facts.arguments or facts.resized)}
    assert recorded == {model: MODELS.facts(model)["params"] for model in recorded}
