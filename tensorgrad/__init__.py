"""tensorgrad"""
from tensorgrad.dtypes import *
from tensorgrad.dtypes import bool, bfloat16, float16,float32,float64,int64,int32
from tensorgrad.tensor import Tensor
from tensorgrad.ops import *
from tensorgrad.autograd import no_grad, enable_grad
