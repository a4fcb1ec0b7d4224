"""What a name that is not here is called here: said by the errors for unknown names.

Nothing is looked up before somebody reads the error, so that asking whether a name is there, as
``hasattr`` does, stays quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

#: The places whose unknown names are spoken of, by the name of their module, as they are written.
_PLACES = {
    "tensorgrad": "tg",
    "tensorgrad.nn": "tg.nn",
    "tensorgrad.nn.functional": "tg.nn.functional",
    "tensorgrad.linalg": "tg.linalg",
    "tensorgrad.fft": "tg.fft",
    "tensorgrad.special": "tg.special",
    "tensorgrad.signal": "tg.signal",
    "tensorgrad.ops.random": "tg.random",
    "tensorgrad.optim": "tg.optim",
    "tensorgrad.optim.lr_scheduler": "tg.optim.lr_scheduler",
    "tensorgrad.autograd": "tg.autograd",
    "tensorgrad.data": "tg.data",
    "tensorgrad.data.transforms": "tg.data.transforms",
    "tensorgrad.training": "tg.training",
    "tensorgrad.nn.init": "tg.nn.init",
    "tensorgrad.nn.models": "tg.nn.models",
    "tensorgrad.nn.utils": "tg.nn.utils",
}

#: Methods and attributes of tensors elsewhere: what is written here.
_OF_TENSORS = {
    "contiguous": "leave it out: functions take every layout",
    "is_contiguous": "leave it out: functions take every layout",
    "dim": "x.ndim",
    "ndimension": "x.ndim",
    "numel": "x.size",
    "nelement": "x.size",
    "element_size": "x.itemsize",
    "stride": "x.numpy().strides, in bytes",
    "strides": "x.numpy().strides",
    "flat": "x.ravel()",
    "view": "x.reshape(shape), which shares memory where it can",
    "view_as": "x.reshape(y.shape)",
    "reshape_as": "x.reshape(y.shape)",
    "resize": "tg.resize(x, shape)",
    "expand": "x.broadcast_to(shape)",
    "expand_as": "x.broadcast_to(y.shape)",
    "t": "x.T",
    "H": "x.mT.conj()",
    "mH": "x.mT.conj()",
    "is_cuda": "x.device, which is \"cpu\" or \"cuda:0\" and so on",
    "is_cpu": "x.device, which is \"cpu\" or \"cuda:0\" and so on",
    "type": "x.dtype, or x.astype(dtype)",
    "type_as": "x.astype(y.dtype)",
    "bfloat16": "x.astype(tg.bfloat16)",
    "bool": "x.astype(tg.bool)",
    "int": "x.astype(tg.int32)",
    "short": "x.astype(tg.int16)",
    "char": "x.astype(tg.int8)",
    "byte": "x.astype(tg.uint8)",
    "block_until_ready": "leave it out, or x.numpy() to wait for a GPU",
    "at": "x[index] = value, or tg.index_put(x, index, value) for a new tensor",
    "assign": "x.copy_(y)",
    "set_": "x.copy_(y)",
    "grad_fn": "x.node; tg.viz draws it",
    "detach_": "x = x.detach()",
    "unsqueeze_": "x = x.unsqueeze(axis)",
    "squeeze_": "x = x.squeeze(axis)",
    "t_": "x = x.T",
    "requires_gradient": "x.requires_grad",
    "is_floating_point": "tg.isdtype(x.dtype, \"real floating\")",
    "is_complex": "tg.isdtype(x.dtype, \"complex floating\")",
    "data_ptr": "x.numpy().ctypes.data",
    "index_fill_": "x[index] = value",
    "masked_scatter_": "x[mask] = values",
    "new_zeros": "tg.zeros(shape, dtype=x.dtype, device=x.device)",
    "new_ones": "tg.ones(shape, dtype=x.dtype, device=x.device)",
    "new_full": "tg.full(shape, value, dtype=x.dtype, device=x.device)",
    "new_empty": "tg.empty(shape, dtype=x.dtype, device=x.device)",
    "new_tensor": "tg.tensor(data, dtype=x.dtype, device=x.device)",
    "zero_": "x.copy_(0)",
    "fill_": "x.copy_(value)",
    "normal_": "tg.nn.init.normal_(x)",
    "uniform_": "tg.nn.init.uniform_(x)",
    "masked_fill": "tg.where(mask, value, x)",
    "masked_fill_": "x[mask] = value",
    "masked_select": "x[mask]",
    "index_select": "x.take(indices, axis=axis)",
    "select": "x[:, index], as NumPy indexes",
    "narrow": "x[start : start + length], as NumPy indexes",
    "to_dense": "tg.sparse has the sparse ones",
    "asnumpy": "x.numpy()",
    "values": "x.numpy()",
}  # fmt: skip

#: Functions, classes and modules elsewhere: what is written here.
_OF_MODULES = {
    # random numbers
    "rand": "tg.random.uniform(shape)",
    "randn": "tg.random.normal(shape)",
    "rand_like": "tg.random.uniform(x.shape)",
    "randn_like": "tg.random.normal(x.shape)",
    "randint_like": "tg.random.randint(low, high, x.shape)",
    "standard_normal": "tg.random.normal(shape)",
    "random_sample": "tg.random.uniform(shape)",
    "default_rng": "tg.Generator(seed)",
    "RandomState": "tg.Generator(seed)",
    "PRNGKey": "tg.Generator(seed)",
    "randperm": "tg.random.permutation(n)",
    "shuffle": "x[tg.random.permutation(len(x))]",
    "set_seed": "tg.manual_seed(seed)",
    # making and changing arrays
    "ndarray": "tg.Tensor",
    "Variable": "tg.tensor(data, requires_grad=True)",
    "as_tensor": "tg.asarray(data), which shares memory where it can",
    "from_numpy": "tg.asarray(array), which shares its memory",
    "convert_to_tensor": "tg.tensor(data)",
    "constant": "tg.tensor(data)",
    "FloatTensor": "tg.tensor(data, dtype=tg.float32)",
    "LongTensor": "tg.tensor(data, dtype=tg.int64)",
    "float": "tg.float32",
    "double": "tg.float64",
    "half": "tg.float16",
    "long": "tg.int64",
    "short": "tg.int16",
    "cfloat": "tg.complex64",
    "cdouble": "tg.complex128",
    "is_tensor": "isinstance(x, tg.Tensor)",
    "numel": "x.size",
    "movedim": "tg.moveaxis",
    "swapdims": "tg.swapaxes",
    "take_along_dim": "tg.take_along_axis",
    "index_select": "tg.take(x, indices, axis=axis)",
    "masked_fill": "tg.where(mask, value, x)",
    "masked_select": "x[mask]",
    "chunk": "tg.array_split(x, parts, axis)",
    "tensor_split": "tg.array_split(x, parts, axis)",
    "row_stack": "tg.vstack",
    "fill": "tg.full(shape, value)",
    "cast": "x.astype(dtype)",
    "broadcast_tensors": "tg.broadcast_arrays",
    # computing
    "mm": "tg.matmul, or x @ y",
    "bmm": "tg.matmul, or x @ y",
    "mv": "tg.matvec, or x @ y",
    "ger": "tg.outer",
    "addmm": "x + y @ z",
    "baddbmm": "x + y @ z",
    "chain_matmul": "tg.linalg.multi_dot",
    "add_n": "sum(tensors)",
    "sub": "tg.subtract, or x - y",
    "mul": "tg.multiply, or x * y",
    "div": "tg.divide, or x / y",
    "neg": "tg.negative, or -x",
    "eq": "tg.equal, or x == y",
    "ne": "tg.not_equal, or x != y",
    "lt": "tg.less, or x < y",
    "le": "tg.less_equal, or x <= y",
    "gt": "tg.greater, or x > y",
    "ge": "tg.greater_equal, or x >= y",
    "sgn": "tg.sign",
    "lerp": "x + weight * (y - x)",
    "clip_by_value": "tg.clip",
    "clamp_min": "tg.maximum(x, least)",
    "clamp_max": "tg.minimum(x, most)",
    "trapz": "tg.trapezoid",
    "t": "x.T",
    "clone": "x.clone()",
    "detach": "x.detach()",
    "frac": "x - tg.trunc(x)",
    "histc": "tg.histogram",
    "bucketize": "tg.digitize",
    "std_mean": "tg.std(x) and tg.mean(x)",
    "var_mean": "tg.var(x) and tg.mean(x)",
    "aminmax": "tg.min(x) and tg.max(x)",
    "kthvalue": "tg.sort(x)[..., k]",
    "pinverse": "tg.linalg.pinv",
    "split_with_sizes": "tg.split(x, places)",
    "is_floating_point": "tg.isdtype(x.dtype, \"real floating\")",
    "is_complex": "tg.isdtype(x.dtype, \"complex floating\")",
    "promote_types": "tg.result_type",
    "ndim": "x.ndim",
    "shape": "x.shape",
    "size": "x.size",
    "set_printoptions": "np.set_printoptions, which tensors follow",
    "inverse": "tg.linalg.inv",
    "matrix_inverse": "tg.linalg.inv",
    "symeig": "tg.linalg.eigh",
    "matrix_exp": "tg.linalg.expm",
    "cdist": "tg.nn.functional.cdist",
    "msort": "tg.sort(x, axis=0)",
    "range": "tg.arange",
    "reduce_sum": "tg.sum",
    "reduce_mean": "tg.mean",
    "reduce_max": "tg.max",
    "reduce_min": "tg.min",
    "reduce_prod": "tg.prod",
    "reduce_logsumexp": "tg.logsumexp",
    "swish": "tg.silu",
    "hann_window": "tg.hanning(n)",
    "hamming_window": "tg.hamming(n)",
    # gradients and programs
    "Function": "tg.autograd.custom_operation",
    "custom_vjp": "tg.autograd.custom_operation",
    "custom_jvp": "tg.autograd.custom_operation",
    "GradientTape": "requires_grad=True and y.backward(), or tg.autograd.grad(y, x)",
    "value_and_grad": "y = f(x), then tg.autograd.grad(y, x)",
    "jacrev": "tg.autograd.jacobian",
    "jacfwd": "tg.autograd.jacobian",
    "jit": "tg.compile",
    "function": "tg.compile",
    "inference_mode": "tg.no_grad()",
    "set_grad_enabled": "tg.no_grad() or tg.enable_grad()",
    "stop_gradient": "x.detach()",
    "vmap": "a batch axis: functions work along the last axes and broadcast the others",
    "synchronize": "x.numpy(), which waits for a GPU",
    "cuda": "tg.cuda_is_available(), x.to(\"cuda\")",
    "device": "the name itself, as device=\"cuda:0\"",
    "set_num_threads": "the environment variable OMP_NUM_THREADS",
    # files
    "save": "tg.nn.save_safetensors(model, path), or tg.training.save_checkpoint",
    "load": "tg.nn.load_safetensors(model, path), or tg.training.load_checkpoint",
    # other libraries, which have a module of that name in places
    "keras": "tg.nn for layers, tg.optim for optimizers, and tg.training.Trainer to fit a model",
    "jax": "tg for jax.numpy, tg.autograd.grad for jax.grad, tg.compile for jax.jit",
    # layers, by the names of Keras, Flax and others
    "Dense": "tg.nn.Linear(inputs, outputs)",
    "LazyLinear": "tg.nn.Linear(inputs, outputs)",
    "Conv": "tg.nn.Conv2d",
    "BatchNorm": "tg.nn.BatchNorm2d",
    "BatchNormalization": "tg.nn.BatchNorm2d",
    "LayerNormalization": "tg.nn.LayerNorm",
    "MaxPooling2D": "tg.nn.MaxPool2d",
    "AveragePooling2D": "tg.nn.AvgPool2d",
    "GlobalAveragePooling2D": "tg.nn.AdaptiveAvgPool2d(1)",
    "GlobalMaxPooling2D": "tg.nn.AdaptiveMaxPool2d(1)",
    "Activation": "tg.nn.ReLU() and its kin",
    "Swish": "tg.nn.SiLU",
    "MultiHeadAttention": "tg.nn.MultiheadAttention",
    "Model": "tg.nn.Module",
    "Layer": "tg.nn.Module",
    "ParameterList": "tg.nn.ModuleList, or attributes that are tg.nn.Parameter",
    "ParameterDict": "tg.nn.ModuleDict, or attributes that are tg.nn.Parameter",
    "Buffer": "module.register_buffer(name, tensor)",
    "DataParallel": "one device; there is no data parallelism here",
    "SyncBatchNorm": "tg.nn.BatchNorm2d; there is one device",
    "sparse_categorical_crossentropy": "tg.nn.functional.cross_entropy",
    "categorical_crossentropy": "tg.nn.functional.cross_entropy",
    "binary_crossentropy": "tg.nn.functional.binary_cross_entropy",
    "softmax_cross_entropy": "tg.nn.functional.cross_entropy",
    "SparseCategoricalCrossentropy": "tg.nn.CrossEntropyLoss",
    "CategoricalCrossentropy": "tg.nn.CrossEntropyLoss",
    "BinaryCrossentropy": "tg.nn.BCELoss",
    "MeanSquaredError": "tg.nn.MSELoss",
    "MeanAbsoluteError": "tg.nn.L1Loss",
    "DepthwiseConv2D": "tg.nn.Conv2d(..., groups=channels)",
    # initial values, optimizers, data
    "glorot_uniform": "tg.nn.init.xavier_uniform_",
    "glorot_normal": "tg.nn.init.xavier_normal_",
    "he_uniform": "tg.nn.init.kaiming_uniform_",
    "he_normal": "tg.nn.init.kaiming_normal_",
    "LBFGS": "tg.optim.Adam and its kin; there is no L-BFGS here",
    "swa_utils": "tg.optim.ExponentialMovingAverage",
    "clip_by_global_norm": "tg.optim.clip_grad_norm_",
    "IterableDataset": "any iterable of batches, which Trainer.fit takes",
    "random_split": "tg.data.random_split",
    "ImageFolder": "tg.data.image_folder",
    "ModelCheckpoint": "tg.training.Checkpointing",
}  # fmt: skip


class UnknownNameError(AttributeError):
    """There is no such name; read, it says what is written here, as far as that is known.

    where: the module's name, or a class. name: what was asked for.
    """

    def __init__(self, where: str | type, name: str) -> None:
        # With an obj of its own, Python's tracebacks do not add a name that only looks alike.
        super().__init__(where, name, obj=where)
        self.where, self.unknown = where, name

    def __str__(self) -> str:
        return _message(self.where, self.unknown)

    def __reduce__(self) -> Any:
        return type(self), (self.where, self.unknown)


def _message(where: str | type, name: str) -> str:
    if isinstance(where, type):
        told = f"{where.__name__} has no attribute {name!r}"
    else:
        told = f"module {where!r} has no attribute {name!r}"
    hint = "" if name.startswith("_") else _hint(where, name)
    return f"{told}; {hint}" if hint else told


def _hint(where: str | type, name: str) -> str:
    tables = [_OF_TENSORS, _OF_MODULES] if isinstance(where, type) else [_OF_MODULES]
    for table in tables:
        if name in table:
            return f"write {table[name]}"
    if isinstance(where, type) and name.endswith("_"):
        return _in_place(where, name[:-1])
    lower = {other.lower(): other for other in sorted(_names(where))}
    found = [repr(lower[name.lower()])] if name.lower() in lower else []
    found += _elsewhere(where, name)
    if not found and hasattr(np, name):
        return f"it is NumPy's alone, for arrays: np.{name}"
    if not found:
        import difflib  # which takes a millisecond, and is seldom wanted

        near = difflib.get_close_matches(name.lower(), lower, 3, 0.66)
        found = [repr(lower[other]) for other in near]
    return f"did you mean {' or '.join(found)}?" if found else ""


def _in_place(where: type, name: str) -> str:
    """``x.add_(y)`` and the like."""
    if name in _OF_MODULES and " or x " in _OF_MODULES[name]:
        return "write the operator, as in x += y"
    places = _names(where) | _names("tensorgrad") | _names("tensorgrad.special")
    if name not in places:
        return ""
    return f"write x.copy_(x.{name}(...)), or an operator, as in x += y"


def _names(where: str | type) -> set[str]:
    """The public names of a place."""
    if isinstance(where, type):
        return {name for name in dir(where) if name[0] != "_"}
    module = importlib.import_module(where)
    found = getattr(module, "__all__", None)
    return {name for name in (vars(module) if found is None else found) if name[0] != "_"}


def _elsewhere(where: str | type, name: str) -> list[str]:
    """Where else there is something of that name: the first such place."""
    for module, written in _PLACES.items():
        if module != where and name in _names(module):
            found = getattr(importlib.import_module(module), name)
            called = isinstance(where, type) and not isinstance(found, ModuleType)
            return [f"{written}.{name}" + ("(x)" if called else "")]
    return []


def unknown_names(where: str) -> Callable[[str], Any]:
    """What a module takes for its ``__getattr__``."""

    def __getattr__(name: str) -> Any:  # noqa: N807
        raise UnknownNameError(where, name)

    return __getattr__
