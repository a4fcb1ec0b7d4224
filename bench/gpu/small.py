"""``python -m bench.gpu.small PART``: every kernel on few elements, for compute-sanitizer.

Memory is taken from the driver piece by piece: CuPy's pool would hide an access out of bounds.
"""

from __future__ import annotations

import sys

from tensorgrad import backend


def main() -> int:
    """Run a part: "kernels", "updates" or "compiled"."""
    part, *rest = sys.argv[1:]
    if rest:
        from bench.gpu import rehearsal

        rehearsal.install(rest[1:])
    from bench.gpu import checks, stage_bandwidth

    gpu = backend.cuda_backend()
    if not rest:
        gpu.xp.cuda.set_allocator(None)
    if part == "compiled":
        checks.network("layer norm + GELU", steps=4, batch=5)
    else:
        for name in stage_bandwidth.NAMES:
            if (name in stage_bandwidth.UPDATES) == (part == "updates"):
                for n in (1 << 12, 1 << 10):
                    stage_bandwidth.case(name, n, "float32", parameters=7).run()
    gpu.synchronize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
