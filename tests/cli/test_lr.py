"""imgcls lr: a rise of the rate until the loss has risen, and the rates read off the curve."""

import json

import numpy as np
import pytest
from PIL import Image

from imgcls_jax.cli import _command as command
from imgcls_jax.training import range_test
from tests.commands import error_lines


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of the digits, without momentum."""
    import contextlib
    import io

    out, path = io.StringIO(), tmp_path_factory.mktemp("lr") / "curve.png"
    with contextlib.redirect_stdout(out):
        assert command.main(["lr", "--config=digits", "--json", "--steps=60", "--low=1e-3",
                             "--high=1e3", f"--out={path}", "--config.batch_size=64",
                             "--config.model.name=vit_mini", "--config.model.width=16",
                             "--config.model.depth=0", "--config.model.stem=()"]) == 0
    return json.loads(out.getvalue()), path


def test_rates_grow_by_equal_factors_until_the_loss_has_risen(found):
    values, _ = found
    steps = np.diff(np.log(values["rates"]))
    np.testing.assert_allclose(steps, np.log(1e6) / 59, rtol=1e-3)
    np.testing.assert_allclose(values["rates"][0], 1e-3, rtol=1e-6)
    assert len(values["rates"]) < 60
    most = range_test.DIVERGED * min(values["smoothed"])
    assert values["smoothed"][-1] > most or not np.isfinite(
        values["losses"][-1])


def test_what_it_suggests_lies_where_the_loss_falls(found):
    values, _ = found
    at = values["rates"].index(values["steepest"])
    lowest = int(np.argmin(values["smoothed"]))
    assert 0 < at <= lowest
    assert values["smoothed"][lowest] < values["smoothed"][0]
    np.testing.assert_allclose(values["tenth"], values["rates"][lowest] / 10)


def test_the_picture_has_the_curve(found):
    image = np.asarray(Image.open(found[1]).convert("RGB"))
    black = (image == 0).all(-1)
    assert image.shape == (400, 720, 3) and black[50:350, 50:670].any(0).mean() > 0.9


def test_the_mean_is_without_the_bias_of_its_start():
    np.testing.assert_allclose(range_test.smooth([3.0] * 7), 3.0)
    second = (0.95 * 0.05 + 0.05 * 2) / (1 - 0.95**2)
    np.testing.assert_allclose(range_test.smooth([1.0, 2.0]), [1.0, second])


def test_of_a_known_curve_the_rates_are_read_off():
    rates = np.geomspace(1e-4, 1, 41)
    losses = 2 - np.tanh(np.log10(rates / 1e-2) * 3) + 5 * (rates > 0.5)
    losses[:2] += (5, -5)  # of few batches
    chosen = range_test.choose(list(rates), list(losses))
    np.testing.assert_allclose([chosen["steepest"], chosen["tenth"]],
                               [1e-2, rates[rates <= 0.5][-1] / 10])


def test_the_base_is_of_as_many_examples_as_the_schedule_says(capsys, monkeypatch):
    curve = (np.geomspace(1e-4, 1, 20).tolist(), np.linspace(2, 1, 20).tolist())
    monkeypatch.setattr(range_test, "measure", lambda _: curve)
    assert command.main(["lr", "--config=digits", "--json",
                         "--config.schedule={'name': 'constant', 'base': 0.1, 'per': 256}",
                         "--config.batch_size=64"]) == 0
    values = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(values["base"], 4 * values["steepest"])


def test_rates_that_do_not_rise_are_refused(capsys):
    assert command.main(["lr", "--config=digits", "--low=1", "--high=0.1"]) == 2
    assert "--low, --high" in "\n".join(error_lines(capsys.readouterr().err))
