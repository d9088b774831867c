"""`imgcls VERB ...`, and `python -m imgcls_jax VERB ...`."""

import gc
import os
import sys

# Programs on a CPU allocate gigabytes of temporary memory at each step, which the kernel hands out
# page by page: 230,000 times a step of ViT-S, a sixth of its time (experiments/bench/pages.py).
# glibc reads this variable only when a process begins.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Imports and traces make millions of objects that stay. With Python's defaults the collector looks
# through all of them again and again, a quarter of the time that importing TensorFlow takes.
GC_THRESHOLD = (100_000, 50, 100)  # new objects, collections of generation 0, of generation 1


# What JAX's and TensorFlow's C++ log, such as a block of text on a compilation of over two minutes,
# is told by us where it matters. Read when they are imported; JAX sets it to 1, unless it is set.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code. argv: this process's own by default."""
    if argv is None:
        _with_huge_pages()
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
    gc.set_threshold(*GC_THRESHOLD)
    from imgcls_jax.cli import _command  # after the restart, which would repeat the import

    return _command.main(sys.argv[1:] if argv is None else argv)


def _with_huge_pages():
    """Re-executes this process with memory in huge pages, unless $GLIBC_TUNABLES is set."""
    if sys.platform == "linux" and not HUGE_PAGES.keys() & os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | HUGE_PAGES)


if __name__ == "__main__":
    sys.exit(main())
