"""The oscillator that obeys its equation, and the equation that is a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.cli import main
from tensorgrad.examples import neural_ode, oscillator


def test_the_exact_swing_obeys_the_equation() -> None:
    """By differences."""
    t, h = np.linspace(0, 1, 50), 1e-4
    u, before, after = (oscillator.exact(t + k) for k in (0, -h, h))
    force, speed = (after - 2 * u + before) / h**2, (after - before) / (2 * h)
    rest = force + 2 * oscillator.DAMPING * speed + oscillator.FREQUENCY**2 * u
    np.testing.assert_allclose(rest, 0, atol=1e-3)
    assert oscillator.exact(np.zeros(1)) == 1.0


def test_the_residual_has_the_derivatives_of_the_network() -> None:
    """Against differences, in float64."""
    tg.manual_seed(0)
    model = oscillator.Swing(8).double()
    t, h = np.linspace(0, 1, 7)[:, None], 1e-4
    with tg.no_grad():
        u, before, after = (model(tg.tensor(t + k)).numpy() for k in (0, -h, h))
    damping, w2 = model.damping.item(), oscillator.FREQUENCY**2
    force, speed = (after - 2 * u + before) / h**2, (after - before) / (2 * h)
    expected = force / w2 + 2 * damping * speed / w2 + u
    found = model.residual(tg.tensor(t)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_equation_carries_beyond_the_measurements() -> None:
    """A third of the steps: it goes on to the end, and the damping is nearly found."""
    t, u = oscillator.measured(20, 0)
    late = np.linspace(0.4, 1, 100, dtype=np.float32)[:, None]
    errors = []
    for physics in (0.0, 1.0):
        tg.manual_seed(0)
        model = oscillator.Swing()
        oscillator.fit(model, t, u, physics, 1500)
        with tg.no_grad():
            found = model(tg.tensor(late)).numpy()
        errors.append(float(np.sqrt(np.mean((found - oscillator.exact(late)) ** 2))))
    assert errors[1] < 0.05
    assert errors[0] > 4 * errors[1]
    assert abs(model.damping.item() - oscillator.DAMPING) < 0.5


def test_a_step_of_runge_and_kutta_is_of_fourth_order() -> None:
    """Half the step, a sixteenth of the error; on arrays and tensors alike."""
    u = np.array([[1.0, 0.5]])

    def error(h: float) -> float:
        point = u
        for _ in range(round(1 / h)):
            point = neural_ode.runge_kutta(lambda x: -x, point, h)
        return float(np.abs(point - u * np.exp(-1)).max())

    assert 14 < error(0.1) / error(0.05) < 18
    found = neural_ode.runge_kutta(neural_ode.van_der_pol, tg.tensor(u), 0.1)
    expected = neural_ode.runge_kutta(neural_ode.van_der_pol, u, 0.1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_a_law_is_learned_from_what_was_seen() -> None:
    """A new motion is foretold for 40 steps, four times as far as while it learned."""
    tg.manual_seed(0)
    model = neural_ode.law()
    start = np.array([[1.0, 1.0], [-2.0, 0.5]])
    found, truth = neural_ode.foretold(model, start, 40)
    before = np.sqrt(np.mean((found - truth) ** 2))
    neural_ode.fit(model, neural_ode.observed(20, 60, 0), 300, 0)
    found, truth = neural_ode.foretold(model, start, 40)
    assert np.sqrt(np.mean((found - truth) ** 2)) < min(0.15, before / 8)


@pytest.mark.usefixtures("empty_folder")
def test_the_commands_leave_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swing, motion = oscillator.fit, neural_ode.fit
    monkeypatch.setattr(oscillator, "fit", lambda m, t, u, physics, _: swing(m, t, u, physics, 3))
    monkeypatch.setattr(neural_ode, "fit", lambda m, seen, _, seed: motion(m, seen, 3, seed))
    assert main(["demo", "oscillator", "--out", "swing"]) == 0
    assert "with the equation" in capsys.readouterr().out
    assert main(["demo", "neural-ode", "--out", "motion"]) == 0
    assert "three new motions" in capsys.readouterr().out
    for name in ("swing/swing.svg", "motion/motions.svg"):
        assert Path(name).read_text().count("<polyline") == 3
