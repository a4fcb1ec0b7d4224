"""Neural networks: modules, layers, losses, initial values; ``functional`` has the functions."""

from typing import TYPE_CHECKING

from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.nn import (
    activations,
    adaptive,
    attention,
    check,
    containers,
    convolution,
    dropout,
    embedding,
    interchange,
    layers,
    losses,
    module,
    normalization,
    padding,
    pooling,
    recurrent,
    resampling,
    transformer,
)
from tensorgrad.nn import functional as functional
from tensorgrad.nn import init as init
from tensorgrad.nn import models as models
from tensorgrad.nn import utils as utils
from tensorgrad.nn.activations import *
from tensorgrad.nn.adaptive import *
from tensorgrad.nn.attention import *
from tensorgrad.nn.check import *
from tensorgrad.nn.containers import *
from tensorgrad.nn.convolution import *
from tensorgrad.nn.dropout import *
from tensorgrad.nn.embedding import *
from tensorgrad.nn.interchange import *
from tensorgrad.nn.layers import *
from tensorgrad.nn.losses import *
from tensorgrad.nn.module import *
from tensorgrad.nn.normalization import *
from tensorgrad.nn.padding import *
from tensorgrad.nn.pooling import *
from tensorgrad.nn.recurrent import *
from tensorgrad.nn.resampling import *
from tensorgrad.nn.transformer import *

if not TYPE_CHECKING:  # mypy reads no sum of lists; it goes by the imports, which say the same
    __getattr__ = _unknown_names(__name__)
    __all__ = ["functional", "init", "models", "utils"]
    for _module in (
        activations,
        adaptive,
        attention,
        check,
        containers,
        convolution,
        dropout,
        embedding,
        interchange,
        layers,
        losses,
        module,
        normalization,
        padding,
        pooling,
        recurrent,
        resampling,
        transformer,
    ):
        __all__ += _module.__all__
