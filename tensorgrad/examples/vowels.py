"""Vowels made of a buzz and three resonances, as D. H. Klatt's synthesizer (1980) makes them."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RATE = 16_000
#: The formants of men's vowels in Hz (Peterson and Barney, "Control methods used in a study of the
#: vowels", 1952, table II).
FORMANTS = {
    "a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010), "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}  # fmt: skip


def spoken(vowels: str, pitch: float, noise: Array) -> Array:
    """Vowels one after another, 0.16 s each, gliding; ``noise`` (as long or longer) is breath."""
    one = round(0.16 * RATE)
    places = np.arange(one * len(vowels))
    tune = pitch * (1 + 0.15 * np.sin(2 * np.pi * 1.7 * places / RATE) - 0.1 * places / len(places))
    pulses = np.diff(np.floor(np.cumsum(tune / RATE)), prepend=0.0)
    x = resonance(pulses, np.zeros(len(places)), 100.0)
    x = x + 0.002 * x.std() * noise[: len(x)]
    for number, bandwidth in enumerate((60.0, 90.0, 120.0)):
        centres = [FORMANTS[v][number] for v in vowels]
        x = resonance(x, np.interp(places / one, np.linspace(0, len(vowels), len(vowels)), centres),
                      bandwidth)  # fmt: skip
    x = np.diff(x, prepend=0.0) * (0.2 + 0.8 * np.sqrt(np.abs(np.sin(np.pi * places / one))))
    return 0.3 * x / np.abs(x).max()


def resonance(x: Array, centres: Array, bandwidth: float) -> Array:
    """``x`` through a resonator whose centre, in Hz, changes from sample to sample."""
    r = np.exp(-np.pi * bandwidth / RATE)
    turns = 2 * r * np.cos(2 * np.pi * centres / RATE)
    y = np.empty_like(x)
    last = before = 0.0
    for k, (value, turn) in enumerate(zip(x.tolist(), turns.tolist())):
        last, before = (1 - turn + r * r) * value + turn * last - r * r * before, last
        y[k] = last
    return y


def made_sound() -> Array:
    """Silence, a word by a low voice, silence, one by a high voice, a tone of 440 Hz, noise."""
    random = np.random.default_rng(0)
    noise = random.normal(size=8 * RATE)

    def silence(seconds: float) -> Array:
        return 0.001 * random.normal(size=round(seconds * RATE))

    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    parts = [
        silence(0.7), spoken("aiueo", 120.0, noise), silence(0.8), spoken("oiae", 200.0, noise),
        silence(0.5), tone, silence(0.5), 0.1 * random.normal(size=RATE),
    ]  # fmt: skip
    return np.concatenate(parts).astype(np.float32)
