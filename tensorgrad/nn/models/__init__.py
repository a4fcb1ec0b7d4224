"""Networks known by name: BERT, GPT, LeNet, residual networks, a vision transformer.

The names and layouts of their parameters are those in PyTorch's world (torchvision's ResNet and
VisionTransformer, nanoGPT's GPT, Hugging Face's BertModel), so that state dicts load.
"""

from typing import TYPE_CHECKING

from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.nn.models import bert, gpt, lenet, resnet, vit
from tensorgrad.nn.models.bert import *
from tensorgrad.nn.models.gpt import *
from tensorgrad.nn.models.lenet import *
from tensorgrad.nn.models.resnet import *
from tensorgrad.nn.models.vit import *

if not TYPE_CHECKING:  # mypy reads no sum of lists; it goes by the imports, which say the same
    __getattr__ = _unknown_names(__name__)
    __all__ = [name for module in (bert, gpt, lenet, resnet, vit) for name in module.__all__]
