"""Runs cases of one stage in this process, and reports each as a line of JSON on stdout.

What the cases print goes to stderr. After a case that failed the process ends, as a card that met
an error may answer nothing more; the campaign starts another for the rest.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import IO, Any

from bench.gpu.common import Settings, Skipped, first_line
from bench.gpu.stages import STAGES


def _end_with_the_campaign() -> None:
    """Nobody else ends what hangs here once the campaign itself has been killed."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _outcome(stage: str, case: str, settings: Settings, say: Any) -> dict[str, Any]:
    begun = time.perf_counter()
    try:
        result = STAGES[stage].module.run(case, settings, say)
        found = {"outcome": "failed" if "reason" in result else "passed", **result}
    except Skipped as why:
        found = {"outcome": "skipped", "reason": str(why)}
    except Exception as error:  # whatever went wrong is the result
        traceback.print_exc()
        found = {"outcome": "failed", "reason": first_line(error)}
    return {**found, "seconds": round(time.perf_counter() - begun, 3)}


def main() -> int:
    """``python -m bench.gpu.child STAGE SETTINGS LIMIT CASE...``, a process group of its own."""
    stage, text, limit, *cases = sys.argv[1:]
    settings = Settings.loads(text)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        _end_with_the_campaign()
        return _run(stage, settings, float(limit), cases, channel)


def _run(stage: str, settings: Settings, limit: float, cases: list[str], channel: IO[str]) -> int:

    def send(message: Mapping[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    try:
        if settings.rehearse:
            from bench.gpu import rehearsal

            rehearsal.install(settings.plants, cudnn=stage == "cudnn")
        from tensorgrad.backend.cuda import problem

        reason = problem()
    except Exception as error:  # of CuPy's import, say
        traceback.print_exc()
        reason = first_line(error)
    if reason is not None:
        send({"unusable": reason})
        return 1
    for case in cases:
        send({"begin": case})
        faulthandler.dump_traceback_later(0.9 * limit)
        if settings.rehearse:
            rehearsal.disturb(settings.plants, case == STAGES[stage].module.cases(settings)[0])
        result = _outcome(stage, case, settings, lambda part: send({"part": dict(part)}))
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.flush()
        send({"end": case, "result": result})
        if result["outcome"] == "failed":
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
