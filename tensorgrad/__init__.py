"""tensorgrad"""
from tensorgrad.tensor import Tensor
