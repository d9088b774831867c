"""How torchvision and timm name the parts of our blocks of inverted residuals."""

from collections.abc import Callable, Sequence
from itertools import accumulate

PARTS = ("expand", "depthwise", "squeeze_excite", "project")
Parts = Callable[[int, int], tuple[str, ...]]
"""(stage from 1, block from 0) -> its parts in order: those of PARTS, or "fused" and "project"."""


def renames(name: Callable[[int, int, str, str], str]) -> tuple:
    """For Layout.renames. name: (stage, block, part, "conv" | "norm" | "reduce" | "expand") ->
    the name of their module."""
    def rename(match):
        stage, block, part, leaf = match.groups()
        return name(int(stage), int(block), part, leaf)

    return ((r"stage(\d)_block(\d+)/(\w+)_(conv|norm)", rename),
            (r"stage(\d)_block(\d+)/(squeeze_excite)/(reduce|expand)", rename))


def timm(parts: Parts) -> tuple:
    """Renames to timm/models/_efficientnet_blocks.py; its norms are numbered within a block."""
    def name(stage, block, part, leaf):
        found = [other for other in parts(stage, block) if other != "squeeze_excite"]
        if part == "squeeze_excite":
            inner = f"se.conv_{leaf}"
        elif leaf == "norm":
            inner = f"bn{found.index(part) + 1}"
        elif part == "fused":
            inner = "conv" if len(found) == 1 else "conv_exp"
        elif part == "project":
            inner = "conv_pw" if found[0] == "depthwise" else "conv_pwl"
        else:
            inner = {"expand": "conv_pw", "depthwise": "conv_dw"}[part]
        return f"blocks.{stage - 1}.{block}.{inner}"

    return (*renames(name), (r"stem_conv", r"conv_stem"), (r"stem_norm", r"bn1"))


def torchvision(parts: Parts, prefix: Callable[[int, int], str]) -> tuple:
    """Renames to the nested sequences of torchvision's blocks; prefix: of (stage, block)."""
    def name(stage, block, part, leaf):
        inner = {"conv": "0", "norm": "1", "reduce": "fc1", "expand": "fc2"}[leaf]
        return f"{prefix(stage, block)}.{parts(stage, block).index(part)}.{inner}"

    return (*renames(name), (r"stem_conv", r"features.0.0"), (r"stem_norm", r"features.0.1"))


def place(blocks: Sequence[int]) -> Callable[[int, int], int]:
    """(stage, block) -> number among all blocks, from 1; blocks: how many each stage has."""
    before = (0, *accumulate(blocks))
    return lambda stage, block: before[stage - 1] + block + 1
