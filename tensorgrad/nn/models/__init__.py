"""Networks known by name: LeNet, residual networks, a vision transformer, GPT.

The names and layouts of their parameters are those in PyTorch's world (torchvision's ResNet and
VisionTransformer, nanoGPT's GPT), so that state dicts load.
"""

from typing import TYPE_CHECKING

from tensorgrad.nn.models import gpt
from tensorgrad.nn.models.gpt import *

if not TYPE_CHECKING:  # mypy reads no sum of lists; it goes by the imports, which say the same
    __all__ = [name for module in (gpt,) for name in module.__all__]
