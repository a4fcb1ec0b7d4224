"""Mistakes in convolutions and padding, and the tests that have to find them."""

from __future__ import annotations

from mutation import Mutant, Selection

SELECTIONS: dict[str, Selection] = {
    "convolutions": Selection("tests/nn/test_convolution.py", 8),
    "facts of convolutions": Selection(
        "tests/nn/test_conv_layers.py tests/optim/test_autocast.py -k 'conv or floating'", 4
    ),
    "convolutional layers": Selection("tests/nn/test_conv_layers.py", 4),
    "windows as columns": Selection("tests/ops/test_table.py -k 'fold'", 3),
    "max pools": Selection("tests/nn/test_pooling.py -k 'first_largest'", 6),
}

_TILES = "tensorgrad/ops/correlation.py"
_OPS = "tensorgrad/ops/convolution.py"
_NN = "tensorgrad/nn/convolution.py"
_PAD = "tensorgrad/nn/borders.py"

MUTANTS: list[Mutant] = [
    Mutant(
        "rows share more zeros than there are",
        _TILES,
        "min(p.start, n - p.stop) if p.stop",
        "max(p.start, n - p.stop) if p.stop",
        "convolutions",
    ),
    Mutant(
        "tiles of different borders share their zeros",
        _TILES,
        "form = (tile.counts, tuple([(p.start, p.stop) for p in inside]))",
        "form = (tile.counts, ())",
        "convolutions",
    ),
    Mutant(
        "what is no window meets infinity",
        _TILES,
        'found.dtype.kind == "f" and not np.isfinite(found).all()',
        "False",
        "convolutions",
    ),
    Mutant(
        "all of a batch is one tile",
        _TILES,
        "pieces = -(-n // min(n, max(1, left)))",
        "pieces = 1",
        "convolutions",
    ),
    Mutant(
        "weights are summed over the last tile alone",
        _TILES,
        "total = part if total is None else xp.add(total, part, out=total)",
        "total = part",
        "convolutions",
    ),
    Mutant(
        "a phase begins with the wrong window",
        _TILES,
        "first = (begin - low - taps[-1] * dilation) // stride",
        "first = (begin - low - taps[0] * dilation) // stride",
        "convolutions",
    ),
    Mutant(
        "a phase keeps the dilation of all taps",
        _TILES,
        "max(1, step * dilation // stride)",
        "dilation",
        "convolutions",
    ),
    Mutant(
        "kernels of one tap forget where windows begin",
        _TILES,
        "if single and size == x.shape[2:] and not any(first):",
        "if single and size == x.shape[2:]:",
        "convolutions",
    ),
    Mutant(
        "channels without taps get no bias",
        _TILES,
        "out[...] = 0 if bias is None else",
        "out[...] = 0 if True else",
        "convolutions",
    ),
    Mutant(
        "odd padding goes before",
        _OPS,
        "return tuple([n // 2 for n in spans]), tuple([n - n // 2 for n in spans])",
        "return tuple([n - n // 2 for n in spans]), tuple([n // 2 for n in spans])",
        "convolutions",
    ),
    Mutant(
        "the gradient of weights of a transposed convolution swaps its factors",
        _OPS,
        "return apply(_CONVOLUTION_WEIGHT, (x, g), options)",
        "return apply(_CONVOLUTION_WEIGHT, (g, x), options)",
        "convolutions",
    ),
    Mutant(
        "operations of a transposed convolution are counted for its result",
        _OPS,
        "2 * x.size * math.prod(weight.shape[1:])",
        "2 * out.size * math.prod(weight.shape[1:])",
        "facts of convolutions",
    ),
    Mutant(
        "axes are padded in their own order",
        _NN,
        "ends = [n for pair in reversed(self._pairs()) for n in pair]",
        "ends = [n for pair in self._pairs() for n in pair]",
        "convolutional layers",
    ),
    Mutant(
        "biases are spread as for all channels",
        _NN,
        "limit = 1 / math.sqrt(math.prod(self.weight.shape[1:]))",
        "limit = 1 / math.sqrt(self.in_channels)",
        "convolutional layers",
    ),
    Mutant(
        "mirrored after elements were taken away",
        _PAD,
        'if mode in ("reflect", "replicate"):',
        'if mode in ("replicate",):',
        "convolutions",
    ),
    Mutant(
        "overlapping columns overwrite",
        "tensorgrad/ops/unfolding.py",
        "y[_tap((i, j), counts, stride, dilation)] += columns[:, :, i, j]",
        "y[_tap((i, j), counts, stride, dilation)] = columns[:, :, i, j]",
        "windows as columns",
    ),
    Mutant(
        "all of equal elements take the gradient",
        "tensorgrad/ops/pooling.py",
        "        free ^= found\n",
        "",
        "max pools",
    ),
]
