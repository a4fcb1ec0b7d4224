"""Balancing a pole on a cart by deep Q-learning: ``tensorgrad demo cartpole``.

V. Mnih and others, "Human-level control through deep reinforcement learning", Nature 518, 2015. A
network learns what each action is worth, Q(s, a): the reward now, plus what the best action will be
worth afterwards. Two things keep that from chasing its own tail: a memory of past steps, from which
batches are drawn, and a copy of the network, the target network, that computes "afterwards" and
is brought up to date only now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.data import write_atomically
from tensorgrad.viz import draw_lines

Array = np.ndarray[Any, Any]

#: Gym's table says that CartPole-v1 is solved if 100 episodes in a row return so much on average.
SOLVED = 475.0
EPISODES = 100
LONGEST = 500  # steps, after which an episode of CartPole-v1 is cut off


class Environment(Protocol):
    """What gymnasium calls an environment."""

    def reset(self, *, seed: int | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode; returns the first state."""

    def step(self, action: int) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        """Returns the next state, the reward, whether the task has ended, whether time is up."""


class CartPole:
    """Gymnasium's CartPole-v1, with its numbers, for those who have not installed it.

    A. Barto, R. Sutton and C. Anderson, "Neuronlike adaptive elements that can solve difficult
    learning control problems", 1983, with the equations of R. Florian, 2007. A cart is pushed to
    the left (0) or right (1) with 10 N for 20 ms; the pole on it must stay within 12 degrees, the
    cart within 2.4 m. Each step is rewarded by 1.
    """

    def __init__(self) -> None:
        self._rng = np.random.default_rng()
        self._state = np.zeros(4)
        self._steps = 0

    def reset(self, *, seed: int | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode near the middle, upright."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._state = self._rng.uniform(-0.05, 0.05, 4)
        self._steps = 0
        return self._state.astype(np.float32), {}

    def step(self, action: int) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        """One push: the next state, reward, whether the pole has fallen, whether time is up."""
        _, speed, angle, turning = self._state
        force = 10.0 if action == 1 else -10.0
        cosine, sine = np.cos(angle), np.sin(angle)
        mass, pole, half = 1.1, 0.1, 0.5  # both together, the pole alone; half the pole's length
        pushed = (force + pole * half * turning**2 * sine) / mass
        angular = (9.8 * sine - cosine * pushed) / (half * (4.0 / 3.0 - pole * cosine**2 / mass))
        linear = pushed - pole * half * angular * cosine / mass
        self._state = self._state + 0.02 * np.array([speed, linear, turning, angular])
        self._steps += 1
        fallen = bool(abs(self._state[0]) > 2.4 or abs(self._state[2]) > 12 * 2 * np.pi / 360)
        return self._state.astype(np.float32), 1.0, fallen, self._steps >= LONGEST, {}


def make_environment() -> Environment:
    """CartPole-v1 of gymnasium where it is installed, or the same from above."""
    try:
        import gymnasium
    except ImportError:
        return CartPole()
    environment: Environment = gymnasium.make("CartPole-v1")
    return environment


class Memory:
    """The last steps: what was seen, done, gained, and seen next."""

    def __init__(self, size: int) -> None:
        self.states = np.zeros((size, 4), np.float32)
        self.actions = np.zeros((size, 1), np.int64)
        self.rewards = np.zeros((size, 1), np.float32)
        self.next_states = np.zeros((size, 4), np.float32)
        self.ended = np.zeros((size, 1), np.float32)
        self.count = 0

    def add(self, state: Array, action: int, reward: float, next_state: Array, ended: bool) -> None:
        """Keep one more step, in place of the oldest if there is no room."""
        k = self.count % len(self.states)
        self.states[k], self.actions[k], self.rewards[k] = state, action, reward
        self.next_states[k], self.ended[k] = next_state, ended
        self.count += 1

    def draw(self, rng: np.random.Generator, n: int) -> tuple[tg.Tensor, ...]:
        """``n`` steps at random."""
        k = rng.integers(0, min(self.count, len(self.states)), n)
        parts = (self.states, self.actions, self.rewards, self.next_states, self.ended)
        return tuple(tg.tensor(part[k]) for part in parts)


class Agent:
    """The network, its copy, and how it learns from a batch of steps."""

    def __init__(self, width: int = 128, discount: float = 0.99, lr: float = 1e-3) -> None:
        self.network, self.target = (
            nn.Sequential(
                nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                nn.Linear(width, 2),
            )
            for _ in range(2)
        )  # fmt: skip
        self.follow()
        optimizer = optim.Adam(self.network.parameters(), lr=lr)

        @tg.compile
        def learn(
            state: tg.Tensor,
            action: tg.Tensor,
            reward: tg.Tensor,
            next_state: tg.Tensor,
            ended: tg.Tensor,
        ) -> tg.Tensor:
            with tg.no_grad():
                later = self.target(next_state).max(axis=1, keepdims=True)
                worth = reward + discount * later * (1 - ended)
            optimizer.zero_grad()
            values = tg.take_along_axis(self.network(state), action, axis=1)
            loss = nn.functional.huber_loss(values, worth)
            loss.backward()
            optimizer.step()
            return loss

        self.learn = learn
        self._values = tg.compile(self.network)

    def follow(self) -> None:
        """Bring the target network up to date."""
        self.target.load_state_dict(self.network.state_dict())

    def best(self, states: Array) -> Array:
        """The action that the network finds best in each of some states."""
        with tg.no_grad():
            return self._values(tg.tensor(states)).numpy().argmax(axis=1)


def score(agent: Agent, environments: Sequence[Environment], seed: int) -> float:
    """The mean return of one episode in each environment, by the best actions alone.

    They are played side by side, so that the network is asked once for all of them.
    """
    states = [environment.reset(seed=seed + k)[0] for k, environment in enumerate(environments)]
    going = dict(zip(range(len(states)), environments))
    total = 0.0
    while going:
        actions = agent.best(np.stack(states))
        for k, environment in list(going.items()):
            states[k], reward, ended, cut, _ = environment.step(int(actions[k]))
            total += float(reward)
            if ended or cut:
                del going[k]  # its state stays, and is asked about in vain
    return total / len(states)


class Report(NamedTuple):
    """How training went: the return of each episode, the steps of all, and the final score."""

    returns: list[float]
    steps: int
    score: float


def train(
    agent: Agent,
    seed: int,
    steps: int = 100_000,
    at_random: int = 4000,
    *,
    watch: Callable[[list[float]], None] | None = None,
) -> Report:
    """Play and learn until 100 episodes score ``SOLVED``, or for so many ``steps``.

    At first actions are drawn at random; fewer and fewer of them, until it is one in twenty after
    the steps ``at_random``. Whenever an episode of training lasts to its end, the agent is put to
    the test, without random actions and on other episodes. watch: told the returns so far after
    each episode.
    """
    rng = np.random.default_rng(seed)
    environment, memory = make_environment(), Memory(50_000)
    tests = [make_environment() for _ in range(EPISODES)]
    state, _ = environment.reset(seed=seed)
    returns, total, found = list[float](), 0.0, 0.0
    for step in range(1, steps + 1):
        if rng.random() < max(0.05, 1 - step / at_random):
            action = int(rng.integers(2))
        else:
            action = int(agent.best(state[None])[0])
        after, reward, ended, cut, _ = environment.step(action)
        # Where time is up the task goes on, but for us: the state after is worth something.
        memory.add(state, action, float(reward), after, ended)
        state, total = after, total + float(reward)
        if step >= 500:
            agent.learn(*memory.draw(rng, 64))
        if step % 100 == 0:
            agent.follow()
        if ended or cut:
            returns.append(total)
            if watch is not None:
                watch(returns)
            state, _ = environment.reset()
            if total >= SOLVED and (found := score(agent, tests, 1000 * (seed + 1))) >= SOLVED:
                break
            total = 0.0
    return Report(returns, step, found)


def _say_mean(returns: list[float]) -> None:
    """A line for every 20 episodes, while they are played."""
    done = len(returns)
    if done % 20 == 0:
        print(f"{done - 19:>4} to {done:<4}{np.mean(returns[-20:]):>12.1f}", flush=True)


def run(folder: Path, seed: int) -> None:
    """Learn to balance; print when it is solved, and leave the curve and the weights."""
    tg.manual_seed(seed)
    agent = Agent()
    print(f"{'episodes':<12}{'mean return':>12}", flush=True)
    report = train(agent, seed, watch=_say_mean)
    episodes = len(report.returns)
    solved = "solved" if report.score >= SOLVED else "not solved"
    print(f"{report.steps:,} steps; then {EPISODES} new episodes without random actions:")
    print(f"mean return {report.score:.1f} of at most {LONGEST}: {solved} (from {SOLVED:g})")
    last = [np.mean(report.returns[max(0, k - 19) : k + 1]) for k in range(episodes)]
    numbers = np.arange(1, episodes + 1)
    curves = {"episode": (numbers, report.returns), "mean of the last 20": (numbers, last)}
    picture = draw_lines(curves, "return of CartPole-v1 while it learns", "episode")
    write_atomically(folder / "returns.svg", picture.encode())
    nn.save_safetensors(agent.network, folder / "model.safetensors")
