"""What happens inside a model, without the model knowing."""

import re

import flax.linen as nn


def head_input(module, head: str, variables, images) -> dict:
    """{"": what the submodule `head` is called with}."""
    found = {}

    def note(call, arguments, options, context):
        if "/".join(context.module.path) == head and context.method_name == "__call__":
            found[""] = arguments[0]
        return call(*arguments, **options)

    with nn.intercept_methods(note):
        module.apply(variables, images, train=False)
    return found


def intermediates(module, variables, images, *, pattern: str) -> dict:
    """{path: output} of the submodules whose whole path matches the regex `pattern`."""
    found = {}

    def note(call, arguments, options, context):
        out = call(*arguments, **options)
        path = "/".join(context.module.path)
        if context.method_name == "__call__" and re.fullmatch(pattern, path):
            found[path] = out
        return out

    with nn.intercept_methods(note):
        module.apply(variables, images, train=False)
    return found
