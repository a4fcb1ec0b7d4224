"""The table of instructions is what this version of Python says of itself."""

from __future__ import annotations

import dis

import pytest

from tensorgrad.program.bytecode import instructions, opcodes

ARGUMENTS = {"BUILD_SLICE": (2, 3)}
# In 3.11, dis counts what CALL takes for PRECALL.
SHIFTED = {"PRECALL": 1, "CALL": -1} if opcodes.VERSION < (3, 12) else {}
NAMES = [
    name
    for name, number in dis.opmap.items()
    if number < 256
    and not name.startswith("INSTRUMENTED")
    and name not in ("ENTER_EXECUTOR", "RESERVED")
]


@pytest.mark.skipif(opcodes.VERSION not in opcodes.TESTED, reason="this version is not followed")
@pytest.mark.parametrize("name", NAMES)
def test_takes_and_gives_what_dis_says(name: str) -> None:
    number = dis.opmap[name]
    for n in ARGUMENTS.get(name, range(9)):
        found = opcodes.effect(name, n)
        assert found is not None, f"{name} is not in the table"
        argument = n if number >= dis.HAVE_ARGUMENT else None
        wanted = dis.stack_effect(number, argument, jump=False)
        assert found[1] - found[0] == wanted + SHIFTED.get(name, 0) * n


def test_every_handler_is_of_an_instruction_that_some_version_has() -> None:
    for name in instructions.HANDLERS:
        assert opcodes.effect(name, 1) is not None, name


def test_code_objects_are_listed_with_their_handlers() -> None:
    def f(x: int) -> int:
        try:
            return 1 // x
        except ZeroDivisionError:
            return 0

    listed = opcodes.listing(f.__code__)
    assert {i.name for i in listed.instructions.values()} >= {"BINARY_OP", "PUSH_EXC_INFO"}
    assert any(
        listed.instructions[target].name == "PUSH_EXC_INFO"
        for _, _, target, _, _ in listed.handlers
    )
