"""The pole on a cart: the environment is Gymnasium's, and the agent learns."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.cli import main
from tensorgrad.examples import cartpole


def test_our_cart_moves_as_that_of_gymnasium() -> None:
    """The same states, to the last bit, from the same seed; the same ends."""
    gymnasium = pytest.importorskip("gymnasium")
    theirs, ours = gymnasium.make("CartPole-v1"), cartpole.CartPole()
    rng = np.random.default_rng(0)
    for seed in range(5):
        np.testing.assert_array_equal(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
        ended = False
        while not ended:
            action = int(rng.integers(2))
            expected, found = theirs.step(action), ours.step(action)
            np.testing.assert_array_equal(found[0], expected[0])
            assert found[1:4] == expected[1:4]
            ended = found[2]
    assert theirs.spec.reward_threshold == cartpole.SOLVED
    assert theirs.spec.max_episode_steps == cartpole.LONGEST


def test_an_episode_ends_when_the_pole_falls_or_the_time_is_up() -> None:
    """Pushed always to the right it falls within ten steps; pushed against its fall it stays."""
    cart = cartpole.CartPole()
    cart.reset(seed=0)
    ends = [cart.step(1)[2] for _ in range(12)]
    assert 7 <= ends.index(True) <= 10
    state, _ = cart.reset(seed=0)
    steps, cut = 0, False
    while not cut:
        state, _, fallen, cut, _ = cart.step(int(state @ [0.1, 0.2, 1, 1] > 0))
        steps += 1
        assert not fallen
    assert steps == cartpole.LONGEST


def test_memory_forgets_the_oldest() -> None:
    memory = cartpole.Memory(3)
    for k in range(5):
        memory.add(np.full(4, k), k % 2, float(k), np.full(4, k + 1), k == 4)
    states, actions, rewards, after, ended = memory.draw(np.random.default_rng(0), 100)
    assert set(rewards.numpy().ravel()) == {2.0, 3.0, 4.0}
    np.testing.assert_array_equal(states.numpy() + 1, after.numpy())
    np.testing.assert_array_equal(actions.numpy(), rewards.numpy() % 2)
    np.testing.assert_array_equal(ended.numpy(), rewards.numpy() == 4)


def test_values_go_towards_the_rewards_of_the_target_network() -> None:
    """The loss of a step where nothing comes afterwards goes to zero, where Q is the reward."""
    tg.manual_seed(0)
    agent = cartpole.Agent(width=16, lr=1e-2)
    batch = (tg.ones((8, 4)), tg.tensor([[0], [1]] * 4), tg.ones((8, 1)) * 3, tg.zeros((8, 4)))
    for _ in range(300):
        agent.learn(*batch, tg.ones((8, 1)))
    found = agent.network(tg.ones((1, 4))).detach().numpy()
    np.testing.assert_allclose(found, np.full((1, 2), 3.0), atol=0.05)
    later = agent.target(tg.zeros((1, 4))).max().item()  # not brought up to date meanwhile
    loss = agent.learn(*batch, tg.zeros((8, 1))).item()
    assert loss == pytest.approx((0.99 * later) ** 2 / 2, rel=0.2)


def test_it_learns_to_balance() -> None:
    """By 3,000 steps at least four times as long as by chance."""
    tg.manual_seed(0)
    agent = cartpole.Agent()
    environments = [cartpole.CartPole() for _ in range(20)]
    before = cartpole.score(agent, environments, 0)
    report = cartpole.train(agent, 0, steps=3000, at_random=1500)
    by_chance = max(before, float(np.mean(report.returns[:10])))
    after = cartpole.score(agent, environments, 0)
    assert by_chance < 40
    assert after > 4 * by_chance


@pytest.mark.usefixtures("empty_folder")
def test_the_command_says_whether_it_is_solved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And leaves the curve and the weights."""
    monkeypatch.setattr(cartpole.train, "__defaults__", (700, 600))
    assert main(["demo", "cartpole", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert "700 steps" in out
    assert re.search(r"\n   1 to 20 +\d+\.\d\n", out)
    assert "not solved (from 475)" in out
    assert {"returns.svg", "model.safetensors"} <= {p.name for p in Path("run").iterdir()}
    assert main(["demo", "cartpole", "--out", "other", "--data", "x"]) == 2
    assert "leave out --data" in capsys.readouterr().err
    assert not Path("other").exists()
