"""Functions of neural networks under PyTorch's names: activations, losses, penalties."""

from typing import TYPE_CHECKING

from tensorgrad import sparse as _sparse  # noqa: F401 (embedding leaves gradients of its class)
from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.nn import borders, distances, linear_losses, loss_functions, penalties
from tensorgrad.nn.borders import *
from tensorgrad.nn.distances import *
from tensorgrad.nn.linear_losses import *
from tensorgrad.nn.loss_functions import *
from tensorgrad.nn.penalties import *
from tensorgrad.ops import (
    activations,
    attention,
    bilinear_forms,
    binary_losses,
    channel_norms,
    convolution,
    ctc,
    dropouts,
    further_activations,
    index_pooling,
    lookup,
    losses,
    multi_head_attention,
    normalization,
    pooling,
    positions,
    recurrence,
    resampling,
    sampling_grids,
    unfolding,
)
from tensorgrad.ops.activations import *
from tensorgrad.ops.attention import *
from tensorgrad.ops.bilinear_forms import *
from tensorgrad.ops.binary_losses import *
from tensorgrad.ops.channel_norms import *
from tensorgrad.ops.convolution import *
from tensorgrad.ops.ctc import *
from tensorgrad.ops.dropouts import *
from tensorgrad.ops.elementwise import sigmoid as sigmoid
from tensorgrad.ops.elementwise import tanh as tanh
from tensorgrad.ops.further_activations import *
from tensorgrad.ops.index_pooling import *
from tensorgrad.ops.indexing import one_hot as one_hot
from tensorgrad.ops.linear_algebra import linear as linear
from tensorgrad.ops.lookup import *
from tensorgrad.ops.losses import *
from tensorgrad.ops.multi_head_attention import *
from tensorgrad.ops.normalization import *
from tensorgrad.ops.pooling import *
from tensorgrad.ops.positions import *
from tensorgrad.ops.random import dropout as dropout
from tensorgrad.ops.recurrence import *
from tensorgrad.ops.resampling import *
from tensorgrad.ops.sampling_grids import *
from tensorgrad.ops.unfolding import *

if not TYPE_CHECKING:  # mypy reads no sum of lists; it goes by the imports, which say the same
    __getattr__ = _unknown_names(__name__)
    __all__ = ["dropout", "linear", "one_hot", "sigmoid", "tanh"]
    for _module in (
        activations,
        attention,
        bilinear_forms,
        binary_losses,
        borders,
        channel_norms,
        convolution,
        ctc,
        distances,
        dropouts,
        further_activations,
        index_pooling,
        lookup,
        linear_losses,
        loss_functions,
        losses,
        multi_head_attention,
        normalization,
        penalties,
        pooling,
        positions,
        recurrence,
        resampling,
        sampling_grids,
        unfolding,
    ):
        __all__ += _module.__all__
