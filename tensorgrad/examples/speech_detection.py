"""When does somebody speak? By the weights of Silero VAD, which others trained.

    pip install --no-deps silero-vad==6.2.3       # the weights; its code is not used
    python -m tensorgrad.examples.speech_detection recording.wav

The recording is 16-bit PCM with 16,000 samples a second; ``ffmpeg -i any.mp3 -ar 16000 -ac 1
recording.wav`` makes one. Without a file the example makes a sound: two words of vowels, by the
formants that Peterson and Barney measured, then a tone, then noise.
"""

from __future__ import annotations

import argparse
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.examples.vowels import RATE, made_sound
from tensorgrad.examples.weights import folder_of
from tensorgrad.nn.functional import relu, sigmoid

CHUNK = 512  # samples of which a probability is said, 32 ms
_BEFORE = 64  # samples before a chunk that are heard with it
State = tuple[tg.Tensor, tg.Tensor]


class SpeechDetector(nn.Module):
    """Silero VAD for 16 kHz: a chunk's spectrum, four convolutions, an LSTM over the chunks."""

    def __init__(self) -> None:
        self.stft_conv = nn.Conv1d(1, 258, 256, 128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, 2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, 2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, chunks: tg.Tensor, state: State | None = None) -> tuple[tg.Tensor, State]:
        """Consecutive chunks (N, 64 + 512), each with what came before -> probabilities (N,).

        state: what the LSTM knows of earlier chunks; the second result, for the next call.
        """
        x = self.spectrum(chunks)
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = relu(convolution(x))
        features, state = self.lstm(x[:, :, 0], state)
        return sigmoid(self.final_conv(relu(features)[:, :, None]))[:, 0, 0], state

    def spectrum(self, chunks: tg.Tensor) -> tg.Tensor:
        """Amplitudes (N, 129, 4): a Fourier transform whose cosines and sines are weights."""
        x = tg.pad(chunks, ((0, 0), (0, 64)), "reflect")[:, None]
        real, imaginary = tg.split(self.stft_conv(x), 2, axis=1)
        return tg.sqrt(real * real + imaginary * imaginary)


def load(file: Path) -> SpeechDetector:
    """The network with the weights of ``file``, whose LSTM is one step of ours."""
    model = SpeechDetector().eval()
    steps = {f"lstm_cell.{n}": f"lstm.{n}_l0" for n in
             ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
    nn.load_safetensors(model, file, rename=steps)
    return model


def chunks_of(sound: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A sound (samples,) as chunks (N, 64 + 512), the last filled up with silence."""
    count = -(-len(sound) // CHUNK)
    whole = np.zeros(_BEFORE + count * CHUNK, np.float32)
    whole[_BEFORE : _BEFORE + len(sound)] = sound
    return np.lib.stride_tricks.sliding_window_view(whole, _BEFORE + CHUNK)[::CHUNK]


def segments(
    probabilities: np.ndarray[Any, Any], on: float = 0.5, off: float = 0.35, silence: float = 0.1
) -> list[tuple[float, float]]:
    """From when to when somebody speaks, in seconds.

    Speech begins with a probability of ``on`` and ends where it stays below ``off`` for ``silence``
    seconds; what is shorter than a quarter of a second is none.
    """
    step, found, start, end = CHUNK / RATE, list[tuple[float, float]](), None, 0.0
    for k, p in enumerate(probabilities):
        if start is None and p >= on:
            start = k * step
        if p >= off:
            end = (k + 1) * step
        elif start is not None and (k + 1) * step - end >= silence:
            found.append((start, end))
            start = None
    if start is not None:
        found.append((start, end))
    return [(start, end) for start, end in found if end - start >= 0.25]


def read_wav(path: Path) -> np.ndarray[Any, Any]:
    """The samples of a WAV file, in [-1, 1). Raises SystemExit for one of another kind."""
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise SystemExit(
                f"{path} must have one channel of 16 bits with {RATE} samples a second: "
                f"ffmpeg -i {path} -ar {RATE} -ac 1 -c:a pcm_s16le other.wav"
            )
        data = file.readframes(file.getnframes())
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="When does somebody speak?")
    parser.add_argument("recording", nargs="?", type=Path, help="a WAV file; default: made sound")
    parser.add_argument("--weights", type=Path, help="silero_vad_16k.safetensors")
    given = parser.parse_args(arguments)
    file = given.weights or folder_of("silero_vad") / "data" / "silero_vad_16k.safetensors"
    sound = made_sound() if given.recording is None else read_wav(given.recording)
    with tg.no_grad():
        probabilities = load(file)(tg.tensor(chunks_of(sound)))[0].numpy()
    print(f"{len(sound) / RATE:.2f} s of sound")
    for start, end in segments(probabilities):
        print(f"speech from {start:.2f} s to {end:.2f} s")


if __name__ == "__main__":
    main()
