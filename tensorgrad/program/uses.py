"""Who makes and who reads the values of a program, for passes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.program.ir import Instruction, Program, Value


class Uses:
    """Who makes and who reads the values of a program."""

    def __init__(self, program: Program) -> None:
        self.count = max((v.number for v in program.values()), default=0)
        self.kept = set(program.kept())
        self.maker: dict[Value, Instruction] = {}
        self.readers: dict[Value, list[Instruction]] = {}
        for i in program:
            self.maker.update(dict.fromkeys(i.outputs, i))
            for v in dict.fromkeys(i.values()):
                self.readers.setdefault(v, []).append(i)

    def only(self, v: Value, name: str) -> Instruction | None:
        """The one that reads ``v``, of a primitive of that name, if nobody else sees it."""
        readers = self.readers.get(v, [])
        if v in self.kept or len(readers) != 1 or readers[0].op.name != name:
            return None
        return readers[0]

    def new(
        self,
        like: Value,
        dtype: np.dtype[Any] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> Value:
        """Another value as ``like`` except for what is given, for an instruction to give."""
        self.count += 1
        return Value(
            self.count,
            like.shape if shape is None else shape,
            like.dtype if dtype is None else dtype,
        )
