"""What each instruction of the byte code reads, and what it leaves on the stack.

A handler sees the shadow of the stack as it is before the instruction. Instructions without a
handler are known only by how many values they take and give (``opcodes.py``).
"""

from __future__ import annotations

import collections
import decimal
import functools
import operator
import sys
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.program.bytecode import callables
from tensorgrad.program.bytecode.opcodes import Instruction, effect, words
from tensorgrad.program.bytecode.shadow import (
    FRESH,
    METHOD,
    NULL,
    Counted,
    Generated,
    LostError,
    Made,
    Mark,
    Shadow,
    Unknown,
)
from tensorgrad.program.bytecode.surroundings import (
    NUMBERS,
    content_of,
)
from tensorgrad.program.engine import ours
from tensorgrad.program.guards import (
    CONTAINERS,
    MISSING,
    SCALARS,
    lookup,
)
from tensorgrad.tensor import Tensor

if TYPE_CHECKING:
    from tensorgrad.program.bytecode.follower import Follower

_BY_OPERATION: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "//": operator.floordiv, "%": operator.mod, "&": operator.and_, "|": operator.or_,
    "^": operator.xor,
}  # fmt: skip
_DUNDERS = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "&": "and",
    "|": "or", "^": "xor", "@": "matmul", "**": "pow", "<<": "lshift", ">>": "rshift",
}  # fmt: skip
_COMPARED = {
    "<": ("__lt__", "__gt__"), "<=": ("__le__", "__ge__"), "==": ("__eq__",), "!=": ("__ne__",),
    ">": ("__gt__", "__lt__"), ">=": ("__ge__", "__le__"),
}  # fmt: skip

_Handler = Callable[[Any, Shadow, Instruction], None]
HANDLERS: dict[str, _Handler] = {}
HANDLED = frozenset({"KW_NAMES", "CALL_INTRINSIC_1"})


def _handles(*names: str) -> Callable[[_Handler], _Handler]:
    def enter(handler: _Handler) -> _Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return enter


@_handles("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_AND_CLEAR", "LOAD_FAST_LOAD_FAST")
def _load_fast(r: Follower, s: Shadow, ins: Instruction) -> None:
    for name in ins.value if isinstance(ins.value, tuple) else (ins.value,):
        mark = s.clears(name) if ins.name == "LOAD_FAST_AND_CLEAR" else s.marks.get(name)
        s.stack.append(s.local(name, FRESH) if mark is None else mark)


@_handles("STORE_FAST_LOAD_FAST")
def _store_load(r: Follower, s: Shadow, ins: Instruction) -> None:
    s.stores(ins.value[0], r.value(s))
    s.later = len(s.stack), ins.value[1]  # the local has it only after this instruction
    s.stack.append(FRESH)


@_handles("STORE_FAST", "STORE_FAST_STORE_FAST")
def _store_fast(r: Follower, s: Shadow, ins: Instruction) -> None:
    for name in ins.value if isinstance(ins.value, tuple) else (ins.value,):
        s.stores(name, r.value(s))


@_handles("POP_TOP", "RETURN_VALUE")
def _pop(r: Follower, s: Shadow, ins: Instruction) -> None:
    value = s.pop()
    if ins.name != "POP_TOP":
        r.settled(value)


@_handles("YIELD_VALUE")
def _yield_value(r: Follower, s: Shadow, ins: Instruction) -> None:
    r.value(s)
    s.stack.append(FRESH)  # what is sent, by a frame that is followed or by nobody


@_handles("LOAD_CONST")
def _load_const(r: Follower, s: Shadow, ins: Instruction) -> None:
    # From this very code: equal code objects share a listing, but not what they contain.
    value = s.code.co_consts[ins.arg]
    if type(value) in (tuple, frozenset):
        r.reach(value)
    s.stack.append(value)


@_handles("LOAD_GLOBAL")
def _load_global(r: Follower, s: Shadow, ins: Instruction) -> None:
    null = bool(ins.arg & 1)
    if null and sys.version_info < (3, 13):
        s.stack.append(NULL)
    s.slot = len(s.stack)
    s.stack.append(r.named(s.frame, ins.value))
    if null and sys.version_info >= (3, 13):
        s.stack.append(NULL)


@_handles("LOAD_NAME")
def _load_name(r: Follower, s: Shadow, ins: Instruction) -> None:
    s.stack.append(r.named(s.frame, ins.value, s.frame.f_locals))


@_handles("LOAD_FROM_DICT_OR_GLOBALS")
def _load_from_dict(r: Follower, s: Shadow, ins: Instruction) -> None:
    names = r.value(s)
    s.stack.append(
        r.named(s.frame, ins.value, names if isinstance(names, dict) else s.frame.f_locals)
    )


@_handles("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
def _load_deref(r: Follower, s: Shadow, ins: Instruction) -> None:
    if ins.name == "LOAD_FROM_DICT_OR_DEREF":
        s.pop()
    value = s.local(ins.value, MISSING)
    if value is MISSING:  # in the body of a class, which has no place for it
        value = r.around(s, ins.value)
    for cell in s.cells.get(ins.value, ()):
        if content_of(cell) is value:
            value = r.placed("cell", cell, None, value)
            value_ = r.settled(value) if len(s.cells[ins.value]) > 1 else value
            value = value_
    s.stack.append(value)


@_handles("STORE_DEREF")
def _store_deref(r: Follower, s: Shadow, ins: Instruction) -> None:
    value = s.pop()
    cells = s.cells.get(ins.value, ())
    if len(cells) > 1:
        r.refuse(
            f"the variable {ins.value!r} of a function around is changed, which cannot be told "
            "apart"
        )
    for cell in cells:
        r.write("cell", cell, None, cell, f"the variable {ins.value!r}", value)
    if not cells:
        r.settled(value)


@_handles("STORE_GLOBAL")
def _store_global(r: Follower, s: Shadow, ins: Instruction) -> None:
    r.write(
        "key", s.frame.f_globals, ins.value, s.frame.f_globals, f"the global {ins.value!r}", s.pop()
    )


@_handles("STORE_NAME")
def _store_name(r: Follower, s: Shadow, ins: Instruction) -> None:
    names = s.frame.f_locals
    r.write("key", names, ins.value, names, f"the name {ins.value!r}", s.pop())


@_handles("DELETE_GLOBAL", "DELETE_NAME")
def _delete_name(r: Follower, s: Shadow, ins: Instruction) -> None:
    r.changes(s.frame.f_globals if ins.name == "DELETE_GLOBAL" else s.frame.f_locals, "a name")


@_handles("DELETE_DEREF")
def _delete_deref(r: Follower, s: Shadow, ins: Instruction) -> None:
    for cell in s.cells.get(ins.value, ()):
        r.changes(cell, f"the variable {ins.value!r}")


@_handles("LOAD_ATTR", "LOAD_METHOD")
def _load_attr(r: Follower, s: Shadow, ins: Instruction) -> None:
    null = ins.name == "LOAD_METHOD" or (sys.version_info >= (3, 12) and bool(ins.arg & 1))
    o = r.value(s)
    if null and sys.version_info < (3, 13):
        s.stack.append(NULL)
    s.slot = len(s.stack)
    s.stack.append(r.attribute(o, ins.value))
    if null and sys.version_info >= (3, 13):
        s.stack.append(NULL)


@_handles("LOAD_SUPER_ATTR")
def _load_super_attr(r: Follower, s: Shadow, ins: Instruction) -> None:
    _, cls, o = r.values(s, 3)
    null = bool(ins.arg & 1)
    if null and sys.version_info < (3, 13):
        s.stack.append(NULL)
    s.slot = len(s.stack)
    known = isinstance(cls, type) and not isinstance(o, Mark)
    s.stack.append(r.attribute(super(cls, o), ins.value) if known else Unknown())
    if null and sys.version_info >= (3, 13):
        s.stack.append(NULL)


@_handles("STORE_ATTR")
def _store_attr(r: Follower, s: Shadow, ins: Instruction) -> None:
    o = r.value(s)
    r.stores_attribute(o, ins.value, s.pop())


@_handles("DELETE_ATTR")
def _delete_attr(r: Follower, s: Shadow, ins: Instruction) -> None:
    r.changes(r.value(s), f".{ins.value}")


@_handles("BINARY_SUBSCR")
def _binary_subscr(r: Follower, s: Shadow, ins: Instruction) -> None:
    o, key = r.values(s, 2)
    s.slot = len(s.stack)
    s.stack.append(r.item(o, key))


@_handles("BINARY_SLICE")
def _binary_slice(r: Follower, s: Shadow, ins: Instruction) -> None:
    o, a, b = r.values(s, 3)
    for x in (a, b):
        r.content(x)
    s.slot = len(s.stack)
    s.stack.append(r.item(o, FRESH))


@_handles("STORE_SUBSCR")
def _store_subscr(r: Follower, s: Shadow, ins: Instruction) -> None:
    o, key = r.values(s, 2)
    r.stores_item(o, key, s.pop())


@_handles("STORE_SLICE")
def _store_slice(r: Follower, s: Shadow, ins: Instruction) -> None:
    value, o, _, _ = r.values(s, 4)
    r.content(value)
    r.changes(o, "a slice")


@_handles("DELETE_SUBSCR")
def _delete_subscr(r: Follower, s: Shadow, ins: Instruction) -> None:
    o, _ = r.values(s, 2)
    if not isinstance(lookup(type(o), "__delitem__"), types.FunctionType):
        r.changes(o, "an item")


@_handles("BINARY_OP")
def _binary_op(r: Follower, s: Shadow, ins: Instruction) -> None:
    b, a = r.settled(s.pop()), s.pop()
    symbol = _operations()[ins.arg]
    plain = symbol.rstrip("=")
    s.slot = len(s.stack)
    if isinstance(a, Counted):
        if plain in ("+", "-", "*") and type(b) in NUMBERS:
            step = _BY_OPERATION[plain]
            s.stack.append(Counted(a.place, step(a.now, b), (*a.steps, (step, b)), a.where))
            return
        a = r.settled(a)
    function = _BY_OPERATION.get(plain)
    if function is not None and _is_plain(a) and _is_plain(b):
        try:
            s.stack.append(function(a, b))
        except Exception:  # the step is about to raise the same
            s.stack.append(FRESH)
        return
    inplace = symbol.endswith("=")
    dunder = _DUNDERS[plain]
    r.special(a, f"__{dunder}__", *([f"__i{dunder}__"] if inplace else []))
    r.special(b, f"__r{dunder}__")
    if inplace and isinstance(a, list | set | dict | collections.deque | np.ndarray | bytearray):
        r.changes(a, "the content")
    r.content(a)
    r.content(b)
    if isinstance(a, decimal.Decimal) or isinstance(b, decimal.Decimal):
        callables.ask_again(r, callables.decimal_context)
    if isinstance(a, str | bytes) or all(x is FRESH or _is_number(x) for x in (a, b)):
        s.stack.append(FRESH)
        return
    s.awaited = True  # by way of __add__ or __radd__, whichever gives the result
    lists = [x for x in (a, b) if isinstance(x, (*CONTAINERS, Unknown))]
    s.stack.append(Unknown(lists) if lists else FRESH)


@functools.cache
def _operations() -> list[str]:
    import dis

    return [symbol for _, symbol in dis._nb_ops]  # type: ignore[attr-defined]


def _is_number(x: Any) -> bool:
    return type(x) in (int, float, bool, complex, type(None))


def _is_plain(x: Any) -> bool:
    return type(x) in (int, float, bool, str) and (type(x) is not str or len(x) < 10_000)


@_handles("COMPARE_OP")
def _compare_op(r: Follower, s: Shadow, ins: Instruction) -> None:
    a, b = r.values(s, 2)
    symbol = str(ins.value).removeprefix("bool(").removesuffix(")")
    for x in (a, b):
        r.special(x, *_COMPARED.get(symbol, ()))
        r.content(x)
    s.slot, s.awaited = len(s.stack), True
    s.stack.append(FRESH)


@_handles("IS_OP")
def _is_op(r: Follower, s: Shadow, ins: Instruction) -> None:
    # Which objects they are is known by the guards that led to them; not so of unnamed ones.
    pair = r.values(s, 2)
    for x, other in zip(pair, pair[::-1]):
        r.identify(x, other)
        if isinstance(x, Unknown) and not isinstance(x, Made | Generated):
            r.content(x)
            if other is not None and other is not FRESH:
                r.refuse("it is asked which object the result of a call is", "give it a name first")
    s.stack.append(FRESH)


@_handles("CONTAINS_OP")
def _contains_op(r: Follower, s: Shadow, ins: Instruction) -> None:
    x, o = r.values(s, 2)
    r.special(o, "__contains__", "__iter__")
    if isinstance(x, Tensor):
        r.identify(x)
    if (
        isinstance(o, dict)
        and type(o).__contains__ is dict.__contains__
        and r.is_outside(o)
        and type(x) in SCALARS
    ):
        r.note("has", o, x, x in o)
    elif hasattr(type(o), "__next__"):
        r.iterate(o)
    else:
        r.content(o)
        r.content(x)
    s.stack.append(FRESH)


def _truth(r: Follower, x: Any) -> None:
    r.special(x, "__bool__", "__len__")
    r.content(x)


_UNARY = {
    "UNARY_NEGATIVE": "__neg__", "UNARY_POSITIVE": "__pos__", "UNARY_INVERT": "__invert__",
}  # fmt: skip


@_handles("UNARY_NOT", "TO_BOOL", "UNARY_NEGATIVE", "UNARY_POSITIVE", "UNARY_INVERT")
def _unary(r: Follower, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    if ins.name in ("UNARY_NOT", "TO_BOOL"):
        _truth(r, x)
        # What a bool is made of stays known: a test of it must not be taken for something new.
        s.stack.append(FRESH)
        return
    s.slot = len(s.stack)
    if type(x) in NUMBERS and ins.name == "UNARY_NEGATIVE":
        s.stack.append(-x)
        return
    r.special(x, _UNARY[ins.name])
    r.content(x)
    if isinstance(x, decimal.Decimal):
        callables.ask_again(r, callables.decimal_context)
    s.awaited = True
    s.stack.append(FRESH)


def _jump_if(r: Follower, s: Shadow, ins: Instruction) -> None:
    if "NONE" in ins.name:
        r.value(s)
    elif ins.name.endswith("_OR_POP"):
        x = r.settled(s.stack[-1]) if s.stack else FRESH
        if s.stack:
            s.stack[-1] = x
        _truth(r, x)
    else:
        _truth(r, r.value(s))


HANDLERS.update(
    dict.fromkeys(
        [
            f"{a}JUMP{b}_IF_{c}"
            for a in ("POP_", "")
            for b in ("", "_FORWARD", "_BACKWARD")
            for c in ("TRUE", "FALSE", "NONE", "NOT_NONE", "TRUE_OR_POP", "FALSE_OR_POP")
        ],
        _jump_if,
    )
)


@_handles("GET_ITER", "GET_YIELD_FROM_ITER")
def _get_iter(r: Follower, s: Shadow, ins: Instruction) -> None:
    o = r.value(s)
    s.slot = len(s.stack)
    s.stack.append(r.iterate(o))


@_handles("FOR_ITER")
def _for_iter(r: Follower, s: Shadow, ins: Instruction) -> None:
    iterator = s.stack[-1] if s.stack else FRESH
    s.given, s.slot = MISSING, len(s.stack)  # beyond the stack: it is put there by _after
    if isinstance(iterator, types.GeneratorType):
        s.awaited = iterator.gi_code
    elif isinstance(iterator, Generated):
        s.awaited = iterator.code
    elif not isinstance(iterator, Mark):
        following = lookup(type(iterator), "__next__")
        if isinstance(following, types.FunctionType):
            s.awaited, s.callee = following.__code__, following
        if r.is_outside(iterator):
            r.iterate(iterator)


@_handles("SEND")
def _send(r: Follower, s: Shadow, ins: Instruction) -> None:
    r.value(s)
    receiver = s.stack[-1] if s.stack else FRESH
    if not isinstance(receiver, Mark) and r.is_outside(receiver):
        r.iterate(receiver)
    s.slot = len(s.stack)
    if isinstance(receiver, types.GeneratorType):
        s.awaited = receiver.gi_code
    s.stack.append(receiver if isinstance(receiver, Unknown) else Unknown([receiver]))


@_handles("COPY")
def _copy(r: Follower, s: Shadow, ins: Instruction) -> None:
    if len(s.stack) < ins.arg:
        raise LostError("COPY")
    s.stack[-ins.arg] = r.settled(s.stack[-ins.arg])
    s.stack.append(s.stack[-ins.arg])


@_handles("SWAP")
def _swap(r: Follower, s: Shadow, ins: Instruction) -> None:
    if len(s.stack) < ins.arg:
        raise LostError("SWAP")
    s.stack[-1], s.stack[-ins.arg] = s.stack[-ins.arg], s.stack[-1]


@_handles("PUSH_NULL")
def _push_null(r: Follower, s: Shadow, ins: Instruction) -> None:
    s.stack.append(NULL)


@_handles("BUILD_TUPLE", "BUILD_LIST")
def _build(r: Follower, s: Shadow, ins: Instruction) -> None:
    # A likeness of the new container, in which what is known of its parts stays known.
    parts = r.values(s, ins.arg)
    s.stack.append(tuple(parts) if ins.name == "BUILD_TUPLE" else parts)


@_handles("LIST_TO_TUPLE")
def _list_to_tuple(r: Follower, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    s.stack.append(tuple(x) if isinstance(x, list) else x)


@_handles("BUILD_MAP")
def _build_map(r: Follower, s: Shadow, ins: Instruction) -> None:
    parts = r.values(s, 2 * ins.arg)
    s.stack.append(_likeness(parts[::2], parts[1::2]))


@_handles("BUILD_CONST_KEY_MAP")
def _build_const_key_map(r: Follower, s: Shadow, ins: Instruction) -> None:
    keys = r.value(s)
    s.stack.append(_likeness(keys, r.values(s, ins.arg)))


def _likeness(keys: Sequence[Any], values: Sequence[Any]) -> Any:
    if any(isinstance(k, Mark) or type(k) not in SCALARS for k in keys):
        return callables.made_of([*keys, *values])
    return dict(zip(keys, values))


@_handles("BUILD_SET", "BUILD_STRING", "BUILD_SLICE")
def _build_other(r: Follower, s: Shadow, ins: Instruction) -> None:
    parts = r.values(s, ins.arg)
    if ins.name != "BUILD_SET":
        if ins.name == "BUILD_SLICE" and all(_is_number(x) for x in parts):
            s.stack.append(slice(*parts))
            return
        s.stack.append(FRESH)
        return
    for x in parts:
        if isinstance(x, Tensor):
            r.identify(x)
    s.stack.append(callables.made_of(parts))


@_handles("LIST_APPEND", "SET_ADD")
def _list_append(r: Follower, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    if ins.name == "SET_ADD" and isinstance(x, Tensor):
        r.identify(x)
    _into(s, ins.arg, [x])


@_handles("MAP_ADD")
def _map_add(r: Follower, s: Shadow, ins: Instruction) -> None:
    _into(s, ins.arg, r.values(s, 2), known=False)


#: They add to a container that lies as deep on the stack as their argument says.
GATHERS = frozenset(
    words("LIST_APPEND SET_ADD MAP_ADD LIST_EXTEND SET_UPDATE DICT_UPDATE DICT_MERGE")
)


@_handles("LIST_EXTEND", "SET_UPDATE")
def _list_extend(r: Follower, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    found = r.iterate(x)
    if isinstance(found, Generated) or isinstance(x, types.GeneratorType):
        # All that it gives passes here, and is added to this once it has: see Shadow.handed.
        _into(s, ins.arg, [Unknown(opaque=False)], False)
        return
    known = type(x) in (list, tuple)
    _into(s, ins.arg, list(x) if known else [callables.made_of([x])], known)


@_handles("DICT_UPDATE", "DICT_MERGE")
def _dict_update(r: Follower, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    r.content(x)
    at = len(s.stack) - ins.arg
    if at < 0:
        raise LostError(ins.name)
    into = s.stack[at]
    if type(into) is dict and type(x) is dict:
        into.update(x)
    else:
        s.stack[at] = callables.made_of([into, x])


def _into(s: Shadow, depth: int, parts: list[Any], known: bool = True) -> None:
    """Add parts to the container at ``depth`` of the stack, or to what is known of it.

    known: these very parts, and not some of which they are what is known.
    """
    at = len(s.stack) - depth
    if at < 0:
        raise LostError("append")
    into = s.stack[at]
    if type(into) is list and known:
        into += parts
    else:
        s.stack[at] = callables.made_of([into, *parts])


@_handles("UNPACK_SEQUENCE")
def _unpack_sequence(r: Follower, s: Shadow, ins: Instruction) -> None:
    o = r.value(s)
    r.iterate(o)
    if isinstance(o, Unknown):
        r.content(o)
    if type(o) in (list, tuple) and len(o) == ins.arg:
        s.stack += list(o)[::-1]
    else:
        s.stack += [callables.made_of([o])] * ins.arg


@_handles("FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "CONVERT_VALUE")
def _format(r: Follower, s: Shadow, ins: Instruction) -> None:
    known = effect(ins.name, ins.arg)
    assert known is not None
    for x in r.values(s, known[0]):
        r.special(x, "__format__", "__str__", "__repr__")
        if isinstance(x, np.ndarray | np.generic):
            callables.ask_again(r, np.get_printoptions)
        r.content(x)
    s.stack.append(FRESH)


@_handles("CALL_INTRINSIC_1")
def _intrinsic(r: Follower, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    if ins.arg == _LIST_TO_TUPLE:
        s.stack.append(tuple(x) if isinstance(x, list) else x)
    elif ins.arg == _STOPITERATION_ERROR:
        s.stack.append(x)
    else:
        r.content(x)
        s.stack.append(x if isinstance(x, Mark) else Unknown([x]))


# Numbers of intrinsic functions, on 3.12 and 3.13.
_STOPITERATION_ERROR, _LIST_TO_TUPLE = 3, 6


@_handles("IMPORT_NAME")
def _import_name(r: Follower, s: Shadow, ins: Instruction) -> None:
    names, _ = r.value(s), r.value(s)
    whole = str(ins.value)
    name = whole if names else whole.partition(".")[0]
    module = sys.modules.get(name, MISSING)
    if module is MISSING:
        r.refuse(f"the module {whole} is loaded inside the step", "import it outside")
        s.stack.append(Unknown())
        return
    r.reach(sys.modules)
    s.stack.append(r.note("key", sys.modules, name, module))


@_handles("IMPORT_FROM")
def _import_from(r: Follower, s: Shadow, ins: Instruction) -> None:
    module = s.stack[-1] if s.stack else FRESH
    s.slot = len(s.stack)
    s.stack.append(r.settled(r.attribute(module, ins.value)))


@_handles("MATCH_CLASS")
def _match_class(r: Follower, s: Shadow, ins: Instruction) -> None:
    o, cls, names = r.values(s, 3)
    names = names if isinstance(names, tuple) else ()
    if not isinstance(o, Mark):
        r.type_of(o)
    positional: Any = ()
    if (
        isinstance(cls, type)
        and ins.arg
        and cls not in (int, float, str, bytes, bool, list, tuple, dict, set)
    ):
        positional = r.settled(r.attribute(cls, "__match_args__"))
    found = []
    for name in (*(positional if isinstance(positional, tuple) else ())[: ins.arg], *names):
        if isinstance(o, Mark) or hasattr(o, name):
            found.append(r.settled(r.attribute(o, name)))
    s.stack.append(
        Unknown([o]) if isinstance(o, Mark) or len(found) != ins.arg + len(names) else tuple(found)
    )


@_handles("MATCH_KEYS")
def _match_keys(r: Follower, s: Shadow, ins: Instruction) -> None:
    keys, o = s.stack[-1], s.stack[-2]
    if isinstance(o, dict) and isinstance(keys, tuple):
        found = [r.settled(r.item(o, k)) for k in keys]
        s.stack.append(tuple(found))
    else:
        r.content(o)
        s.stack.append(Unknown([o]))


@_handles("MATCH_MAPPING", "MATCH_SEQUENCE", "GET_LEN")
def _match_kind(r: Follower, s: Shadow, ins: Instruction) -> None:
    o = s.stack[-1]
    if not isinstance(o, Mark):
        r.type_of(o)
    if ins.name == "GET_LEN":
        r.content(o)
    s.stack.append(FRESH)


@_handles("BEFORE_WITH")
def _before_with(r: Follower, s: Shadow, ins: Instruction) -> None:
    o = r.value(s)
    t = type(o)
    if isinstance(o, Unknown):
        r.see_into(o, "a context manager")
    if isinstance(o, Mark):
        r.content(o)
        s.stack += [METHOD, Unknown() if isinstance(o, Unknown) else FRESH]
        s.awaited, s.slot = True, len(s.stack) - 1
        return
    enter, leave = lookup(t, "__enter__"), lookup(t, "__exit__")
    if not ours(t):
        r.note("class", t, "__enter__", enter)
        r.note("class", t, "__exit__", leave)
    elif r.is_outside(o):
        r.content(o, deep=True)
    if not isinstance(enter, types.FunctionType) and not callables.is_harmless_manager(o):
        r.refuse(f"a {t.__name__} is entered, which is C code that is not known here")
    python = isinstance(leave, types.FunctionType)
    s.stack += [Made(leave.__code__) if python else METHOD, Unknown()]
    s.slot = len(s.stack) - 1
    if isinstance(enter, types.FunctionType):
        s.awaited, s.callee = enter.__code__, enter


@_handles("WITH_EXCEPT_START")
def _with_except_start(r: Follower, s: Shadow, ins: Instruction) -> None:
    s.stack.append(FRESH)


@_handles("PUSH_EXC_INFO")
def _push_exc_info(r: Follower, s: Shadow, ins: Instruction) -> None:
    error = s.pop()
    s.stack += [FRESH, error]


@_handles("CHECK_EXC_MATCH")
def _check_exc_match(r: Follower, s: Shadow, ins: Instruction) -> None:
    r.value(s)
    s.stack.append(FRESH)


@_handles("LOAD_BUILD_CLASS")
def _load_build_class(r: Follower, s: Shadow, ins: Instruction) -> None:
    s.stack.append(FRESH)


@_handles("LOAD_CLOSURE", "LOAD_ASSERTION_ERROR", "LOAD_LOCALS")
def _load_fresh(r: Follower, s: Shadow, ins: Instruction) -> None:
    s.stack.append(FRESH)


@_handles("MAKE_FUNCTION")
def _make_function(r: Follower, s: Shadow, ins: Instruction) -> None:
    code = s.pop()
    if isinstance(code, types.CodeType):
        made = {name: list(s.cells.get(name, ())) for name in code.co_freevars}
        r.makers[code] = s.frame
        known = r.inner.setdefault(code, [])
        if made not in known:
            known.append(made)
    known_effect = effect(ins.name, ins.arg)
    assert known_effect is not None
    parts = r.values(s, known_effect[0] - 1)  # defaults: read when they are used, as locals
    sources = [x for x in parts if not isinstance(x, Mark | Tensor)]
    s.stack.append(Made(code if isinstance(code, types.CodeType) else None, sources))


@_handles("SET_FUNCTION_ATTRIBUTE")
def _set_function_attribute(r: Follower, s: Shadow, ins: Instruction) -> None:
    function = s.pop()
    s.pop()
    s.stack.append(function)


@_handles("KW_NAMES")
def _kw_names(r: Follower, s: Shadow, ins: Instruction) -> None:
    s.kwnames = s.code.co_consts[ins.arg]


def _called(r: Follower, s: Shadow, args: list[Any], names: tuple[str, ...]) -> None:
    second, first = r.value(s), r.value(s)
    if sys.version_info >= (3, 13):
        f = first
        if second is not NULL:
            args = [second, *args]
    elif first is NULL:
        f = second
    else:
        f, args = first, [second, *args]
    split = len(args) - len(names)
    s.slot = len(s.stack)
    s.stack.append(r.call(f, args[:split], dict(zip(names, args[split:]))))


@_handles("CALL")
def _call(r: Follower, s: Shadow, ins: Instruction) -> None:
    names, s.kwnames = s.kwnames, ()
    _called(r, s, r.values(s, ins.arg), names)


@_handles("CALL_KW")
def _call_kw(r: Follower, s: Shadow, ins: Instruction) -> None:
    names = r.value(s)
    _called(r, s, r.values(s, ins.arg), names if isinstance(names, tuple) else ())


@_handles("CALL_FUNCTION_EX")
def _call_function_ex(r: Follower, s: Shadow, ins: Instruction) -> None:
    kwargs = r.value(s) if ins.arg & 1 else {}
    args = r.value(s)
    r.content(kwargs)
    if hasattr(type(args), "__next__") or isinstance(args, (*CONTAINERS, Mark)):
        r.iterate(args)
    given = list(args) if isinstance(args, list | tuple) else [callables.made_of([args])]
    for x in given:
        if isinstance(x, list | dict) and r.is_outside(args):
            r.reach(x)
    second, first = r.value(s), r.value(s)
    f = first if sys.version_info >= (3, 13) else second if first is NULL else first
    if sys.version_info >= (3, 13) and second is not NULL:
        given = [second, *given]
    s.slot = len(s.stack)
    s.stack.append(
        r.call(f, given, dict(kwargs) if isinstance(kwargs, dict) else {"": Unknown([kwargs])})
    )
