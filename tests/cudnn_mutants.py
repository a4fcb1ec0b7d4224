"""Mistakes in what cuDNN is asked, for mutate_engine.py."""

from __future__ import annotations

from mutation import Mutant, Selection

SELECTIONS = {
    "convolutions by cuDNN": Selection("tests/test_cudnn.py", 4),
    "attention by cuDNN": Selection("tests/test_cudnn_attention.py", 4),
}

_CUDNN = "tensorgrad/backend/cudnn.py"
_ATTENTION = "tensorgrad/backend/cudnn_attention.py"
_BY, _OF = SELECTIONS

MUTANTS: list[Mutant] = [
    Mutant(
        "sums in any order", _CUDNN,
        '"NONDETERMINISTIC", "DOWN', '"DOWN', _BY,
    ),
    Mutant(
        "infinities spread by Winograd", _CUDNN,
        '"FFT", "WINOGRAD",\n    "WINOGRAD_TILE_4x4", ', '"FFT",\n    ', _BY,
    ),
    Mutant("infinities spread by FFT", _CUDNN, '"FFT", "WINOGRAD"', '"WINOGRAD"', _BY),
    Mutant(
        "float32 rounded on the way", _CUDNN,
        '"DOWN_CONVERT_INPUTS", ', "", _BY,
    ),
    Mutant(
        "16 bits added in 16 bits", _CUDNN,
        '"REDUCED_PRECISION_REDUCTION", ', "", _BY,
    ),
    Mutant(
        "TF32 always", _CUDNN,
        "if dtype == float32 and not tf32:", "if False:", _BY,
    ),
    Mutant(
        "TF32 never", _CUDNN,
        "if dtype == float32 and not tf32:", "if dtype == float32:", _BY,
    ),
    Mutant(
        "precision left out of what plans are kept by", _CUDNN,
        "made, biased, stride, padding, dilation, tf32)", "made, biased, stride, padding, dilation, False)",
        _BY,
    ),
    Mutant(
        "workspaces without limit", _CUDNN,
        "    graph.deselect_workspace_greater_than(WORKSPACE)\n", "", _BY,
    ),
    Mutant(
        "no padding behind what is left over", _CUDNN,
        "max(0, (out - 1) * stride + span - n - padding)", "padding", _BY,
    ),
    Mutant(
        "dilation left out of a window's span", _CUDNN,
        "span = dilation * (kernel - 1) + 1", "span = kernel", _BY,
    ),
    Mutant(
        "an axis in between that is the channels'", _CUDNN,
        "strides.insert(2, dims[3] * strides[2])", "strides.insert(3, 1)", _BY,
    ),
    Mutant(
        "channels last that are not", _CUDNN,
        "out, _channels_last(out) if last else row_major(out)", "out, row_major(out)", _BY,
    ),
    Mutant(
        "results that lie otherwise", _CUDNN,
        "laid[0][1] == _channels_last(a) != row_major(a)", "False", _BY,
    ),
    Mutant(
        "repeated elements", _CUDNN,
        "n == 1 or (s > 0 and", "n == 1 or (s >= 0 and", _BY,
    ),
    Mutant(
        "misaligned addresses", _CUDNN,
        "(first | second | third) % ALIGNMENT != 0", "False", _BY,
    ),
    Mutant(
        "the stream of another call", _CUDNN,
        "self._library.set_stream(self._handle, xp.cuda.get_current_stream().ptr)",
        "self._library.set_stream(self._handle, 0)", _BY,
    ),
    Mutant(
        "a handle of another device", _CUDNN,
        "device = array.data.device_id", "device = 0", _BY,
    ),
    Mutant(
        "plans that are made again", _CUDNN,
        "plan = self._plans[key] = self._planned(key, describe)",
        "plan = self._planned(key, describe)", _BY,
    ),
    Mutant(
        "a library that is too old", _CUDNN, "if version < OLDEST:", "if False:", _BY,
    ),
    Mutant(
        "a bias that is lost", "tensorgrad/backend/launch/convolution.py",
        "return found if bias is None else _plus(xp, found, bias)", "return found", _BY,
    ),
    Mutant(
        "rules of convolutions in float32", "tensorgrad/backend/gemm.py",
        '"convolution", "convolution_input", ', "", _BY,
    ),
    Mutant("causal or not", _ATTENTION, '"use_causal_mask": key.causal', '"use_causal_mask": False', _OF),
    Mutant("one scale for all", _ATTENTION, '"attn_scale": key.scale', '"attn_scale": 0.35', _OF),
    Mutant(
        "gradients added in any order", _ATTENTION,
        "use_deterministic_algorithm=True", "use_deterministic_algorithm=False", _OF,
    ),
    Mutant(
        "heads that share nothing", _ATTENTION,
        "return Heads(lead, max(0, count - 2))", "return Heads(lead, max(0, count - 1))", _OF,
    ),
    Mutant(
        "axes of heads that do not go on", _ATTENTION,
        "            if step and stride != step * size:\n                return None\n", "", _OF,
    ),
    Mutant("features that fit no plan", _ATTENTION, " or q[-1] % 8 or v[-1] % 8:", ":", _OF),
    Mutant("rows with gaps", _ATTENTION, " or strides[-1] != 1:", ":", _OF),
    Mutant(
        "heads moved in front of the length", _ATTENTION,
        "if x.ndim == 4 and x.strides[1] < x.strides[2]", "if False and x.strides[1] < x.strides[2]",
        _OF,
    ),
    Mutant(
        "engines that compile for seconds", _CUDNN,
        '    graph.deselect_engines(["sdpa_"])\n', "", _OF,
    ),
    Mutant(
        "masks that are not seen", "tensorgrad/backend/launch/attention.py",
        "if mask is None and p is None:\n        made = cudnn_attention.attention(",
        "if p is None:\n        made = cudnn_attention.attention(", _OF,
    ),
    Mutant(
        "dropout that does not drop", "tensorgrad/backend/launch/attention.py",
        "if mask is None and p is None:\n        made = cudnn_attention.attention(",
        "if mask is None:\n        made = cudnn_attention.attention(", _OF,
    ),
]  # fmt: skip
