"""Row E6 of the lectures: deep Q-learning, on a grid whose values are known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn, optim

SIDE, GAMMA = 4, 0.9
GOAL, PIT = (3, 3), (1, 1)
PLACES = np.array([(k // SIDE, k % SIDE) for k in range(SIDE**2)])
MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])


def moved(place: Any, action: Any) -> tuple[Any, Any, Any]:
    """The next place, the reward, and whether the walk ends, for many places at once."""
    there = np.clip(place + MOVES[action], 0, SIDE - 1)
    won, lost = ((there == end).all(axis=-1) for end in (GOAL, PIT))
    return there, won * 1.0 - lost, won | lost


def exact_values() -> Any:
    """What each action is worth at each place, by repeating Bellman's equation."""
    places = PLACES[:, None].repeat(4, 1)
    there, reward, done = moved(places, np.arange(4))
    values = np.zeros((SIDE**2, 4))
    for _ in range(60):
        best = values.max(axis=-1)[there[..., 0] * SIDE + there[..., 1]]
        values = reward + GAMMA * best * ~done
    return values


def seen(place: Any) -> tg.Tensor:
    """A picture: 1 where the walker is."""
    picture = np.zeros((len(place), SIDE, SIDE), np.float32)
    picture[np.arange(len(place)), place[:, 0], place[:, 1]] = 1
    return tg.tensor(picture)


def network() -> nn.Sequential:
    draws = tg.Generator(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIDE**2, 64, generator=draws), nn.ReLU(),
        nn.Linear(64, 4, generator=draws),
    )  # fmt: skip


def test_E6_deep_q_learning() -> None:
    """Mnih and others, 2015: replayed steps, and targets from a network that lags behind."""
    model, behind = network(), network()
    optimizer = optim.Adam(model.parameters(), lr=5e-3)

    @tg.compile
    def step(x: tg.Tensor, action: tg.Tensor, target: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        values = tg.take_along_axis(model(x), action, axis=1)
        loss = nn.functional.huber_loss(values, target)
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(0)
    walkers = rng.integers(0, SIDE, (32, 2))
    replay: list[tuple[Any, ...]] = []
    for time in range(800):
        with tg.no_grad():
            greedy = model(seen(walkers)).numpy().argmax(axis=1)
        action = np.where(rng.random(32) < 0.4, rng.integers(0, 4, 32), greedy)
        there, reward, done = moved(walkers, action)
        replay += zip(walkers, action, reward, there, done)
        walkers = np.where(done[:, None], rng.integers(0, SIDE, (32, 2)), there)
        if time % 20 == 0:
            behind.load_state_dict(model.state_dict())
        batch = [replay[k] for k in rng.integers(max(0, len(replay) - 5000), len(replay), 64)]
        place, chosen, gained, after, ended = map(np.array, zip(*batch))
        with tg.no_grad():
            best = behind(seen(after)).numpy().max(axis=1)
        target = (gained + GAMMA * best * ~ended).astype(np.float32)
        step(seen(place), tg.tensor(chosen[:, None]), tg.tensor(target[:, None]))

    inside = [not ((p == GOAL).all() or (p == PIT).all()) for p in PLACES]
    with tg.no_grad():
        found = model(seen(PLACES)).numpy()[inside]
    wanted = exact_values()[inside]
    np.testing.assert_allclose(found.max(axis=1), wanted.max(axis=1), atol=0.05)
    chosen = wanted[np.arange(len(wanted)), found.argmax(axis=1)]
    np.testing.assert_allclose(chosen, wanted.max(axis=1))
