"""Moving averages of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.optim import SGD, ExponentialMovingAverage


def model() -> nn.Linear:
    net = nn.Linear(2, 1)
    net.weight.detach().copy_(np.array([[1.0, 2.0]]))
    return net


@pytest.mark.parametrize("warm_up", [False, True])
def test_closed_form(warm_up: bool) -> None:
    """mean <- decay mean + (1 - decay) weight; the first steps forget sooner with warm-up."""
    net = model()
    average = ExponentialMovingAverage(net, 0.9, warm_up)
    expected = np.array([[1.0, 2.0]])
    for n in range(1, 30):
        value = np.array([[n, -n]], np.float32)
        net.weight.detach().copy_(value)
        average.update()
        decay = min(0.9, (1 + n) / (10 + n)) if warm_up else 0.9
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        np.testing.assert_allclose(net.weight.detach().numpy(), expected, rtol=1e-5)
    assert net.weight.tolist() == [[29, -29]]
    average.copy_to_model()
    np.testing.assert_allclose(net.weight.detach().numpy(), expected, rtol=1e-5)


def test_saved_and_loaded() -> None:
    """Goes on with the same bits; other parameters are refused."""
    net = model()
    average = ExponentialMovingAverage(net)
    net.weight.detach().copy_(np.zeros((1, 2)))
    average.update()
    other = ExponentialMovingAverage(net)
    other.load_state_dict(average.state_dict())
    average.update()
    other.update()
    for name, mean in average.state_dict()["means"].items():
        assert other.state_dict()["means"][name].data.tobytes() == mean.data.tobytes()
    with pytest.raises(ValueError, match="the state must have the means of weight, bias"):
        average.load_state_dict({"means": {}, "steps": 0})
    with pytest.raises(ValueError, match="decay must lie in"):
        ExponentialMovingAverage(net, 1.0)


def test_frozen_parameters_are_left_out_and_16_bits_widened() -> None:
    """A mean of 16 bits would not move."""
    net = model().half()
    assert net.bias is not None
    net.bias.requires_grad_(False)
    average = ExponentialMovingAverage(net, 0.9999, warm_up=False)
    assert list(average.state_dict()["means"]) == ["weight"]
    net.weight.detach().copy_(np.array([[1.01, 2.0]]))
    for _ in range(5000):
        average.update()
    assert average.state_dict()["means"]["weight"].numpy()[0, 0] > 1.003


@pytest.mark.parametrize("warm_up", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_in_a_compiled_step(dtype: str, warm_up: bool) -> None:
    """The count goes on in replays, and the means are computed in C where there is a compiler."""

    def means(compiled: bool) -> Any:
        net = model().to(dtype)
        net.bias.detach().copy_(0.5)  # type: ignore[union-attr]
        average = ExponentialMovingAverage(net, 0.9, warm_up)
        optimizer = SGD(net.parameters(), lr=0.01)

        def step(x: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = (net(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            average.update()
            return loss

        run: Any = tg.compile(step) if compiled else step
        for i in range(9):
            run(Tensor(np.array([[1.0, i]]), dtype=dtype))
        if compiled:
            assert "call average" not in str(run.report())
        return average.state_dict()

    plain, compiled = means(False), means(True)
    assert compiled["steps"] == plain["steps"] == 9
    for name, mean in plain["means"].items():
        np.testing.assert_allclose(compiled["means"][name].numpy(), mean.numpy(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_looking_at_the_means_does_not_round_them(dtype: str) -> None:
    """Those of 16-bit weights are float32, and stay what they are, also after an error."""
    net = model().to(dtype)
    average = ExponentialMovingAverage(net, 0.999, warm_up=False)
    net.weight.detach().copy_(np.array([[1.5, 2.25]]))
    for _ in range(3):
        average.update()
    before = average.state_dict()["means"]["weight"].numpy()
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    with average.applied(), average.applied():
        np.testing.assert_array_equal(
            net.weight.float().detach().numpy(), before.astype(net.weight.dtype)
        )
    assert net.weight.tolist() == [[1.5, 2.25]]
    np.testing.assert_array_equal(average.state_dict()["means"]["weight"].numpy(), before)
