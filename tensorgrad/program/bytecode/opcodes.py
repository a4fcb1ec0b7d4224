"""What the instructions of Python's byte code take from the stack and give to it.

``reads.py`` keeps a shadow of the stack of every frame that it follows, and needs to know of each
instruction how many values it takes and gives. A version of Python is in ``TESTED`` when
``tests/program/test_opcodes.py`` has held this table against that version's own ``dis``.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple

#: Versions of Python whose instructions are all in the table.
TESTED = ((3, 11), (3, 12), (3, 13))

VERSION = sys.version_info[:2]


def words(text: str) -> tuple[str, ...]:
    """The words of a text: a long list of names is easier to read as one."""
    return tuple(text.split())


#: Instructions that leave the stack alone.
UNTOUCHED = frozenset(
    words(
        "NOP RESUME CACHE EXTENDED_ARG PRECALL KW_NAMES MAKE_CELL COPY_FREE_VARS JUMP_FORWARD "
        "JUMP_BACKWARD JUMP_BACKWARD_NO_INTERRUPT DELETE_FAST DELETE_DEREF DELETE_GLOBAL "
        "DELETE_NAME SETUP_ANNOTATIONS RETURN_CONST CALL_INTRINSIC_1"
    )
)

_FIXED: dict[str, tuple[int, int]] = {
    **dict.fromkeys(
        words(
            "PUSH_NULL LOAD_BUILD_CLASS LOAD_ASSERTION_ERROR LOAD_CLOSURE LOAD_CONST LOAD_DEREF "
            "LOAD_CLASSDEREF LOAD_NAME LOAD_LOCALS LOAD_FAST LOAD_FAST_CHECK LOAD_FAST_AND_CLEAR"
        ),
        (0, 1),
    ),
    **dict.fromkeys(
        words(
            "POP_TOP STORE_FAST STORE_NAME STORE_GLOBAL STORE_DEREF DELETE_ATTR RETURN_VALUE "
            "POP_EXCEPT RERAISE PRINT_EXPR IMPORT_STAR LIST_APPEND SET_ADD LIST_EXTEND SET_UPDATE "
            "DICT_UPDATE DICT_MERGE INTERPRETER_EXIT EXIT_INIT_CHECK"
        ),
        (1, 0),
    ),
    **dict.fromkeys(
        words(
            "UNARY_POSITIVE UNARY_NEGATIVE UNARY_NOT UNARY_INVERT GET_ITER GET_YIELD_FROM_ITER "
            "GET_AWAITABLE LIST_TO_TUPLE YIELD_VALUE ASYNC_GEN_WRAP TO_BOOL FORMAT_SIMPLE "
            "CONVERT_VALUE LOAD_FROM_DICT_OR_DEREF LOAD_FROM_DICT_OR_GLOBALS GET_AITER"
        ),
        (1, 1),
    ),
    **dict.fromkeys(
        words(
            "BINARY_OP BINARY_SUBSCR COMPARE_OP IS_OP CONTAINS_OP IMPORT_NAME "
            "SET_FUNCTION_ATTRIBUTE FORMAT_WITH_SPEC CALL_INTRINSIC_2 PREP_RERAISE_STAR END_SEND"
        ),
        (2, 1),
    ),
    **dict.fromkeys(
        words("DELETE_SUBSCR STORE_ATTR MAP_ADD END_ASYNC_FOR STORE_FAST_STORE_FAST"), (2, 0)
    ),
    **dict.fromkeys(["STORE_SUBSCR"], (3, 0)),
    **dict.fromkeys(["BINARY_SLICE", "MATCH_CLASS"], (3, 1)),
    **dict.fromkeys(
        words(
            "GET_LEN MATCH_MAPPING MATCH_SEQUENCE BEFORE_WITH BEFORE_ASYNC_WITH PUSH_EXC_INFO "
            "GET_ANEXT IMPORT_FROM"
        ),
        (1, 2),
    ),
    "LOAD_FAST_LOAD_FAST": (0, 2),
    "STORE_FAST_LOAD_FAST": (1, 1),
    "RETURN_GENERATOR": (0, 1) if VERSION >= (3, 13) else (0, 0),
    "STORE_SLICE": (4, 0),
    "MATCH_KEYS": (2, 3),
    "CHECK_EXC_MATCH": (2, 2),
    "CHECK_EG_MATCH": (2, 2),
    "WITH_EXCEPT_START": (4, 5),
    "FOR_ITER": (1, 2),
    "SEND": (2, 2),
    "END_FOR": (1, 0) if VERSION >= (3, 13) else (2, 0),
    "CLEANUP_THROW": (3, 2),
    "LOAD_SUPER_ATTR": (3, 1),
    "CALL_FUNCTION_EX": (3, 1),
}

_BY_ARGUMENT: dict[str, Callable[[int], tuple[int, int]]] = {
    "BUILD_TUPLE": lambda n: (n, 1),
    "BUILD_LIST": lambda n: (n, 1),
    "BUILD_SET": lambda n: (n, 1),
    "BUILD_STRING": lambda n: (n, 1),
    "BUILD_SLICE": lambda n: (n, 1),
    "BUILD_MAP": lambda n: (2 * n, 1),
    "BUILD_CONST_KEY_MAP": lambda n: (n + 1, 1),
    "FORMAT_VALUE": lambda n: (2 if n & 4 else 1, 1),
    "UNPACK_SEQUENCE": lambda n: (1, n),
    "UNPACK_EX": lambda n: (1, (n & 0xFF) + (n >> 8) + 1),
    "RAISE_VARARGS": lambda n: (n, 0),
    "MAKE_FUNCTION": lambda n: (1, 1) if VERSION >= (3, 13) else (1 + (n & 15).bit_count(), 1),
    "SWAP": lambda n: (n, n),
    "COPY": lambda n: (n, n + 1),
    "LOAD_GLOBAL": lambda n: (0, 1 + (n & 1)),
    "LOAD_METHOD": lambda n: (1, 2),
    "LOAD_ATTR": lambda n: (1, 1 + (n & 1)) if VERSION >= (3, 12) else (1, 1),
    "LOAD_SUPER_ATTR": lambda n: (3, 1 + (n & 1)),
    "CALL": lambda n: (n + 2, 1),
    "CALL_KW": lambda n: (n + 3, 1),
    "CALL_FUNCTION_EX": lambda n: (3 + (n & 1), 1),
}


def effect(name: str, arg: int) -> tuple[int, int] | None:
    """How many values an instruction takes and gives where it does not jump; None if not known."""
    if name in UNTOUCHED:
        return (1, 1) if name == "CALL_INTRINSIC_1" else (0, 0)
    if name in _BY_ARGUMENT:
        return _BY_ARGUMENT[name](arg)
    if name in _FIXED:
        return _FIXED[name]
    if "JUMP" in name and ("_IF_" in name):
        return 1, 0  # what ``..._OR_POP`` leaves where it jumps is seen at the next instruction
    return None


class Instruction(NamedTuple):
    """One instruction of a code object. following: the offset of the next one in the text."""

    offset: int
    name: str
    arg: int
    value: Any
    following: int


class Listing:
    """The instructions of a code object by offset, and where exceptions are handled.

    stored: the variables whose places get values as they are, in no cell.
    """

    __slots__ = ("handlers", "instructions", "stored")

    def __init__(self, code: CodeType) -> None:
        listed = list(dis.get_instructions(code))
        ends = [i.offset for i in listed[1:]] + [-1]
        self.instructions = {
            i.offset: Instruction(i.offset, i.opname, i.arg or 0, i.argval, end)
            for i, end in zip(listed, ends)
        }
        self.stored: set[str] = set()
        for i in listed:
            if i.opname.startswith("STORE_FAST"):
                self.stored.update(i.argval if isinstance(i.argval, tuple) else (i.argval,))
        #: (start, end, target, depth of the stack that is left, whether the offset is pushed)
        self.handlers = [
            (e.start, e.end, e.target, e.depth, bool(e.lasti))
            for e in dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
        ]


_LISTINGS: dict[CodeType, Listing] = {}


def listing(code: CodeType) -> Listing:
    """The listing of a code object; those of the last few thousand are kept."""
    found = _LISTINGS.get(code)
    if found is None:
        if len(_LISTINGS) > 4096:
            _LISTINGS.clear()
        found = _LISTINGS[code] = Listing(code)
    return found
