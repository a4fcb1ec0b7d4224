"""Networks known by name: LeNet, residual networks, a vision transformer, GPT.

The names and layouts of their parameters are those in PyTorch's world (torchvision's ResNet and
VisionTransformer, nanoGPT's GPT), so that state dicts load.
"""

from typing import TYPE_CHECKING

from tensorgrad.nn.models import gpt, lenet, resnet, vit
from tensorgrad.nn.models.gpt import *
from tensorgrad.nn.models.lenet import *
from tensorgrad.nn.models.resnet import *
from tensorgrad.nn.models.vit import *

if not TYPE_CHECKING:  # mypy reads no sum of lists; it goes by the imports, which say the same
    __all__ = [name for module in (gpt, lenet, resnet, vit) for name in module.__all__]
