"""The stages in the order of what they teach."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple


class Stage(NamedTuple):
    """A module with ``cases(settings)``, the names, and ``run(case, settings, say)``.

    limit: seconds that a case may take. share: of --minutes, what the whole stage may take.
    """

    name: str
    about: str
    limit: float
    share: float = 1.0

    @property
    def module(self) -> Any:
        """What runs its cases. Imports no CuPy."""
        return importlib.import_module(f"bench.gpu.stage_{self.name}")


STAGES = {
    stage.name: stage
    for stage in (
        Stage("facts", "card, driver, CuPy, NVRTC, NumPy, clocks, the cost of a launch", 60),
        Stage("compiled", "compiled steps of five networks against eager; streams, threads", 120),
        Stage("tests", "GPU-marked tests of the kernels, the lectures, the others", 300, 0.4),
        Stage("bandwidth", "every kernel against a measured copy in three dtypes", 60),
        Stage("steps", "training steps against PyTorch, eager and by CUDA graphs", 120),
        Stage("products", "products beside CuPy alone, convolutions by two ways", 60),
        Stage("cudnn", "convolution and attention by cuDNN beside ours", 60),
        Stage("host", "host microseconds per operation in eager steps", 60),
        Stage("sanitizer", "compute-sanitizer over small cases of every kernel", 240),
        Stage("compile", "every kernel by NVRTC for every architecture; needs no GPU", 600),
    )
}
#: what runs where no stage is named: compiling for other cards would cost minutes on this one
USUAL = tuple(name for name in STAGES if name != "compile")
