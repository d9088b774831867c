"""Errors that end a command: what is wrong, where, how to fix it, and each kind's exit code."""

import unicodedata

# Those that obey or hide: controls, formats (U+202E turns the rest of a line round), halves of
# characters, line ends. The two that join letters are part of words in Persian or Hindi.
ESCAPED, JOINERS = ("Cc", "Cf", "Cs", "Zl", "Zp"), "\u200c\u200d"


def printable(text: str, keep: str = "") -> str:
    """The text with escapes for what a terminal would obey; names are printed through this alone.

    keep: control characters that stay, such as line feeds of our own.
    """
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in ESCAPED
                   and c not in JOINERS and c not in keep else c for c in text)


class Failure(Exception):
    """An error meant for a person: `what` is wrong, `where`, and how to `fix` it.

    `code` is the exit status of the command that raises it; the codes are listed in the README.
    """

    code = 1
    title = "error: "

    def __init__(self, what: str, *, where: str = "", fix: str = ""):
        super().__init__(what)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        lines = [f"{self.title}{self.what}"]
        lines += [f"where: {printable(self.where)}"] * bool(self.where)
        lines += [f"fix:   {self.fix}"] * bool(self.fix)
        return printable("\n".join(lines), keep="\n")

    def __reduce__(self):
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(cls, what, where, fix):
    return cls(what, where=where, fix=fix)


class ConfigError(Failure):
    """A wrong command line or config."""

    code = 2


class DataError(Failure):
    """Data that is missing, damaged or not as declared."""

    code = 3


class CheckpointError(Failure):
    """A checkpoint that is missing, damaged or from another model."""

    code = 4


class Diverged(Failure):
    """A loss or gradient that is not finite."""

    code = 5


class EnvironmentFailure(Failure):
    """Disk, permissions, devices, missing packages."""

    code = 6


class Stalled(Failure):
    """Another process of the run that is gone, or does not go on."""

    code = 70


class Preempted(Failure):
    """Stopped from outside, with the state saved: run the same command again."""

    code = 75
    title = ""  # it has done what it was asked to
