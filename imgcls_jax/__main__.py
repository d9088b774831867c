"""`imgcls VERB ...`, and `python -m imgcls_jax VERB ...`."""

import os
import sys

# Programs on a CPU ask for their temporary memory anew at each step, gigabytes of it, and the
# kernel hands it out page by page: 230,000 times a step of ViT-S, a sixth of its time
# (experiments/bench/pages.py). glibc reads this before the process begins.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code. argv: this process's own by default."""
    if argv is None:
        _with_huge_pages()
    from imgcls_jax.cli import _command  # takes longer than to begin anew

    return _command.main(sys.argv[1:] if argv is None else argv)


def _with_huge_pages():
    """Begins this process anew with memory in huge pages, unless $GLIBC_TUNABLES says otherwise."""
    if sys.platform == "linux" and not HUGE_PAGES.keys() & os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | HUGE_PAGES)


if __name__ == "__main__":
    sys.exit(main())
