"""The records: scripts train, contestants do the same work, clocks count all of it.

Nothing here depends on how long anything takes.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.records import burtorch, cartpole, graphs, images, microgpt, shakespeare, transformer
from bench.records.__main__ import main
from bench.records.campaign import Run, disagreements, figures, verdicts
from bench.records.clock import Clock, Reading
from bench.records.contestants import maker
from bench.records.table import RECORDS, Bar, Record

PEERS = ["torch", "jax"]


def write_names(folder: Path, count: int, lengths: tuple[int, ...]) -> None:
    draw = random.Random(0)
    names = ["".join(draw.choices("abcdefgh", k=lengths[n % len(lengths)])) for n in range(count)]
    (folder / "names").mkdir()
    (folder / "names" / "names.txt").write_text("\n".join(names))


def write_images(folder: Path, count: int) -> None:
    """Ten classes that are told apart by the brightness of a row."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part in ("train", "t10k"):
        labels = draw.integers(0, 10, count).astype(np.uint8)
        pixels = draw.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        pixels[np.arange(count), 2 * labels + 3] = 255
        for kind, head, values in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            packed = gzip.compress(bytes(head) + values.tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(packed)


def write_text(folder: Path, count: int) -> None:
    """Characters of which each but every fourth follows from the one before."""
    draw = random.Random(0)
    words = ["abcd", "cdea", "bdac"]
    (folder / "tinyshakespeare").mkdir()
    (folder / "tinyshakespeare" / "input.txt").write_text("".join(draw.choices(words, k=count)))


def clock() -> Clock:
    return Clock(time.monotonic())


# --- the scripts ----------------------------------------------------------------------------------


def test_microgpt_has_4192_parameters() -> None:
    assert sum(a.size for a in microgpt.parameters(0).values()) == 4_192


def test_padding_changes_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microgpt, "STEPS", 6)
    write_names(tmp_path, 6, (3, 5))
    make = maker("tensorgrad")
    own, padded = (microgpt.run(make, tmp_path, 0, clock(), padded=p) for p in (False, True))
    assert own["steps"] == padded["steps"] == 6
    assert abs(own["score"] - padded["score"]) < 1e-5
    assert own["score"] < own["first_loss"]


@pytest.mark.parametrize("units", [4, 16, 32, 64, 128, 512, 1024])
def test_the_mlp_on_names_has_the_published_number_of_parameters(units: int) -> None:
    published = {
        4: 5_963, 16: 18_587, 32: 35_419, 64: 69_083, 128: 136_411, 512: 540_379, 1024: 1_079_003,
    }  # fmt: skip
    found = burtorch.mlp_parameters(np.random.default_rng(0), units)
    assert sum(a.size for a in found.values()) == published[units]


def test_the_small_gpt_has_46337_parameters() -> None:
    found = transformer.parameters(np.random.default_rng(0), burtorch.GPT, 0.02)
    assert sum(a.size for a in found.values()) == 46_337


def test_contexts_hold_what_comes_before_each_letter(tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "names.txt").write_text("ab\nc\n")
    before, following = burtorch.contexts(tmp_path)
    assert following.tolist() == [1, 2, 0, 3, 0]
    assert before[:, -2:].tolist() == [[0, 0], [0, 1], [1, 2], [0, 0], [0, 3]]
    assert not before[:, :-2].any()


@pytest.mark.parametrize("who", ["tensorgrad", *PEERS])
@pytest.mark.parametrize("name", ["names MLP 4, batch 64", "small GPT, batch 1"])
def test_plain_gradient_descent_makes_the_same_steps(
    name: str, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(who)
    monkeypatch.setattr(burtorch, "STEPS", 6)
    monkeypatch.setattr(burtorch, "GPT_RATE", 0.1)
    write_names(tmp_path, 30, (3, 5))
    write_text(tmp_path, 100)
    found = RECORDS[name].run(maker(who), tmp_path, 0, clock())
    wanted = RECORDS[name].run(maker("tensorgrad"), tmp_path, 0, clock())
    assert found["steps"] == 6
    assert found["parts"].keys() == {"6 further steps"}
    np.testing.assert_allclose(found["first_loss"], wanted["first_loss"], rtol=1e-5)
    np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-4)


@pytest.mark.parametrize("who", ["tensorgrad", *PEERS])
def test_plain_gradient_descent_follows_the_slope(who: str) -> None:
    """Of (w - 3)**2 / 2 from 1: at a rate of 1/4 a quarter of the way is left behind each time."""
    pytest.importorskip(who)

    def loss(ops: Any, p: Any, wanted: Any) -> Any:
        return ((p["w"] - wanted) ** 2).sum() * 0.5

    training = maker(who)({"w": np.ones(1, np.float32)}, loss, loss, None)
    wanted = np.full(1, 3, np.float32)
    for rate in (0.25, 0.25, 0.5):
        training.step(rate, wanted)
    np.testing.assert_allclose(training.values()["w"], 3 - 2 * 0.75**2 * 0.5)


@pytest.mark.parametrize("who", ["tensorgrad", *PEERS])
def test_shakespeare_is_learned_until_the_goal(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text in which each fourth character costs log 3, and the others next to nothing."""
    pytest.importorskip(who)
    write_text(tmp_path, 600)
    sizes = shakespeare.SIZES._replace(context=8, width=16, layers=1)
    settings = {"SIZES": sizes, "STEPS": 300, "RATE": 0.02, "STRETCHES": 8, "TESTED": 20}
    for name, value in {**settings, "GOAL": 0.9}.items():
        monkeypatch.setattr(shakespeare, name, value)
    found = shakespeare.run(maker(who), tmp_path, 0, clock())
    assert found["reached"] is not None
    assert 0.3 < found["score"] <= 0.9 / np.log(2)
    assert 240 < found["steps"] <= 300
    start = shakespeare.parameters(0, sizes._replace(tokens=5))
    assert abs(found["first_loss"] - np.log(5)) < 1
    assert not start["pairs"].any()


def test_costs_are_those_of_a_softmax() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])) + 7
    found = shakespeare.log_loss(logits, np.array([1, 2]))
    assert abs(found + (np.log(0.25) + np.log(0.8)) / 2) < 1e-12


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("what", ["microgpt", "convolutional"])
def test_peers_make_the_same_steps(what: str, peer: str) -> None:
    pytest.importorskip(peer)
    found = []
    for who in ("tensorgrad", peer):
        batch: tuple[Any, ...]
        if what == "microgpt":
            training = maker(who)(microgpt.parameters(0), microgpt.loss, microgpt.logits)
            batch = np.array([26, 3, 4, 0]), np.array([3, 4, 26, -1])
        else:
            training = images.training_of(maker(who), what, 0)
            draw = np.random.default_rng(1)
            batch = draw.integers(0, 256, (4, 784)).astype(np.uint8), np.arange(4)
        losses = [float(training.step(1e-3, *batch)) for _ in range(3)]
        found.append((losses, training.outputs(batch[0]), training.values()))
    (losses, outputs, values), (theirs, their_outputs, their_values) = found
    assert losses[2] < losses[0]
    np.testing.assert_allclose(theirs, losses, rtol=1e-3)
    np.testing.assert_allclose(their_outputs, outputs, rtol=0.02, atol=0.02)
    assert values.keys() == their_values.keys()


@pytest.mark.parametrize("name", graphs.GRAPHS)
def test_graphs_have_one_value_and_one_gradient(name: str) -> None:
    """Those of differences."""
    of = graphs.GRAPHS[name]

    def value(a: float, b: float) -> float:
        return float(of.function(a, b, lambda x: max(x, 0.0)))

    def difference(da: float, db: float) -> float:
        return (value(of.a + da, of.b + db) - value(of.a - da, of.b - db)) / 2e-5

    wanted = [value(of.a, of.b), difference(1e-5, 0), difference(0, 1e-5)]
    for who in ("tensorgrad", *filter(importlib.util.find_spec, PEERS)):
        make = maker(who)
        call = importlib.import_module(make.__module__).graph(make, of)
        for _ in range(2):
            np.testing.assert_allclose([float(x) for x in call()], wanted, rtol=1e-6)


def test_images_are_learned_until_the_goal(tmp_path: Path) -> None:
    write_images(tmp_path / "rows", 1200)
    for goal, reached in ((0.9, True), (1.1, False)):
        recipe = images.Recipe("rows", "dense", goal, 100, 1e-2, 2)
        found = images.run(maker("tensorgrad"), tmp_path, 0, clock(), recipe)
        assert (found["reached"] is not None) is reached
        assert found["score"] >= 0.9
        assert found["steps"] <= 24


def test_a_cart_moves_as_newton_says() -> None:
    """Upright and at rest, a push of 10 N: accelerations from the equations, solved here anew."""
    states = np.zeros((2, 4), np.float32)
    after = cartpole.moved(states, np.array([True, False]))
    # (M + m) x'' + m l a'' = F and x'' + 4/3 l a'' = g sin(a), at a = 0
    speed, turn = np.linalg.solve([[1.1, 0.05], [1.0, 4 / 3 * 0.5]], [10.0, 0.0])
    np.testing.assert_allclose(after[0], [0, 0.02 * speed, 0, 0.02 * turn], rtol=1e-6)
    np.testing.assert_allclose(after[1], -after[0], rtol=1e-6)


def test_carts_fall_at_the_borders() -> None:
    states = np.array([[0, 9, 0, 9], [2.5, 0, 0, 0], [0, 0, -0.22, 0], [-2.3, 0, 0.2, 0]])
    assert cartpole.fallen(states).tolist() == [False, True, True, False]


def test_a_cart_is_learned_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A goal that chance alone does not reach: it holds for 20 steps or so."""
    monkeypatch.setattr(cartpole, "GOAL", 60.0)
    found = cartpole.run(maker("tensorgrad"), tmp_path, 0, clock())
    assert found["reached"] is not None
    assert 60 <= found["score"] <= 500
    assert found["steps"] % cartpole.TESTED == 0


@pytest.mark.parametrize("who", ["tensorgrad", *PEERS])
def test_parameters_are_given_and_taken(who: str) -> None:
    pytest.importorskip(who)
    one, other = (images.training_of(maker(who), "dense", seed) for seed in (0, 1))
    x = np.full((2, 784), 100, np.uint8)
    assert (one.outputs(x) != other.outputs(x)).any()
    other.take(one.values())
    np.testing.assert_array_equal(one.outputs(x), other.outputs(x))


def test_the_rate_rises_and_falls_to_zero() -> None:
    recipe = images.Recipe("", "dense", 1.0, 1, 0.5, 1)
    found = [images.rate(recipe, done) for done in (0.0, 0.25, 0.625, 1.0)]
    np.testing.assert_allclose(found, [0, 0.5, 0.25, 0])


# --- the clock ------------------------------------------------------------------------------------


def test_the_clock_counts_children_that_ended() -> None:
    watch = clock()
    before = watch.read()
    subprocess.run([sys.executable, "-c", "sum(range(10**6))"], check=True)
    passed = watch.read().since(before)
    assert passed.processor > 0.005  # starting Python alone takes more
    assert passed.seconds > 0


# --- figures --------------------------------------------------------------------------------------


def run_of(who: str, processor: float | None, seed: int = 0, loss: float = 1.0) -> Run:
    reached = None if processor is None else Reading(2 * processor, processor)
    parts = {"further": [1.0, 0.1]}
    found = {"reached": reached, "first_loss": loss, "score": 2 * loss, "parts": parts}
    return Run("microgpt", who, "first", seed, found)


def test_figures_are_medians_of_those_who_arrived() -> None:
    runs = [run_of("tensorgrad", t, n) for n, t in enumerate((1.0, 5.0, 2.0))]
    runs += [run_of("torch", 9.0), run_of("torch", None, 1)]
    runs.append(Run("microgpt", "jax", "first", 0, {"error": "no jax"}))
    found = figures(runs, "microgpt")
    assert found["first"].keys() == {"tensorgrad"}
    assert found["first"]["tensorgrad"].processor == 2.0
    assert found["first"]["tensorgrad"].seconds == 4.0
    assert found["further"].keys() == {"tensorgrad", "torch"}
    assert found["first"]["tensorgrad"].score == 2.0
    assert found["further"]["torch"].score is None


def test_bars_are_judged_by_processor_time() -> None:
    found = figures(
        [run_of("tensorgrad", 1.0), run_of("torch", 8.0), run_of("jax", 4.0)], "microgpt"
    )
    bars = (Bar(seconds=0.5, best=0.3, eager=0.2), Bar("further", seconds=0.5))
    record = Record("", dict, "", bars)
    judged = [(value, limit) for _, value, limit in verdicts(record, found)]
    assert judged == [(1.0, 0.5), (0.25, 0.3), (0.125, 0.2), (0.1, 0.5)]


def test_other_first_losses_are_told() -> None:
    runs = [run_of("tensorgrad", 1.0), run_of("torch", 1.0, loss=1.1), run_of("jax", 1.0)]
    (told,) = disagreements(runs, "microgpt")
    assert told.startswith("torch")


# --- the command ----------------------------------------------------------------------------------


def test_a_record_is_run_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_names(tmp_path, 1_000, (3, 4))
    file = tmp_path / "records.json"
    arguments = ["--data", str(tmp_path), "--only", "microgpt padded", "--rounds", "1"]
    arguments += ["--contestants", "tensorgrad", "--threads", "1", "--json", str(file)]
    assert main(arguments) == 0
    about = json.loads(file.read_text())
    record = about["records"]["microgpt padded"]
    assert [run["phase"] for run in record["runs"]] == ["first", "again"]
    assert all(run["found"]["steps"] == 1_000 for run in record["runs"])
    assert record["figures"].keys() == {"first", "again", "1,000 further steps"}
    assert about["versions"].keys() == {"tensorgrad"}
    assert str(tmp_path) not in file.read_text()
    printed = capsys.readouterr().out
    assert "## microgpt padded" in printed
    assert "1,000 further steps, seconds of processors" in printed
    arguments = ["--data", str(tmp_path), "--only", "microgpt padded", "--rounds", "0"]
    assert main([*arguments, "--add", str(file)]) == 0
    again = capsys.readouterr().out
    assert printed[printed.index("## microgpt") :] == again[again.index("## microgpt") :]


def test_a_run_that_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_names(tmp_path, 0, (3,))  # no names: nothing to learn from
    arguments = ["--data", str(tmp_path), "--only", "microgpt", "--rounds", "1"]
    assert main([*arguments, "--contestants", "tensorgrad"]) == 1
    assert "IndexError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--only", "microgpt"], "holds no folder names"), (["--contestants", "nobody"], "nobody")],
)
def test_what_is_not_there_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), *arguments])
    assert said in capsys.readouterr().err


def test_every_record_says_what_it_needs() -> None:
    for name, record in RECORDS.items():
        assert record.goal, name
        assert all(bar.seconds or bar.best or bar.eager for bar in record.bars), name
