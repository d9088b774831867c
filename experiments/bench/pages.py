"""What do huge memory pages give a training step on one CPU core?

python -m experiments.bench.pages [--size=224 --batch=8 --rounds=7] [MODEL ...]

`imgcls` starts with them (imgcls_jax/__main__.py). The processes are those of torch_cpu.py: each
pinned to the same core, and taking turns; what counts is the median over the rounds of the
processor time without over that with huge pages.
"""

import argparse
import statistics
import sys

from experiments.bench import record, torch_cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(torch_cpu.MODELS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    for model in given.models:
        taken = torch_cpu.by_turns({
            name: torch_cpu.start(sys.executable, "ours", f"{model}/train", given.size, given.batch,
                                  huge_pages=name == "huge")
            for name in ("small", "huge")}, given.rounds)
        ratios = [a / b for a, b in zip(*taken.values(), strict=True)]
        row = {"case": f"{model}, {given.batch} x {given.size} px",
               "speed over small pages": statistics.median(ratios), "least": min(ratios),
               "most": max(ratios), "rounds": given.rounds,
               **{f"{name}, s": statistics.median(seconds) for name, seconds in taken.items()}}
        print(row, flush=True)
        record.save("pages", "Memory in huge pages, on one CPU core", [row])


if __name__ == "__main__":
    main()
