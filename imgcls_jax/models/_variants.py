"""The variants of a family take the same options: one signature, written once."""

import functools
import inspect
from collections.abc import Callable


def takes(options: Callable, **defaults) -> Callable[[Callable], Callable]:
    """Decorator: gives a variant the signature, hence the config schema, of `options`.

    The variant is called with every option; those not given have their default, from `options` or,
    if it is there, from `defaults`; the schema shows it too.
    """
    signature = inspect.signature(options)
    parameters = [p.replace(default=defaults.get(name, p.default))
                  for name, p in signature.parameters.items()]
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert set(defaults) <= set(known), f"{options.__name__} lacks some of {sorted(defaults)}"

    def decorate(function):
        @functools.wraps(function)
        def variant(num_classes, **given):
            return function(num_classes, **{**known, **given})

        variant.__signature__ = signature.replace(parameters=parameters)
        variant.__annotations__ = options.__annotations__
        return variant

    return decorate
