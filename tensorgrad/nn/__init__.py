"""Neural networks: modules, layers, losses, initial values; ``functional`` has the functions."""

from tensorgrad.nn import functional, init
from tensorgrad.nn.activations import (
    ELU,
    GELU,
    SELU,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tensorgrad.nn.check import ModelError, Problem
from tensorgrad.nn.containers import ModuleDict, ModuleList, Residual, Sequential
from tensorgrad.nn.embedding import RBF, Bilinear, Embedding
from tensorgrad.nn.interchange import load_safetensors, save_safetensors
from tensorgrad.nn.layers import Dropout, Flatten, Identity, Linear
from tensorgrad.nn.losses import (
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    FocalLoss,
    HingeEmbeddingLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    MultiMarginLoss,
    NLLLoss,
    SmoothL1Loss,
    TripletMarginLoss,
)
from tensorgrad.nn.module import Module, Parameter
from tensorgrad.nn.normalization import BatchNorm1d, GroupNorm, LayerNorm, RMSNorm

__all__ = [
    "ELU", "GELU", "RBF", "SELU", "BCEWithLogitsLoss", "BatchNorm1d", "Bilinear",
    "CosineEmbeddingLoss", "CrossEntropyLoss", "Dropout", "Embedding", "Flatten", "FocalLoss",
    "GroupNorm", "Hardtanh", "HingeEmbeddingLoss", "HuberLoss", "Identity", "KLDivLoss", "L1Loss",
    "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax", "MSELoss", "Mish", "ModelError", "Module",
    "ModuleDict", "ModuleList", "MultiMarginLoss", "NLLLoss", "Parameter", "Problem", "RMSNorm",
    "ReLU", "Residual", "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss", "Softmax", "Softplus",
    "Tanh", "TripletMarginLoss", "functional", "init", "load_safetensors", "save_safetensors",
]  # fmt: skip
