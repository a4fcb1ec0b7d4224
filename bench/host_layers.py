"""What single layers cost the host with cuDNN and without, for bench/host.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.contest import Contest
from bench.host import EAGER, Counter, attributes_of, standin, told
from bench.report import Row


def convolution() -> tuple[Any, tuple[int, ...], str]:
    """A layer of 3 x 3; the shape of its input, and its dtype."""
    from tensorgrad import nn

    return nn.Conv2d(3, 4, 3, padding=1, device="cuda"), (2, 3, 8, 8), "float32"


def attention() -> tuple[Any, tuple[int, ...], str]:
    """Causal attention to itself, without projections."""
    from tensorgrad import nn

    def attend(x: Any) -> Any:
        return nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    return attend, (2, 3, 16, 8), "bfloat16"


LAYERS: dict[str, Callable[[], tuple[Any, tuple[int, ...], str]]] = {
    "a convolution": convolution,
    "attention": attention,
}


def counted(name: str, cudnn: bool) -> Counter:
    """Forward and backward of a layer on the stand-in, when it has settled."""
    import tensorgrad as tg

    module = standin()
    with module.installed(cudnn=cudnn):
        layer, shape, dtype = LAYERS[name]()
        x = tg.ones(shape, dtype=dtype, device="cuda", requires_grad=True)
        g = tg.ones(layer(x).shape, dtype=dtype, device="cuda")
        kinds = module.ndarray, module.MemoryPointer, module.Device
        counter = Counter(module.log, attributes_of(*kinds))
        for _ in range(2):
            layer(x).backward(g)
            x.grad = None
        with counter.phase("forward"):
            y = layer(x)
        with counter.phase("backward"):
            y.backward(g)
    return counter


def run(contest: Contest) -> None:
    """Every layer in eager mode, beside itself without cuDNN."""
    for contestant in contest.taking_part(EAGER):
        for name in LAYERS:
            for cudnn in (False, True):
                case = f"{name}{', with cuDNN' if cudnn else ''}"
                if contest.settings.case not in case:
                    continue
                counter = counted(name, cudnn)
                print(f"{case}, {contestant}\n{told(counter)}", flush=True)
                for what, n in counter.total().figures().items():
                    contest.report.rows.append(Row(f"{case}: {what}", contestant, n, n))
