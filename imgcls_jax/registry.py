"""A name in a config -> a function. The function's name is the name, its signature the schema."""

import dataclasses
import difflib
import functools
import importlib
import inspect
import math
import operator
import pkgutil
import threading
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from imgcls_jax.errors import ConfigError


def near(name: str, names: Iterable[str], count: int = 3) -> str:
    """The names most like `name`, as the end of a sentence."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, count, 0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"use one of {names}"


class Registry:
    """The functions of one kind.

    With a package, they are found in its files: every module of the folder is imported when the
    first name is asked for, `_x.py` left out, so that one new file is one new thing. `needs`: facts
    that must stand on every decorator.
    """

    def __init__(self, kind: str, package: str | None = None, needs: tuple[str, ...] = ()):
        self.kind, self.package, self.needs = kind, package, needs
        self.plural = kind + ("es" if kind.endswith("s") else "s")
        self._found: dict[str, Callable] = {}
        self._facts: dict[str, dict] = {}
        self._scanned = package is None
        self._scanning = threading.RLock()  # held by the thread that imports the files

    def register(self, *functions, **facts) -> Callable[[Callable], Callable]:
        """Decorator: enters a function under its own name, with facts about it."""
        if functions:
            raise TypeError("write @....register(), with parentheses")

        def enter(function):
            name = function.__name__
            missing = [fact for fact in self.needs if fact not in facts]
            if missing:
                raise TypeError(f"{self.kind} {name!r}: register() needs {', '.join(missing)}")
            if name in self._found:
                raise ValueError(f"{self.kind} {name!r} is defined twice: in {function.__module__}"
                                 f" and in {self._found[name].__module__}")
            self._found[name], self._facts[name] = function, facts
            return function

        return enter

    def _scan(self):
        """Imports the files. Another thread waits until all names are there."""
        if self._scanned or not self.package:
            return
        with self._scanning:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    self._import(f"{self.package}.{module.name}")
            self._scanned = True

    def _import(self, name: str):
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ConfigError(f"a file of {self.plural} fails: {type(error).__name__}: {error}",
                              where=name.replace(".", "/") + ".py",
                              fix="fix or move it: every file of the folder is imported; "
                                  "--debug shows the line") from error

    def names(self) -> list[str]:
        self._scan()
        return sorted(self._found)

    def get(self, name: str, where: str = "") -> Callable:
        """The function called `name`; ConfigError with the nearest names if there is none."""
        self._scan()
        if not isinstance(name, str) or name not in self._found:
            raise ConfigError(f"there is no {self.kind} called {name!r}", where=where,
                              fix=f"{near(str(name), self._found)} (imgcls list {self.plural})")
        return self._found[name]

    def facts(self, name: str) -> dict:
        self.get(name)
        return self._facts[name]

    def bind(self, choice: Mapping[str, Any], where: str) -> functools.partial:
        """dict(name=..., **arguments) -> the function with its keyword-only arguments bound.

        The positional parameters are left for `assembly` to give. ConfigError for an unknown name
        or argument, or a value of another type than the signature says.
        """
        if not isinstance(choice, Mapping) or "name" not in choice:
            raise ConfigError(f"{where} must be dict(name=..., ...), not {choice!r}", where=where,
                              fix=f"name a {self.kind}: one of {self.names()}")
        function = self.get(choice["name"], f"{where}.name")
        return bind(function, {k: v for k, v in choice.items() if k != "name"}, where)


@dataclasses.dataclass(frozen=True)
class Within:
    """The numbers that an argument annotated `Annotated[float, Within(...)]` may have: from low to
    high, `above` the one or `below` the other where they are left out themselves."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return (math.isfinite(value)
                and (self.low < value if self.above else self.low <= value)
                and (value < self.high if self.below else value <= self.high))

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if self.high == math.inf else (
            f"{low} and {'below' if self.below else 'at most'} {self.high:g}")


Share = Annotated[float, Within(0, 1)]
BelowOne = Annotated[float, Within(0, 1, below=True)]
Positive = Annotated[float, Within(0, above=True)]
NotNegative = Annotated[float, Within(0)]
Count = Annotated[int, Within(1)]
Whole = Annotated[int, Within(0)]


def bind(function: Callable, arguments: Mapping[str, Any], where: str) -> functools.partial:
    """`function` with keyword-only arguments bound, each checked against the signature.

    function: or a dataclass with `kw_only=True`. A parameter annotated `Annotated[..., REGISTRY]`
    takes a choice, dict(name=...), and is given the function that it names, bound.
    """
    allowed = {name: p for name, p in inspect.signature(function).parameters.items()
               if p.kind is p.KEYWORD_ONLY}
    hints = typing.get_type_hints(function, include_extras=True)
    # A reader knows the key of the config, and the name of a function, but not that of a dataclass.
    subject = where if dataclasses.is_dataclass(function) else function.__name__
    bound = {}
    for name, value in arguments.items():
        if name not in allowed:
            fix = near(name, allowed) if allowed else "it takes no arguments"
            if name in inspect.signature(function).parameters:
                fix = "only keyword-only arguments are a config's: put `*,` before it"
            raise ConfigError(f"{subject} takes no argument {name!r}",
                              where=f"{where}.{name}", fix=fix)
        hint = hints.get(name, Any)
        if not _fits(value, hint):
            kind = "" if typing.get_origin(hint) is typing.Literal else type(value).__name__
            raise ConfigError(f"{name}={value!r}" + (f" is a {kind}" if kind else ""),
                              where=f"{where}.{name}", fix=f"give {_say(hint)}")
        if limits := _broken(value, hint):
            raise ConfigError(f"{name}={value!r} is out of range", where=f"{where}.{name}",
                              fix=f"use {limits}")
        bound[name] = _chosen(value, hint, f"{where}.{name}")
    missing = [name for name, p in allowed.items()
               if p.default is p.empty and name not in arguments]
    if missing:
        raise ConfigError(f"{subject} needs {', '.join(missing)}", where=where,
                          fix=f"set {where}.{missing[0]}")
    return functools.partial(function, **bound)


def divide(choice: Mapping[str, Any], shared: Callable) -> tuple[dict, Mapping[str, Any]]:
    """(the arguments that `shared` takes, the others) of a choice.

    shared: a dataclass of what all functions of a kind take in addition to their own arguments.
    """
    if not isinstance(choice, Mapping):
        return {}, choice  # for Registry.bind to refuse
    names = inspect.signature(shared).parameters
    return ({name: value for name, value in choice.items() if name in names},
            {name: value for name, value in choice.items() if name not in names})


def options(function: Callable) -> list[str]:
    """The keyword-only arguments of a function or dataclass, as a person reads them."""
    def say(parameter) -> str:
        hint = _plain(parameter.annotation)
        if not any(map(_registry, (hint, *typing.get_args(hint)))):
            return str(parameter.replace(annotation=hint))
        optional = type(None) in typing.get_args(hint)
        return str(parameter.replace(annotation=dict | None if optional else dict))

    return [say(p) for p in inspect.signature(function).parameters.values()
            if p.kind is p.KEYWORD_ONLY]


def _registry(hint) -> Registry | None:
    """The registry of Annotated[..., REGISTRY]."""
    return next((fact for fact in getattr(hint, "__metadata__", ()) if isinstance(fact, Registry)),
                None)


def _plain(hint):
    """The hint without limits: Share becomes float."""
    origin, inner = typing.get_origin(hint), tuple(map(_plain, typing.get_args(hint)))
    if any(isinstance(fact, Within) for fact in getattr(hint, "__metadata__", ())):
        return inner[0]
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, inner)
    return types.GenericAlias(tuple, inner) if origin is tuple else hint


def _broken(value, hint) -> Within | None:
    """The limits in a hint that a value, or a number within it, does not keep."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return next((fact for fact in hint.__metadata__ if isinstance(fact, Within)
                     and isinstance(value, int | float) and value not in fact), None)
    if origin in (typing.Union, types.UnionType):
        return _broken(value, next(h for h in inner if _fits(value, h)))
    if origin is tuple and isinstance(value, tuple | list):
        each = zip(value, inner, strict=False) if inner[-1] is not ... else (
            (one, inner[0]) for one in value)
        return next(filter(None, (_broken(*one) for one in each)), None)
    return None


def _chosen(value, hint, where: str):
    """`value`, with every choice in it that `hint` says to be one replaced by its function."""
    registry, origin, inner = _registry(hint), typing.get_origin(hint), typing.get_args(hint)
    if registry and isinstance(value, Mapping):
        return registry.bind(value, where)
    if origin in (typing.Union, types.UnionType):
        return _chosen(value, next(h for h in inner if _fits(value, h)), where)
    if origin is tuple and inner[1:] == (Ellipsis,):
        return tuple(_chosen(v, inner[0], f"{where}[{i}]") for i, v in enumerate(value))
    return value


def _say(hint) -> str:
    """What may stand there: "a value of type int", "one of 'zero', 'reflect'"."""
    if registry := _registry(hint):
        return f"a {registry.kind}, such as dict(name={registry.names()[0]!r})"
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(hint)))}"
    hint = _plain(hint)
    return f"a value of type {hint if typing.get_args(hint) else getattr(hint, '__name__', hint)}"


def _fits(value, hint) -> bool:
    """Whether a JSON-able value may stand where `hint` is written; what is not simple may."""
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return (isinstance(value, Mapping) or callable(value) if _registry(hint)
                else _fits(value, inner[0]))
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, h) for h in inner)
    if origin is typing.Literal:
        return value in inner
    if hint is tuple or origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if not inner:
            return True
        if inner[-1] is Ellipsis:
            return all(_fits(v, inner[0]) for v in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    if hint is dict or origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return True
