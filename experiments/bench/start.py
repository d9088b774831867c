"""How long does `imgcls train` take to its first step, cold and warm?

python -m experiments.bench.start [--config=digits] [--rounds=5]

What `imgcls bench start` measures: one start with an empty cache of compiled programs, then starts
with that cache and imports alone, in turns, each a process of its own. Needs no accelerator.
"""

import argparse

from experiments.bench import record
from imgcls_jax.bench import start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="digits")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found = start.measure(["bench", "start", f"--config={asked.config}"], asked.rounds)
    row = {"case": asked.config, "rounds": asked.rounds}
    for key, value in found.items():
        row |= ({f"{key}_{part}_s": seconds for part, seconds in value.items()}
                if isinstance(value, dict) else {key: value})
    record.save("start", "Time to the first step", [row])
    print(row)


if __name__ == "__main__":
    main()
