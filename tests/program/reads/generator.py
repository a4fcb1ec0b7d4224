"""Programs made at random, each of which reads what lies outside in ways put into each other.

A read begins at a root (a global, a closure's variable, a default, an argument, ...), goes
through holders (a dict, a property, a cell, a partial, ...), each in one of several ways, and ends
at a leaf (a number, a tensor, a function, ...). On its way it is split among contexts (a helper, a
comprehension, a generator, a match statement, ...). Then one thing that can be reached is changed,
or something beside it, or nothing, and the compiled function has to do what the plain one does.

    python tests/program/reads/generator.py --minutes 10 [--seed 1] [--executor numpy]

prints each program that is wrong, shrunk, and what was refused or captured without need.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from program.reads.scenarios import Scenario, Verdict, judged, run  # noqa: E402

# --- what the programs are made of ----------------------------------------------------------------

PRELUDE = """
import abc, collections, contextlib, contextvars, copy, dataclasses, functools, itertools, operator
import sys, threading, types, typing, weakref

class Plain:
    def __init__(self, v): self.v, self.junk = v, 0
    def read(self): return self.v
    @classmethod
    def made(cls, v): return cls(v)
class Derived(Plain):
    def read(self): return super().read()
class Slots:
    __slots__ = ("v", "junk", "__weakref__")
    def __init__(self, v): self.v, self.junk = v, 0
@dataclasses.dataclass
class Data:
    v: object
    junk: int = 0
@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    v: object
    junk: int = 0
Named = collections.namedtuple("Named", "junk v")
class Typed(typing.NamedTuple):
    v: object
class Property:
    def __init__(self, v): self._v = v
    @property
    def v(self): return self._v
class Stored:
    def __set_name__(self, owner, name): self.name = "_" + name
    def __get__(self, instance, owner): return getattr(instance, self.name)
    def __set__(self, instance, value): setattr(instance, self.name, value)
class Described:
    v = Stored()
    def __init__(self, v): self.v = v
class Dynamic:
    def __init__(self, v): self.values = {"v": v}
    def __getattr__(self, name):
        if name == "v": return self.values["v"]
        raise AttributeError(name)
class Everywhere:
    def __init__(self, v): self.v = v
    def __getattribute__(self, name): return object.__getattribute__(self, name)
class Items:
    def __init__(self, v): self.values = [v]
    def __getitem__(self, k): return self.values[k]
    def __len__(self): return len(self.values)
class Called:
    def __init__(self, v): self.v = v
    def __call__(self): return self.v
class Iterated:
    def __init__(self, v): self.v = v
    def __iter__(self): yield self.v
class Scope:
    def __init__(self, v): self.v = v
    def __enter__(self): return self.v
    def __exit__(self, *error): return False
class Cached:
    def __init__(self, v): self._v = v
    @functools.cached_property
    def v(self): return self._v
class Own(dict):
    def __missing__(self, key): return self.hidden[key]
class OwnList(list): pass
class Attr(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__
class Meta(type):
    @property
    def v(cls): return cls._v
class Local(threading.local): pass
class Holder(nn.Module):
    def __init__(self, v):
        super().__init__()
        self.held = v
class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
    def forward(self, p): return self.function(p)
class Scale(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.k = k
    def forward(self, v): return v * self.k
class Generic(typing.Generic[typing.TypeVar("T")]):
    def __init__(self, v): self.v = v
class Single:
    it = None
    def __new__(cls):
        if cls.it is None: cls.it = super().__new__(cls)
        return cls.it
class A: pass
class B: pass
AN_A = A()
def own(v):
    d = Own(); d.hidden = {"v": v}
    return d
def attr(v):
    d = Attr(); d.v = v
    return d
def cell(v): return lambda: v
def pair(v):
    def get(): return v
    def put(new):
        nonlocal v
        v = new
    return get, put
def default(v):
    def f(a=v): return a
    return f
def keyword_default(v):
    def f(*, a=v): return a
    return f
def same(a): return a
def by_keyword(*, a): return a
def tagged(v):
    def f(): pass
    f.v = v
    return f
def generated(v):
    def g(): yield v
    return g
def decorated(v):
    def outer(f):
        @functools.wraps(f)
        def inner(): return f(v)
        return inner
    @outer
    def f(a): return a
    return f
def local(v):
    holder = Local(); holder.v = v
    return holder
def variable(v):
    made = contextvars.ContextVar("made"); made.set(v)
    return made
def boxed(v):
    a = np.empty(1, object); a[0] = v
    return a
def module(v):
    m = types.ModuleType("scenario_held"); m.v = v
    return m
def by_module_getattr(v):
    m = types.ModuleType("scenario_held"); m.values = {"v": v}
    m.__getattr__ = lambda name: m.values[name]
    return m
KEPT = []
def weak(v):
    KEPT.append(Plain(v))
    return weakref.ref(KEPT[-1])
def passing(f):
    @functools.wraps(f)
    def inner(*args, **kwargs): return f(*args, **kwargs)
    return inner
@contextlib.contextmanager
def managed(p): yield p
"""


@dataclass(frozen=True)
class Way:
    """A holder: how it is made of a value, the ways to read and to write it, and what is beside.

    In the texts @v is the value and @p the holder.
    """

    made: str
    reads: tuple[str, ...]
    writes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


ATTRIBUTE = ("@p.v", "getattr(@p, 'v')", "operator.attrgetter('v')(@p)", "getattr(@p, 'v', None)")
SET = ("@p.v = @v", "setattr(@p, 'v', @v)")
BESIDE = ("@p.junk = 7", "@p.more = 7")
ITEM = (
    "@p['v']", "@p.get('v')", "dict(@p)['v']", "{**@p}['v']", "list(@p.values())[-1]",
    "[b for a, b in @p.items()][-1]", "(lambda **k: k)(**@p)['v']",
    "operator.itemgetter('v')(@p)", "(@p | {})['v']", "@p[f\"{'v'}\"]", "@p.copy()['v']",
    "sorted(@p.items(), key=lambda i: i[0])[-1][1]",
)  # fmt: skip
ENTRY = (
    "@p[1]", "@p[-1]", "@p[1:][0]", "list(@p)[1]", "[a for a in @p][1]",
    "next(itertools.islice(@p, 1, 2))", "operator.itemgetter(1)(@p)", "(lambda *a: a)(*@p)[1]",
    "tuple(@p)[-1]", "[b for a, b in enumerate(@p)][1]", "[b for a, b in zip([0, 0], @p)][1]",
    "next(reversed(@p))", "(*@p, 0)[1]", "list(itertools.chain(@p, [0]))[1]",
    "functools.reduce(lambda a, b: b, @p)", "list(map(lambda a: a, @p))[-1]",
)  # fmt: skip

WAYS: dict[str, Way] = {
    "list": Way(
        "[0, @v]", ENTRY,
        ("@p[1] = @v", "@p[:] = [0, @v]", "@p.pop(); @p.append(@v)", "@p.insert(1, @v); @p.pop()"),
        ("@p[0] = 7",),
    ),
    "dict": Way(
        "{'a': 0, 'v': @v}", ITEM,
        ("@p['v'] = @v", "@p.update(v=@v)", "@p.clear(); @p.update(a=0, v=@v)",
         "del @p['v']; @p['v'] = @v"),
        ("@p['a'] = 7",),
    ),
    "tuple": Way("(0, @v)", ENTRY),
    "plain": Way("Plain(@v)", (*ATTRIBUTE, "vars(@p)['v']", "@p.__dict__['v']", "@p.read()",
                               "copy.copy(@p).v", "operator.methodcaller('read')(@p)"),
                 (*SET, "@p.__dict__['v'] = @v", "@p.__dict__ = {'v': @v}"), BESIDE),
    "derived": Way("Derived.made(@v)", (*ATTRIBUTE, "@p.read()"), SET, BESIDE),
    "slots": Way("Slots(@v)", ATTRIBUTE, SET, ("@p.junk = 7",)),
    "data class": Way("Data(@v)", (*ATTRIBUTE, "dataclasses.replace(@p, junk=1).v",
                                   "[getattr(@p, f.name) for f in dataclasses.fields(@p)][0]"),
                      SET, BESIDE),
    "frozen": Way("Frozen(@v)", ATTRIBUTE, ("object.__setattr__(@p, 'v', @v)",)),
    "named tuple": Way("Named(0, @v)", ("@p.v", "@p[1]", "@p._asdict()['v']", "[*@p][1]")),
    "typed tuple": Way("Typed(@v)", ("@p.v", "@p[0]", "max(@p, key=lambda a: 1)")),
    "namespace": Way("types.SimpleNamespace(v=@v)", (*ATTRIBUTE, "vars(@p)['v']"), SET, BESIDE),
    "property": Way("Property(@v)", ("@p.v", "getattr(@p, 'v')"), ("@p._v = @v",), BESIDE),
    "descriptor": Way("Described(@v)", ("@p.v",), ("@p.v = @v", "@p._v = @v"), BESIDE),
    "getattr": Way("Dynamic(@v)", ("@p.v", "getattr(@p, 'v', None)"), ("@p.values['v'] = @v",
                   "@p.v = @v"), BESIDE),
    "getattribute": Way("Everywhere(@v)", ("@p.v",), SET, BESIDE),
    "getitem": Way("Items(@v)", ("@p[0]", "@p[-1]", "[a for a in @p][0]"),
                   ("@p.values[0] = @v",), BESIDE),
    "call": Way("Called(@v)", ("@p()", "@p.v", "@p.__call__()"), SET, BESIDE),
    "iter": Way("Iterated(@v)",
                ("next(iter(@p))", "[a for a in @p][0]", "list(@p)[0]", "(*@p,)[0]"), SET, BESIDE),
    "scope": Way("Scope(@v)", ("contextlib.ExitStack().enter_context(@p)",), SET, BESIDE),
    "cached property": Way("Cached(@v)", ("@p.v",), ("@p.__dict__['v'] = @v",), BESIDE),
    "missing": Way("own(@v)", ("@p['v']",), ("@p.hidden['v'] = @v", "@p['v'] = @v")),
    "dict's attribute": Way("attr(@v)", ("@p.v", "@p['v']"), SET, ("@p.a = 7",)),
    "ordered dict": Way("collections.OrderedDict(a=0, v=@v)", ITEM, ("@p['v'] = @v",),
                        ("@p['a'] = 7",)),
    "default dict": Way("collections.defaultdict(int, v=@v)", ("@p['v']", "@p.get('v')"),
                        ("@p['v'] = @v",), ("@p['a'] = 7",)),
    "user dict": Way("collections.UserDict(v=@v)", ("@p['v']", "@p.data['v']", "@p.get('v')"),
                     ("@p['v'] = @v",), ("@p['a'] = 7",)),
    "chain map": Way("collections.ChainMap({}, {'v': @v})", ("@p['v']", "@p.get('v')"),
                     ("@p['v'] = @v", "@p.maps[1]['v'] = @v"), ("@p['a'] = 7",)),
    "deque": Way("collections.deque([0, @v])", ("@p[1]", "list(@p)[1]", "[*@p][-1]"),
                 ("@p[1] = @v", "@p.pop(); @p.append(@v)", "@p.append(@v); @p.popleft()"),
                 ("@p[0] = 7",)),
    "own list": Way("OwnList([0, @v])", ENTRY, ("@p[1] = @v",), ("@p[0] = 7",)),
    "user list": Way("collections.UserList([0, @v])", ("@p[1]", "@p.data[1]"), ("@p[1] = @v",)),
    "proxy": Way("types.MappingProxyType({'v': @v})", ("@p['v']", "@p.get('v')")),
    "class": Way("type('K', (), {'v': @v})", ("@p.v", "@p().v", "vars(@p)['v']"), SET, BESIDE),
    "base class": Way("type('K', (type('Base', (), {'v': @v}),), {})", ("@p.v", "@p().v"),
                      ("@p.__mro__[1].v = @v", "@p.v = @v"), BESIDE),
    "metaclass": Way("Meta('K', (), {'_v': @v})", ("@p.v",), ("@p._v = @v",)),
    "cell": Way("cell(@v)", ("@p()", "@p.__closure__[0].cell_contents"),
                ("@p.__closure__[0].cell_contents = @v",)),
    "nonlocal": Way("pair(@v)", ("@p[0]()",), ("@p[1](@v)",)),
    "default": Way("default(@v)", ("@p()", "@p.__defaults__[0]"), ("@p.__defaults__ = (@v,)",)),
    "keyword default": Way("keyword_default(@v)", ("@p()",), ("@p.__kwdefaults__ = {'a': @v}",
                           "@p.__kwdefaults__['a'] = @v")),
    "partial": Way("functools.partial(same, @v)", ("@p()", "@p.args[0]")),
    "partial's keyword": Way("functools.partial(by_keyword, a=@v)", ("@p()", "@p.keywords['a']"),
                             ("@p.keywords['a'] = @v",)),
    "function's attribute": Way("tagged(@v)", ATTRIBUTE, SET, BESIDE),
    "generator": Way("generated(@v)", ("next(@p())", "[*@p()][0]"),
                     ("@p.__closure__[0].cell_contents = @v",)),
    "decorated": Way("decorated(@v)", ("@p()",)),
    "bound method": Way("Plain(@v).read", ("@p()", "@p.__self__.v"), ("@p.__self__.v = @v",),
                        ("@p.__self__.junk = 7",)),
    "thread's own": Way("local(@v)", ("@p.v",), SET, BESIDE),
    "context variable": Way("variable(@v)", ("@p.get()",), ("@p.set(@v)",)),
    "array of objects": Way("boxed(@v)", ("@p[0]", "@p.tolist()[0]"), ("@p[0] = @v",)),
    "module": Way("module(@v)", ATTRIBUTE, SET, BESIDE),
    "module's getattr": Way("by_module_getattr(@v)", ("@p.v",), ("@p.values['v'] = @v",
                            "@p.v = @v")),
    "weak reference": Way("weak(@v)", ("@p().v",), ("@p().v = @v",), ("@p().junk = 7",)),
    "layer": Way("Holder(@v)", ("@p.held", "getattr(@p, 'held')"), ("@p.held = @v",),
                 ("@p.junk = 7",)),
    "generic": Way("Generic(@v)", ("@p.v",), SET, BESIDE),
}  # fmt: skip


@dataclass(frozen=True)
class Leaf:
    """What a read ends at. ``use`` makes of @e, the read, and y, the result so far, another y."""

    made: str
    others: tuple[str, ...]
    uses: tuple[str, ...]
    inside: tuple[str, ...] = ()  # changes in place, of @p


LEAVES: dict[str, Leaf] = {
    "float": Leaf("2.0", ("1.0", "-2.0", "2", "0.0", "-0.0", "float('nan')"),
                  ("y = y * @e", "y = @e * y", "y = y * (2.0 if @e > 1.5 else 1.0)",
                   "k = @e\ny = y * k", "y = y * float(f'{@e}')", "y = y * (@e and 2.0)")),
    "int": Leaf("2", ("1", "True", "2.0", "0"),
                ("y = y * @e", "for _ in range(@e):\n    y = y * 2.0",
                 "y = y * [1.0, 4.0, 2.0][@e]",
                 "k = 0\nwhile k < @e:\n    k += 1\ny = y * k",
                 "match @e:\n    case 2:\n        y = y * 2.0\n    case _:\n        y = y * 4.0")),
    "bool": Leaf("True", ("False", "1", "0"),
                 ("y = y * (2.0 if @e else 1.0)", "y = y * (2.0 if @e is True else 1.0)",
                  "if @e:\n    y = y * 2.0", "y = y * (@e or 2.0)",
                  "y = y * (4.0 if not @e else 2.0)")),
    "string": Leaf("'ab'", ("'a'", "'abcd'", "b'ab'"),
                   ("y = y * len(@e)", "y = y * (2.0 if @e == 'ab' else 1.0)",
                    "y = y * {'ab': 2.0}.get(@e, 1.0)",
                    "match @e:\n    case 'ab':\n        y = y * 2.0\n"
                    "    case _:\n        y = y * 4.0")),
    "none": Leaf("None", ("1", "False"),
                 ("y = y * (2.0 if @e is None else 1.0)", "y = y * (@e or 2.0)")),
    "tensor": Leaf("tg.tensor([2.0, 2.0])",
                   ("tg.tensor([1.0, 4.0])", "tg.tensor([1.0, 1.0], dtype=tg.float64)",
                    "tg.tensor([[1.0], [2.0]])", "tg.tensor([2.0, 1.0], requires_grad=True)"),
                   ("y = y * @e", "y = @e * y", "y = y * (@e + 0)", "k = @e\ny = k * y",
                    "y = y * (2.0 if @e.dtype == tg.float32 else 1.0)",
                    "y = y * @e.shape[0]", "y = y * @e.ndim",
                    "y = y * (2.0 if @e.requires_grad else 1.0)"),
                   ("@p.data[:] = 4.0", "@p.data = np.array([4.0, 4.0], np.float32)",
                    "@p.requires_grad = True",
                    "@p.data = np.array([4.0, 4.0])", "@p.data = np.array([[4.0]], np.float32)")),
    "array": Leaf("np.array([2.0, 2.0])", ("np.array([1.0, 4.0])",),
                  ("y = y * float(@e[0])", "y = y * float(@e.max())", "y = y * float(np.max(@e))",
                   "y = y * @e.shape[0]"),
                  ("@p[0] = 1.0", "@p[:] = 4.0")),
    "numbers": Leaf("[1.0, 2.0]", ("[1.0, 4.0]", "[2.0]", "[1, 2]"),
                    ("y = y * @e[-1]", "y = y * max(@e)", "y = y * len(@e)",
                     "for k in @e:\n    y = y * k", "y = y * (2.0 if 2.0 in @e else 1.0)",
                     "y = y * sum(k for k in @e if k > 1)", "y = y * (2.0 if @e else 1.0)",
                     "a, *b = @e\ny = y * a"),
                    ("@p.append(4.0)", "@p[1] = 4.0", "@p.pop()", "@p.reverse()", "@p.clear()")),
    "function": Leaf("(lambda v: v * 2.0)", ("(lambda v: v * 4.0)", "tg.negative", "Scale(4.0)"),
                     ("y = @e(y)", "y = (lambda g: g(y))(@e)", "y = list(map(@e, [y]))[0]"),
                     ("@p.__code__ = (lambda v: v * 4.0).__code__",)),
    "layer": Leaf("Scale(2.0)", ("Scale(4.0)", "(lambda v: v * 4.0)"),
                  ("y = @e(y)", "y = @e.forward(y)", "y = nn.Sequential(@e)(y) if 0 else @e(y)"),
                  ("@p.k = 4.0", "type(@p).forward = lambda self, v: v * 4.0")),
    "class": Leaf("A", ("B", "int"),
                  ("y = y * (2.0 if @e is A else 1.0)",
                   "y = y * (2.0 if issubclass(@e, A) else 1.0)",
                   "y = y * (2.0 if isinstance(A(), @e) else 1.0)")),
    "object": Leaf("Plain(2.0)", ("Plain(4.0)", "Derived(4.0)"),
                   ("y = y * @e.v", "y = y * @e.read()",
                    "match @e:\n    case Plain(v=k):\n        y = y * k",
                    "y = y * (2.0 if type(@e) is Plain else 1.0)", "y = y * copy.copy(@e).v"),
                   ("@p.v = 4.0", "Plain.read = lambda self: 4.0", "@p.__class__ = Derived")),
    "abstract class": Leaf(
        "type('Kind', (abc.ABC,), {})",
        ("type('Kind', (), {})", "A"),
        ("y = y * (2.0 if issubclass(A, @e) else 1.0)",
         "y = y * (2.0 if isinstance(A(), @e) else 1.0)",
         "y = y * (2.0 if isinstance(AN_A, @e) else 1.0)"),
        ("@p.register(A)",),
    ),
    "dtype": Leaf("tg.float32", ("tg.float64",), ("y = y.astype(@e)",)),
}  # fmt: skip


@dataclass(frozen=True)
class Context:
    """Where a part of a read happens: @P is what it begins with, @R reads the rest from p.

    outside: at the level of the module; inside: statements of the step; value: an expression.
    @n is a number of its own.
    """

    value: str
    outside: str = ""
    inside: str = ""


HELPER = "def h@n(p): return @R"
CONTEXTS: dict[str, Context] = {
    "helper": Context("h@n(@P)", HELPER),
    "helper by name": Context("h@n(p=@P)", HELPER),
    "helper by star": Context("h@n(*[@P])", HELPER),
    "helper by two stars": Context("h@n(**{'p': @P})", HELPER),
    "helper of star": Context("h@n(0, @P)", "def h@n(*args):\n    p = args[1]\n    return @R"),
    "helper of two stars": Context("h@n(q=@P)", "def h@n(**kw):\n    p = kw['q']\n    return @R"),
    "lambda": Context("(lambda p: @R)(@P)"),
    "inner function": Context("h@n(@P)", inside="def h@n(p):\n    return @R"),
    "closure": Context("h@n()", inside="q@n = @P\ndef h@n():\n    p = q@n\n    return @R"),
    "list comprehension": Context("[@R for p in [@P]][0]"),
    "dict comprehension": Context("{0: @R for p in (@P,)}[0]"),
    "generator expression": Context("next(@R for p in [@P])"),
    "nested comprehension": Context("[a for q in [[@P]] for a in [@R for p in q]][0]"),
    "loop": Context("t@n", inside="for p in [@P]:\n    t@n = @R"),
    "while": Context(
        "t@n", inside="k@n = 0\nwhile k@n < 1:\n    k@n += 1\n    p = @P\n    t@n = @R"
    ),
    "conditional": Context("t@n", inside="p = @P\nt@n = @R if p is not Ellipsis else 0"),
    "walrus": Context("(@R if (p := @P) is not Ellipsis else 0)"),
    "try": Context(
        "t@n",
        inside="try:\n    p = @P\n    t@n = @R\nexcept ZeroDivisionError:\n    t@n = 0",
    ),
    "finally": Context("t@n", inside="try:\n    p = @P\nfinally:\n    t@n = @R"),
    "exception": Context(
        "t@n",
        inside="try:\n    raise LookupError(@P)\nexcept LookupError as e:\n"
        "    p = e.args[0]\n    t@n = @R",
    ),
    "with": Context("t@n", inside="with managed(@P) as p:\n    t@n = @R"),
    "with of a class": Context("t@n", inside="with Scope(@P) as p:\n    t@n = @R"),
    "match": Context("t@n", inside="match @P:\n    case p:\n        t@n = @R"),
    "unpacking": Context("t@n", inside="p, *_ = [@P, 0]\nt@n = @R"),
    "generator function": Context("[*h@n(@P)][0]", "def h@n(p): yield @R"),
    "yield from": Context("[*g@n(@P)][0]", "def h@n(p): yield @R\ndef g@n(p): yield from h@n(p)"),
    "recursion": Context("h@n(@P, 2)", "def h@n(p, n): return @R if n == 0 else h@n(p, n - 1)"),
    "decorated": Context("h@n(@P)", "@passing\ndef h@n(p): return @R"),
    "method": Context("K@n(@P).read()",
                      "class K@n:\n    def __init__(self, p): self.p = p\n    def read(self):\n"
                      "        p = self.p\n        return @R"),
    "property": Context("K@n(@P).value",
                        "class K@n:\n    def __init__(self, p): self.p = p\n    @property\n"
                        "    def value(self):\n        p = self.p\n        return @R"),
    "static method": Context("K@n.read(@P)",
                             "class K@n:\n    @staticmethod\n    def read(p): return @R"),
    "super": Context("K@n().read(@P)",
                     "class J@n:\n    def read(self, p): return @R\nclass K@n(J@n):\n"
                     "    def read(self, p): return super().read(p)"),
    "class body": Context("K@n.value", inside="p = @P\nclass K@n:\n    value = @R"),
    "map": Context("list(map(lambda p: @R, [@P]))[0]"),
    "sorted": Context("sorted([(0, @R) for p in [@P]], key=lambda a: a[0])[0][1]"),
    "reduce": Context("functools.reduce(lambda a, p: @R, [@P], None)"),
    "partial": Context("functools.partial(h@n, @P)()", HELPER),
    "forward": Context("Forward(h@n)(@P)", HELPER),
    "eval": Context("eval(\"\"\"@R\"\"\", globals(), {'p': @P})"),
    "coroutine": Context(
        "t@n", "async def h@n(p): return @R",
        "c@n = h@n(@P)\ntry:\n    c@n.send(None)\n"
        "except StopIteration as stop:\n    t@n = stop.value",
    ),
    "starmap": Context("list(itertools.starmap(lambda p, q: @R, [(@P, 0)]))[0]"),
    "no_grad": Context("t@n", inside="with tg.no_grad():\n    p = @P\n    t@n = @R"),
    "global function": Context("globals()['h@n'](@P)", HELPER),
    "table": Context("T@n['h'](@P)", "T@n = {'h': lambda p: @R}"),
}  # fmt: skip

ROOTS = ("global", "closure", "default", "keyword default", "argument", "module", "imported",
         "class", "self", "builtin")  # fmt: skip
EFFECTS = (
    "", "", "", "", "log.append(y.sum())", "state['y'] = y", "store.y = y", "store.n += 1",
    "state['n'] += 2", "log[0] = y",
)  # fmt: skip
#: What becomes of y in the end; w is a parameter.
TAILS = (
    "return y", "return y", "return y", "return y, y + 1", "return {'y': y}",
    "w.grad = None\n(w * y).sum().backward()\nreturn y", "(w * y).sum().backward()\nreturn y",
    "optimizer.zero_grad()\n(w * y).sum().backward()\noptimizer.step()\nreturn y",
    "with tg.no_grad():\n    w.copy_(w + y.sum())\nreturn y",
)  # fmt: skip


# --- a plan, and the program that it describes ----------------------------------------------------


@dataclass(frozen=True)
class Read:
    """Root, the holders from the outermost in (each with one way to read it), leaf and its use;
    the contexts, and how many holders each takes."""

    root: str
    holders: tuple[tuple[str, int], ...]
    leaf: str
    use: int
    contexts: tuple[tuple[str, int], ...]
    shares: bool = False  # the object at its root is the one of the first read


@dataclass(frozen=True)
class Change:
    """``level``: 0 binds the root anew, k writes to the k-th holder; -1 is inside the leaf.

    write: which of the ways to write; other: which of the other leaves is put there.
    beside: something that is not read is changed instead.
    """

    read: int
    level: int
    write: int
    other: int
    beside: bool = False


@dataclass(frozen=True)
class Plan:
    reads: tuple[Read, ...]
    tail: str
    effect: str
    changes: tuple[Change, ...]
    calls: tuple[int, ...]  # before, between and after the changes

    def actions(self) -> tuple[str, ...]:
        found = ("call",) * self.calls[0]
        for n in self.calls[1:]:
            found += ("change", *("call",) * n)
        return found


def planned(rng: random.Random) -> Plan:
    """A plan drawn at random."""
    reads = tuple([_read(rng) for _ in range(rng.choice((1, 1, 2, 2, 3)))])
    if len(reads) > 1 and rng.random() < 0.2:
        holders = tuple(
            [(name, rng.randrange(len(WAYS[name].reads))) for name, _ in reads[0].holders]
        )
        other = replace(reads[0], holders=holders, contexts=reads[1].contexts, root=reads[1].root)
        reads = (reads[0], replace(other, shares=True), *reads[2:])
    changes = [_change(rng, reads) for _ in range(rng.choice((0, 1, 1, 1, 1, 2)))]
    calls = [rng.randint(1, 6), *[rng.randint(1, 3) for _ in changes]]
    if not changes:
        calls = [7]
    return Plan(reads, rng.choice(TAILS), rng.choice(EFFECTS), tuple(changes), tuple(calls))


def _read(rng: random.Random) -> Read:
    names = rng.choices(list(WAYS), k=rng.choice((0, 1, 1, 2, 2, 3, 4)))
    holders = tuple([(name, rng.randrange(len(WAYS[name].reads))) for name in names])
    leaf = rng.choice([*LEAVES, "numbers", "tensor"])
    contexts = []
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        contexts.append((rng.choice(list(CONTEXTS)), rng.randint(0, 2)))
    use = rng.randrange(len(LEAVES[leaf].uses))
    return Read(rng.choice(ROOTS), holders, leaf, use, tuple(contexts))


def _change(rng: random.Random, reads: tuple[Read, ...]) -> Change:
    number = rng.randrange(len(reads))
    read = reads[number]
    leaf = LEAVES[read.leaf]
    level = rng.randint(0, len(read.holders))
    if leaf.inside and rng.random() < 0.35:
        level = -1
    beside = rng.random() < 0.1
    return Change(number, level, rng.randrange(12), rng.randrange(len(leaf.others)), beside)


def made(read: Read, level: int, value: str) -> str:
    """The text that makes what lies below the holder ``level``, with ``value`` as the leaf."""
    for name, _ in reversed(read.holders[level:]):
        value = WAYS[name].made.replace("@v", value)
    return value


def path(read: Read, count: int, begin: str) -> str:
    """The text that reads through the first ``count`` holders, in the first way of each."""
    for name, _ in read.holders[:count]:
        begin = WAYS[name].reads[0].replace("@p", begin)
    return begin


def _begin(read: Read, k: int) -> str:
    """How the step refers to the root of read ``k``."""
    return {
        "argument": f"rest[{k}]", "module": f"settings.r{k}", "imported": f"r{k}",
        "class": f"Root.r{k}", "self": f"self.r{k}",
    }.get(read.root, f"r{k}")  # fmt: skip


def _outside(read: Read, k: int) -> str:
    """How the caller refers to the root of read ``k``."""
    return {
        "closure": f"get{k}()", "default": f"inner.__defaults__[{k}]", "class": f"Root.r{k}",
        "keyword default": f"inner.__kwdefaults__['r{k}']", "module": f"settings.r{k}",
        "imported": f"settings.r{k}", "self": f"thing.r{k}", "builtin": f"builtins.r{k}",
    }.get(read.root, f"r{k}")  # fmt: skip


def _rebound(read: Read, k: int, value: str) -> str:
    """The text that binds the root of read ``k`` to another value."""
    if read.root == "closure":
        return f"put{k}({value})"
    if read.root == "default":
        return f"d_ = list(inner.__defaults__); d_[{k}] = {value}; inner.__defaults__ = tuple(d_)"
    return f"{_outside(read, k)} = {value}"


def _segments(read: Read) -> Iterator[tuple[str, list[str]]]:
    """The contexts, innermost first, each with the ways to read of the holders that it takes."""
    texts = [WAYS[name].reads[way] for name, way in read.holders]
    for name, count in read.contexts:
        yield name, texts[:count]
        texts = texts[count:]
    yield "", texts


def rendered(plan: Plan) -> Scenario:
    """The program of a plan, and its changes, as texts."""
    outside: list[str] = []
    inside: list[str] = ["y = x * 1.0"]
    number = 0
    for k, read in enumerate(plan.reads):
        value = _begin(read, k)
        if read.root == "imported":
            inside.append(f"from scenario_settings import r{k}")
        for name, texts in _segments(read):
            if not name:
                for text in texts:
                    value = text.replace("@p", value)
                continue
            rest = "p"
            for text in texts:
                rest = text.replace("@p", rest)
            number += 1
            context = CONTEXTS[name]
            parts = [
                t.replace("@n", str(number)).replace("@R", rest).replace("@P", value)
                for t in (context.outside, context.inside, context.value)
            ]
            outside += filter(None, [parts[0]])
            inside += filter(None, [parts[1]])
            value = parts[2]
        inside.append(LEAVES[read.leaf].uses[read.use].replace("@e", value))
    inside += [*filter(None, [plan.effect]), plan.tail]
    changes = tuple([_change_text(plan, c) for c in plan.changes])
    watch: tuple[str, ...] = ("log", "state", "vars(store)") if plan.effect else ()
    watch += ("w", "w.grad") if "w" in plan.tail else ()
    arguments = ", ".join(
        f"r{k}" if r.root == "argument" else "0" for k, r in enumerate(plan.reads)
    )
    calls = tuple(f"({x}, {arguments},)" for x in ("x", "x + 1", "x * 3"))
    setup = "\n".join(outside) + "\n" + _program(plan, "\n".join(inside))
    return Scenario("generated", setup, "", changes, watch, calls=calls, prelude=PRELUDE)


def _change_text(plan: Plan, change: Change) -> str:
    read = plan.reads[change.read]
    leaf = LEAVES[read.leaf]
    begin = _outside(read, change.read)
    if change.beside:
        holders = [k for k, (name, _) in enumerate(read.holders) if WAYS[name].beside]
        if not holders:
            return "unused = 1"
        k = holders[change.write % len(holders)]
        ways = WAYS[read.holders[k][0]].beside
        return ways[change.write % len(ways)].replace("@p", path(read, k, begin))
    if change.level == -1:
        text = leaf.inside[change.write % len(leaf.inside)]
        return text.replace("@p", path(read, len(read.holders), begin))
    level = change.level
    while level and not WAYS[read.holders[level - 1][0]].writes:
        level -= 1  # a tuple, say: the holder above gets another one
    value = made(read, level, leaf.others[change.other])
    if not level:
        return _rebound(read, change.read, value)
    ways = WAYS[read.holders[level - 1][0]].writes
    text = ways[change.write % len(ways)]
    return text.replace("@v", value).replace("@p", path(read, level - 1, begin))


def _program(plan: Plan, body: str) -> str:
    """The definitions of the roots and of ``step``."""
    lines = ["import builtins", "log, state, store = [None], {'n': 0}, Plain(0); store.n = 0"]
    lines += ["settings = types.ModuleType('scenario_settings')",
              "sys.modules['scenario_settings'] = settings", "class Root: pass",
              "class Thing:", "    pass", "thing = Thing()"]  # fmt: skip
    lines += [
        "w = tg.tensor([1.0, 2.0], requires_grad=True)",
        "optimizer = tg.optim.SGD([w], lr=0.5)",
        f"shared = {made(plan.reads[0], 0, LEAVES[plan.reads[0].leaf].made)}",
    ]
    values = ["shared" if r.shares or not k else made(r, 0, LEAVES[r.leaf].made)
              for k, r in enumerate(plan.reads)]  # fmt: skip
    roots = [read.root for read in plan.reads]
    for k, (root, value) in enumerate(zip(roots, values)):
        holder = {
            "module": "settings.", "imported": "settings.", "class": "Root.", "self": "thing.",
            "builtin": "builtins.",
        }.get(root, "")  # fmt: skip
        lines.append(f"{holder}r{k} = {value}")
    last = max([k for k, r in enumerate(roots) if r == "default"], default=-1)
    # A default in front of one that is read has a name of its own: it hides nothing.
    parameters = ["self", "xs"]
    parameters += [f"r{k}=r{k}" if roots[k] == "default" else f"d{k}=0" for k in range(last + 1)]
    keywords = [f"r{k}=r{k}" for k, r in enumerate(roots) if r == "keyword default"]
    signature = ", ".join(parameters + (["*", *keywords] if keywords else []))
    cells = [k for k, r in enumerate(roots) if r == "closure"]
    lines.append("def make():")
    lines += [f"    r{k} = globals()['r{k}']" for k in cells]
    lines.append(f"    def inner({signature}):")
    lines.append(textwrap.indent("x, *rest = xs\n" + body, " " * 8))
    for k in cells:
        lines.append(f"    def get{k}(): return r{k}")
        lines.append(f"    def put{k}(v):\n        nonlocal r{k}\n        r{k} = v")
    lines.append("    return inner" + "".join(f", get{k}, put{k}" for k in cells))
    names = "inner" + "".join(f", get{k}, put{k}" for k in cells)
    lines += [f"{names} = make()", "Thing.inner = inner", "def step(xs): return thing.inner(xs)"]
    return "\n".join(lines)


# --- trying, shrinking ----------------------------------------------------------------------------


class UnfitError(Exception):
    """A program that does not run as it is: two contexts that do not go together, say."""


@dataclass(frozen=True)
class Finding:
    """``kind``: "" (right), "WRONG", "DROPPED" (found by a later check alone), or "overdone"
    (captured again and again)."""

    plan: Plan
    verdict: Verdict
    kind: str


def examined(plan: Plan, executor: str = "auto") -> Finding:
    """Run the program of a plan eagerly and compiled. Raises UnfitError."""
    scenario, actions = rendered(plan), plan.actions()
    try:
        eager = run(scenario, actions)
    except Exception as error:
        raise UnfitError(str(error)) from None
    if any(type(o) is str for a, o in eager.observed[:1]):
        raise UnfitError(str(eager.observed[0][1]))
    verdict = judged(scenario, actions, eager, executor)
    kind = verdict.outcome if verdict.outcome in ("WRONG", "DROPPED") else ""
    # Two for each change: the first makes what the second finds (a cached property, a gradient).
    if verdict.outcome in ("replays", "captured anew") and verdict.captures:
        kind = kind or ("overdone" if verdict.captures[-1] > 2 + 2 * len(plan.changes) else "")
    return Finding(plan, verdict, kind)


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with one thing less."""
    for k in range(len(plan.changes)):
        rest = plan.changes[:k] + plan.changes[k + 1 :]
        yield replace(plan, changes=rest, calls=plan.calls[: len(rest) + 1] if rest else (7,))
    if plan.effect:
        yield replace(plan, effect="")
    if plan.tail != TAILS[0]:
        yield replace(plan, tail=TAILS[0])
    for k in range(len(plan.reads)):
        if len(plan.reads) > 1 and (k or not any(r.shares for r in plan.reads)):
            changes = tuple([
                replace(c, read=c.read - (c.read > k)) for c in plan.changes if c.read != k
            ])  # fmt: skip
            if len(changes) == len(plan.changes):
                yield replace(plan, reads=plan.reads[:k] + plan.reads[k + 1 :])
    for k, read in enumerate(plan.reads):
        if read.shares:  # it is made as the first one is
            continue
        for smaller in _smaller_reads(read):
            reads = (*plan.reads[:k], smaller, *plan.reads[k + 1 :])
            lost = len(read.holders) - len(smaller.holders)
            changes = tuple([
                replace(c, level=max(c.level - lost, 0) if c.level > 0 else c.level)
                if c.read == k else c for c in plan.changes
            ])  # fmt: skip
            yield replace(plan, reads=reads, changes=changes)


def _smaller_reads(read: Read) -> Iterator[Read]:
    for k in range(len(read.contexts)):
        yield replace(read, contexts=read.contexts[:k] + read.contexts[k + 1 :])
    for k in range(len(read.holders)):
        yield replace(read, holders=read.holders[:k] + read.holders[k + 1 :])
    for k, (name, way) in enumerate(read.holders):
        if way:
            yield replace(read, holders=(*read.holders[:k], (name, 0), *read.holders[k + 1 :]))
    if read.root != "global":
        yield replace(read, root="global")


def shrunk(finding: Finding, executor: str = "auto") -> Finding:
    """A smaller program with the same fault."""
    for _ in range(60):
        for plan in _smaller(finding.plan):
            try:
                other = examined(plan, executor)
            except (UnfitError, IndexError):
                continue
            if other.kind == finding.kind and (
                other.kind or other.verdict.outcome == finding.verdict.outcome
            ):
                finding = other
                break
        else:
            break
    return finding


def text_of(finding: Finding) -> str:
    """The program, after what all have in common, and what came."""
    scenario = rendered(finding.plan)
    changes = "\n".join(scenario.changes)
    return (
        f"{scenario.setup}\n# calls {finding.plan.calls} of step(xs), xs in turn: "
        f"{'; '.join(scenario.calls)}\n# changes:\n{changes}\n# {finding.kind}: {finding.verdict}"
    )


def programs(seed: int | str) -> Iterator[Plan]:
    """Plans without end; the k-th depends on ``seed`` and k alone."""
    for k in itertools.count():
        yield planned(random.Random(f"{seed}-{k}"))


def main() -> None:
    """Make programs and try them until the time is over."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", default=None, help="another one each time, if it is left out")
    parser.add_argument("--executor", default="auto")
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--refused", action="store_true", help="print a program for each reason")
    options = parser.parse_args()
    seed = options.seed or str(random.SystemRandom().randrange(10**9))
    print(f"seed {seed}", flush=True)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    end = time.monotonic() + 60 * options.minutes
    for k, plan in enumerate(programs(seed)):
        if time.monotonic() > end:
            break
        if k < options.first:
            continue
        try:
            finding = examined(plan, options.executor)
        except UnfitError:
            counts["unfit"] += 1
            continue
        counts[finding.kind or finding.verdict.outcome] += 1
        if finding.kind:
            print(f"--- program {k}\n{text_of(shrunk(finding, options.executor))}", flush=True)
        elif finding.verdict.outcome in ("refused", "as it is"):
            reason = re.sub(r"\d+", "N", finding.verdict.detail)
            if options.refused and reason not in reasons:
                print(f"--- program {k}\n{text_of(shrunk(finding, options.executor))}", flush=True)
            reasons[reason] += 1
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.most_common()))
    for reason, n in reasons.most_common(40):
        print(f"{n:6} {reason}")
    sys.exit(1 if counts["WRONG"] + counts["DROPPED"] else 0)


if __name__ == "__main__":
    main()
