"""Functions of neural networks under PyTorch's names: activations, losses, penalties."""

from tensorgrad.nn.distances import (
    cosine_embedding_loss,
    cosine_similarity,
    hinge_embedding_loss,
    triplet_margin_loss,
)
from tensorgrad.nn.loss_functions import (
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    multi_margin_loss,
    sigmoid_focal_loss,
    smooth_l1_loss,
)
from tensorgrad.nn.penalties import l1_penalty, l2_penalty
from tensorgrad.ops.activations import (
    bias_activation,
    elu,
    gelu,
    hardtanh,
    leaky_relu,
    log_softmax,
    mish,
    relu,
    selu,
    silu,
    softmax,
    softplus,
)
from tensorgrad.ops.elementwise import sigmoid, tanh
from tensorgrad.ops.indexing import one_hot
from tensorgrad.ops.linear_algebra import linear
from tensorgrad.ops.losses import binary_cross_entropy_with_logits, cross_entropy, nll_loss
from tensorgrad.ops.normalization import layer_norm, rms_norm
from tensorgrad.ops.random import dropout

__all__ = [
    "bias_activation", "binary_cross_entropy_with_logits", "cosine_embedding_loss",
    "cosine_similarity", "cross_entropy", "dropout", "elu", "gelu", "hardtanh",
    "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "l1_penalty", "l2_penalty",
    "layer_norm", "leaky_relu", "linear", "log_softmax", "mish", "mse_loss", "multi_margin_loss",
    "nll_loss", "one_hot", "relu", "rms_norm", "selu", "sigmoid", "sigmoid_focal_loss", "silu",
    "smooth_l1_loss", "softmax", "softplus", "tanh", "triplet_margin_loss",
]  # fmt: skip
