"""``tensorgrad generate``: a trained network writes."""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np

from tensorgrad import backend
from tensorgrad.cli.build import load_run
from tensorgrad.cli.text import decoded, encoded
from tensorgrad.errors import TensorgradError
from tensorgrad.nn.models import GPT
from tensorgrad.ops.random import Generator
from tensorgrad.ops.shaping import concat
from tensorgrad.tensor import Tensor


def generate(
    run: str,
    prompt: str = "",
    length: int = 500,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> None:
    """Print ``prompt`` and ``length`` further tokens, drawn from the network in the folder ``run``.

    temperature: what logits are divided by; 0 takes the likeliest token. top_k: draw from that many
    of the likeliest alone.

    Raises TensorgradError for a run that is not of text, or a prompt with unknown characters.
    """
    place = backend.normalize(device)
    found = load_run(run, place)
    problem = found.problem
    if not problem.is_text:
        raise TensorgradError(f"{run} was not trained on text; generate goes on with a text")
    text: str | bytes = prompt or _beginning(problem.vocabulary)
    if not problem.vocabulary:
        text = str(text).encode()
    tokens = encoded(problem, text, "--prompt").astype(np.int64)
    network: Any = found.model[0]
    written = _continued(
        network, Tensor(tokens[None], device=place), length, problem.shape[0],
        (temperature, top_k, Generator(seed)),
    )  # fmt: skip
    new = written.cpu().numpy()[0, len(tokens) :]
    sys.stdout.write(prompt + decoded(problem, new) + "\n")


def _continued(
    network: Any, tokens: Tensor, length: int, context: int, how: tuple[Any, ...]
) -> Tensor:
    """``tokens`` (1, T) and ``length`` more; how: the further arguments of ``generate``.

    A GPT whose positions are used up goes on from the last half of them: keys and values of those
    are computed anew once, and not all of them for each token.
    """
    if not isinstance(network, GPT):
        return cast(Tensor, network.generate(tokens, length, *how))
    kept = max(1, context // 2)
    while length:
        recent = tokens[:, -kept:]
        count = min(length, max(1, context - recent.shape[1]))
        grown = network.generate(recent, count, *how)
        tokens = concat([tokens, grown[:, recent.shape[1] :]], axis=1)
        length -= count
    return tokens


def _beginning(vocabulary: list[str] | None) -> str:
    """What a text goes on from where there is no prompt: the end of a line."""
    return "\n" if not vocabulary or "\n" in vocabulary else vocabulary[0]
