"""Transformers: layers of attention and of two linear maps, and stacks of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from tensorgrad.errors import ShapeError
from tensorgrad.nn import init
from tensorgrad.nn.attention import KeyValueCache, MultiheadAttention, check_probability
from tensorgrad.nn.containers import ModuleList
from tensorgrad.nn.fit import Misfit, last_axis
from tensorgrad.nn.layers import Dropout, Linear
from tensorgrad.nn.module import Module, check_sizes
from tensorgrad.nn.normalization import LayerNorm
from tensorgrad.ops.activations import gelu, relu
from tensorgrad.ops.creation import full
from tensorgrad.ops.padding import triu
from tensorgrad.ops.random import Generator
from tensorgrad.tensor import Tensor

__all__ = [
    "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer",
]  # fmt: skip

Activation = str | Callable[[Tensor], Tensor]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "gelu": gelu}


class _Layer(Module):
    """What both kinds of layers have: attention to oneself, two linear maps, norms, dropout."""

    _shown = ("norm_first",)
    norm1: LayerNorm
    norm2: LayerNorm

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int,
        dropout: float,
        activation: Activation,
        layer_norm_eps: float,
        batch_first: bool,
        norm_first: bool,
        bias: bool,
        device: str | None,
        dtype: Any,
        generator: Generator | None,
        across: bool,
    ) -> None:
        name = type(self).__name__
        check_sizes(name, d_model=d_model, nhead=nhead, dim_feedforward=dim_feedforward)
        check_probability(name, "dropout", dropout)
        if isinstance(activation, str) and activation not in _ACTIVATIONS:
            raise ValueError(
                f'{name}: activation must be "relu", "gelu" or a function, got {activation!r}'
            )
        where: Any = (device, dtype, generator)

        def attention() -> MultiheadAttention:
            return MultiheadAttention(
                d_model, nhead, dropout, bias, False, False, None, None, batch_first, *where
            )

        self.d_model, self.norm_first = d_model, norm_first
        self.self_attn = attention()
        if across:
            self.multihead_attn = attention()
        self.linear1 = Linear(d_model, dim_feedforward, bias, *where)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, *where)
        for k in range(1, 4 if across else 3):
            norm = LayerNorm(d_model, layer_norm_eps, True, bias, device, dtype)
            setattr(self, f"norm{k}", norm)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        self.activation = _ACTIVATIONS[activation] if isinstance(activation, str) else activation

    def _residual(
        self, x: Tensor, norm: Module, function: Callable[[Tensor], Tensor], dropout: Dropout
    ) -> Tensor:
        """``x`` and what ``function`` makes of it, with the norm before or after."""
        if self.norm_first:
            return x + dropout(function(norm(x)))
        y: Tensor = norm(x + dropout(function(x)))
        return y

    def _feed_forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return y

    def _attend(
        self, x: Tensor, mask: Any, padding: Any, causal: bool, cache: KeyValueCache | None
    ) -> Tensor:
        y: Tensor = self.self_attn(x, x, x, padding, False, mask, is_causal=causal, cache=cache)[0]
        return y

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return last_axis(x, "d_model", self.d_model, self.d_model)


class TransformerEncoderLayer(_Layer):
    """Attention to oneself, then two linear maps, each beside a way around (Vaswani et al., 2017).

    d_model: features. nhead: heads of attention. dim_feedforward: features between the linear maps.
    dropout: the probability that an element is dropped in training. activation: "relu", "gelu" or a
        function of tensors. layer_norm_eps: see LayerNorm.
    batch_first: whether inputs have shape (batch, length, d_model), and not (length, batch,
        d_model). norm_first: norms before attention and linear maps, and not after the sums.
    bias: False for linear maps and norms without. device, dtype, generator: as in Linear.

    Raises ValueError for sizes, a probability or an activation that cannot be.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
            norm_first, bias, device, dtype, generator, across=False,
        )  # fmt: skip

    def forward(
        self,
        src: Tensor,
        src_mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """``src`` (L, N, d_model), (N, L, d_model) with batch_first, or (L, d_model), in its shape.

        The masks, is_causal and cache: see MultiheadAttention.
        """
        x = self._residual(
            src,
            self.norm1,
            lambda x: self._attend(x, src_mask, src_key_padding_mask, is_causal, cache),
            self.dropout1,
        )
        return self._residual(x, self.norm2, self._feed_forward, self.dropout2)


class TransformerDecoderLayer(_Layer):
    """Attention to oneself, attention to the encoder's output, two linear maps.

    The arguments are those of TransformerEncoderLayer.
    """

    norm3: LayerNorm

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
            norm_first, bias, device, dtype, generator, across=True,
        )  # fmt: skip
        self.dropout3 = Dropout(dropout)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """``tgt``, shaped as in TransformerEncoderLayer, in its shape.

        memory: the encoder's output. tgt_mask, tgt_key_padding_mask, tgt_is_causal, cache: of the
        attention to oneself; the others of that to ``memory``. See MultiheadAttention.
        """
        x = self._residual(
            tgt,
            self.norm1,
            lambda x: self._attend(x, tgt_mask, tgt_key_padding_mask, tgt_is_causal, cache),
            self.dropout1,
        )

        def across(x: Tensor) -> Tensor:
            y: Tensor = self.multihead_attn(
                x, memory, memory, memory_key_padding_mask, False, memory_mask,
                is_causal=memory_is_causal,
            )[0]  # fmt: skip
            return y

        x = self._residual(x, self.norm2, across, self.dropout2)
        return self._residual(x, self.norm3, self._feed_forward, self.dropout3)


class _Stack(Module):
    """Copies of a layer, one after the other, and a norm."""

    def __init__(self, layer: Module, num_layers: int, norm: Module | None) -> None:
        check_sizes(type(self).__name__, num_layers=num_layers)
        self.layers = ModuleList([copy.deepcopy(layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def _run(
        self, x: Tensor, caches: Sequence[KeyValueCache] | None, *args: Any, **options: Any
    ) -> Tensor:
        if caches is not None and len(caches) != self.num_layers:
            raise ValueError(
                f"{type(self).__name__}: caches must have one for each of {self.num_layers} "
                f"layers, got {len(caches)}"
            )
        for number, layer in enumerate(self.layers):
            if caches is not None:
                options["cache"] = caches[number]
            x = layer(x, *args, **options)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """Copies of an encoder layer, one after the other.

    encoder_layer: what is copied; the copies begin with its values, as in PyTorch. num_layers: how
    often. norm: what the result passes in the end. Raises ValueError for another number.
    """

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__(encoder_layer, num_layers, norm)

    def forward(
        self,
        src: Tensor,
        mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool | None = None,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        """``src`` in its shape; mask, src_key_padding_mask and is_causal as in the layer.

        caches: one for each layer, for generation.
        """
        return self._run(src, caches, mask, src_key_padding_mask, is_causal=bool(is_causal))


class TransformerDecoder(_Stack):
    """Copies of a decoder layer, one after the other; the arguments are as in the encoder."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        """``tgt`` in its shape; the others as in the layer, and a cache for each layer."""
        masks = tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
        return self._run(
            tgt,
            caches,
            memory,
            *masks,
            tgt_is_causal=bool(tgt_is_causal),
            memory_is_causal=memory_is_causal,
        )


class Transformer(Module):
    """An encoder and a decoder (Vaswani and others, 2017).

    num_encoder_layers, num_decoder_layers: how many layers. custom_encoder, custom_decoder: modules
    in their place. The other arguments are those of the layers.

    Matrices begin as Xavier has it. Raises ValueError for what the layers refuse.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        options: Any = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
            norm_first, bias, device, dtype, generator,
        )  # fmt: skip

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, True, bias, device, dtype)

        if custom_encoder is None:
            custom_encoder = TransformerEncoder(
                TransformerEncoderLayer(*options), num_encoder_layers, norm()
            )
        if custom_decoder is None:
            custom_decoder = TransformerDecoder(
                TransformerDecoderLayer(*options), num_decoder_layers, norm()
            )
        self.encoder, self.decoder = custom_encoder, custom_decoder
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values of all matrices."""
        for p in self.parameters():
            if len(p.shape) > 1:
                init.xavier_uniform_(p, generator=generator)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """``src`` (S, N, d_model) and ``tgt`` (T, N, d_model) -> (T, N, d_model).

        The batch N first with batch_first, or none. The masks: see MultiheadAttention.
        Raises ShapeError for what does not fit.
        """
        axis = 0 if self.batch_first else 1
        shapes = src.shape, tgt.shape
        if len(shapes[0]) != len(shapes[1]) or (
            len(shapes[0]) == 3 and shapes[0][axis] != shapes[1][axis]
        ):
            raise ShapeError(
                f"Transformer: src and tgt must have the same batch, axis {axis}; got {shapes[0]} "
                f"and {shapes[1]}"
            )
        memory = self.encoder(
            src,
            mask=src_mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=src_is_causal,
        )
        y: Tensor = self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )
        return y

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        for given in (x, *others[:1]):
            found = last_axis(given, "d_model", self.d_model, self.d_model)
            if found is not None:
                return Misfit(found.axis, found.what, found.own, found.wanted, given.shape)
        return None

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: str | None = None, dtype: Any = None
    ) -> Tensor:
        """The mask (sz, sz) by which query i sees the keys 0 to i: -inf above the diagonal, else 0.

        ``is_causal=True`` says the same without a mask.
        """
        return triu(full((sz, sz), float("-inf"), dtype=dtype, device=device), k=1)
