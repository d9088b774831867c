"""Registries: names, signatures as schemas, folders that are scanned."""

import concurrent.futures
import dataclasses
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import (
    BelowOne,
    Count,
    Positive,
    Registry,
    Share,
    bind,
    divide,
    near,
    options,
)

THINGS = Registry("thing")


@THINGS.register(colour="red")
def cube(given, *, size: int, weight: float = 1.0, name_of: str | None = None,
         on: bool = False, sides: tuple[int, ...] = (), pair: tuple[int, str] = (1, "a"),
         kind: Literal["wood", "stone"] = "wood", anything: Any = None):
    return given, size, weight


@THINGS.register()
def ball():
    return "round"


def test_bound_arguments_are_kept_and_positional_ones_left_open():
    bound = THINGS.bind({"name": "cube", "size": 2, "weight": 3}, "config.thing")
    assert bound("me") == ("me", 2, 3)


@pytest.mark.parametrize("argument, value", [
    ("size", 1), ("weight", 1), ("weight", 0.5), ("name_of", None), ("name_of", "x"), ("on", True),
    ("sides", (1, 2)), ("sides", ()), ("pair", (3, "b")), ("kind", "stone"), ("anything", {})])
def test_a_value_of_the_annotated_type_is_taken(argument, value):
    THINGS.bind({"name": "cube", "size": 1, argument: value}, "config.thing")


@pytest.mark.parametrize("argument, value", [
    ("size", 1.5), ("size", True), ("size", "1"), ("size", None), ("weight", "1"),
    ("weight", False), ("name_of", 5), ("on", 1), ("on", "True"), ("sides", (1, "2")),
    ("sides", 3), ("pair", (1,)), ("pair", ("a", 1)), ("kind", "iron"), ("kind", 1)])
def test_a_value_of_another_type_is_refused_and_named(argument, value):
    with pytest.raises(ConfigError) as caught:
        THINGS.bind({"name": "cube", "size": 1, argument: value}, "config.thing")
    assert caught.value.where == f"config.thing.{argument}"
    assert f"{argument}={value!r}" in caught.value.what


def test_a_literal_refused_shows_its_choices():
    with pytest.raises(ConfigError) as caught:
        THINGS.bind({"name": "cube", "size": 1, "kind": "iron"}, "config.thing")
    assert "wood" in caught.value.fix and "stone" in caught.value.fix


@pytest.mark.parametrize("choice, words", [
    ({"name": "cub"}, ("'cub'", "'cube'", "imgcls list things")),
    ({"name": "cube", "size": 1, "wieght": 2}, ("'wieght'", "'weight'", "config.thing.wieght")),
    ({"name": "cube"}, ("needs size", "config.thing.size")),
    ({"name": "ball", "size": 1}, ("'size'", "no arguments")),
    # What build gives is not the config's.
    ({"name": "cube", "given": 1, "size": 1}, ("'given'", "`*,`")),
    ({"size": 1}, ("dict(name=...", "cube")),
    ("cube", ("dict(name=...", "'cube'")),
    ({"name": 5}, ("5",)),
])
def test_a_wrong_choice_says_what_there_is(choice, words):
    with pytest.raises(ConfigError) as caught:
        THINGS.bind(choice, "config.thing")
    assert all(word in str(caught.value) for word in words), caught.value


BOXES = Registry("box")
BOXES.register()(ball)


@BOXES.register()
def box(*, of: Annotated[Callable, BOXES], more: tuple[Annotated[Callable, BOXES], ...] = (),
        last: Annotated[Callable, BOXES] | None = None):
    return of(), [one() for one in more], last and last()


def test_a_choice_within_a_choice_reaches_its_function_bound():
    ball_, cube_ = {"name": "ball"}, {"name": "box", "of": {"name": "ball"}}
    assert BOXES.bind({"name": "box", "of": ball_}, "x")() == ("round", [], None)
    assert BOXES.bind({"name": "box", "of": cube_, "more": (ball_, cube_), "last": ball_}, "x")() \
        == (("round", [], None), ["round", ("round", [], None)], "round")


@pytest.mark.parametrize("choice, where", [
    (dict(of={"name": "bal"}), "config.thing.of.name"),
    (dict(of={"name": "box", "of": {"name": "ball", "size": 1}}), "config.thing.of.of.size"),
    (dict(of={"name": "ball"}, more=({"name": "ball"}, {"nam": "ball"})), "config.thing.more[1]"),
    (dict(of="ball"), "config.thing.of"), (dict(of={"name": "ball"}, last=1), "config.thing.last")])
def test_a_wrong_choice_within_a_choice_is_named_by_its_place(choice, where):
    with pytest.raises(ConfigError) as caught:
        BOXES.bind({"name": "box", **choice}, "config.thing")
    assert caught.value.where == where


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paint:
    colour: str
    coats: int = 1


def test_a_dataclass_is_bound_as_a_function_is():
    assert bind(Paint, {"colour": "red"}, "config.paint")() == Paint(colour="red")
    for given, where, words in (({}, "config.paint", "config.paint needs colour"),
                                ({"color": "red"}, "config.paint.color", "'color'"),
                                ({"colour": "red", "coats": 1.5}, "config.paint.coats", "float")):
        with pytest.raises(ConfigError, match=words) as caught:
            bind(Paint, given, "config.paint")
        assert caught.value.where == where
    assert divide({"name": "cube", "coats": 2, "size": 1}, Paint) == (
        {"coats": 2}, {"name": "cube", "size": 1})


def test_near_names_come_first_and_all_names_where_none_is_near():
    assert near("resnet5", ["resnet50", "vit"]) == "did you mean 'resnet50'?"
    assert near("zzz", ["b", "a"]) == "use one of ['a', 'b']"


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="defined twice"):
        @THINGS.register()
        def ball():
            pass


def test_facts_stand_beside_the_function():
    assert THINGS.facts("cube") == {"colour": "red"} and THINGS.names() == ["ball", "cube"]


def test_a_new_file_in_the_folder_is_a_new_name_and_an_underscore_hides_one(tmp_path, monkeypatch):
    folder = tmp_path / "birds_of_this_test"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from imgcls_jax.registry import Registry\nBIRDS = Registry('bird', __name__)\n")
    line = "from birds_of_this_test import BIRDS\n@BIRDS.register()\ndef {}():\n    return 1\n"
    (folder / "a.py").write_text(line.format("robin"))
    (folder / "_b.py").write_text(line.format("wren"))
    monkeypatch.syspath_prepend(tmp_path)
    from birds_of_this_test import BIRDS
    assert BIRDS.names() == ["robin"] and BIRDS.bind({"name": "robin"}, "x")() == 1
    (folder / "c.py").write_text("import nothing_of_the_kind\n")
    BIRDS._scanned = False
    with pytest.raises(ConfigError, match="nothing_of_the_kind") as error:
        BIRDS.names()
    assert error.value.where == "birds_of_this_test/c.py"
    for name in [name for name in sys.modules if name.startswith("birds_of_this_test")]:
        del sys.modules[name]


def test_a_name_that_two_threads_ask_for_first_is_found_by_both(tmp_path, monkeypatch):
    folder = tmp_path / "fish_of_this_test"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from imgcls_jax.registry import Registry\nFISH = Registry('fish', __name__)\n")
    for name in ("carp", "trout"):
        (folder / f"{name}.py").write_text(
            "import time\nfrom fish_of_this_test import FISH\ntime.sleep(0.05)\n"
            f"@FISH.register()\ndef {name}():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    from fish_of_this_test import FISH
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(FISH.get, ["trout", "carp"] * 2))
    assert [function.__name__ for function in found] == ["trout", "carp"] * 2
    for name in [name for name in sys.modules if name.startswith("fish_of_this_test")]:
        del sys.modules[name]


def test_a_decorator_without_parentheses_or_needed_facts_says_so():
    registry = Registry("bird", needs=("wings",))
    with pytest.raises(TypeError, match="parentheses"):
        registry.register(ball)
    with pytest.raises(TypeError, match=r"'ball'.*needs wings"):
        registry.register(legs=2)(ball)
    assert registry.register(wings=2)(ball) is ball


def limited(*, p: Share = 0.5, momentum: BelowOne | None = None,
            scale: tuple[Share, Share] = (0, 1),
            size: Count | tuple[Count, Count] = 1, rates: tuple[Positive, ...] = ()):
    return p, momentum, scale, size, rates


@pytest.mark.parametrize("given", [
    {"p": 0}, {"p": 1}, {"momentum": 0}, {"momentum": 0.999}, {"momentum": None},
    {"scale": (0.0, 1.0)}, {"size": 1}, {"size": (3, 1)}, {"rates": (1e-9, 5)}, {"rates": ()}])
def test_numbers_within_their_limits_are_taken(given):
    (name, value), = given.items()
    assert value in bind(limited, given, "config.x")()
    assert bind(limited, given, "config.x").keywords[name] == value


@pytest.mark.parametrize("given, limits", [
    ({"p": -0.1}, "at least 0 and at most 1"), ({"p": 1.0001}, "at least 0 and at most 1"),
    ({"p": float("nan")}, "at least 0"), ({"momentum": 1}, "at least 0 and below 1"),
    ({"scale": (0.5, 1.5)}, "at least 0 and at most 1"), ({"size": 0}, "at least 1"),
    ({"size": (3, 0)}, "at least 1"), ({"rates": (1.0, 0.0)}, "above 0"),
    ({"rates": (float("inf"),)}, "above 0")])
def test_numbers_beyond_their_limits_are_refused_with_them(given, limits):
    (name, _), = given.items()
    with pytest.raises(ConfigError, match=f"^error: {name}=.* is out of range") as error:
        bind(limited, given, "config.x")
    assert error.value.where == f"config.x.{name}" and limits in error.value.fix


def test_options_are_shown_without_limits():
    assert options(limited) == [
        "p: float = 0.5", "momentum: float | None = None", "scale: tuple[float, float] = (0, 1)",
        "size: int | tuple[int, int] = 1", "rates: tuple[float, ...] = ()"]
    with pytest.raises(ConfigError) as error:
        bind(limited, {"size": "large"}, "config.x")
    assert error.value.fix == "give a value of type int | tuple[int, int]"
