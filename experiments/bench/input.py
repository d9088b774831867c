"""How fast is the input, compared with raw decoding of the same JPEG files?

python -m experiments.bench.input [--rounds=7] [--photos=256]

What `imgcls bench input` measures: processor time per image on one pinned core, in turns with
what libjpeg-turbo alone takes to decode the files. Needs the extra "bench", and no accelerator.
"""

import argparse
import json
import subprocess
import sys

from experiments.bench import record


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--photos", type=int, default=256)
    asked = parser.parse_args()
    # A process of its own: TensorFlow sizes its pools of threads by the core it is pinned to.
    made = subprocess.run([sys.executable, "-m", "imgcls_jax", "bench", "input",
                           f"--rounds={asked.rounds}", f"--photos={asked.photos}"],
                          stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(made.stdout)
    rows = [{"case": "raw decoding", "images_per_second": found["raw"]["images_per_second"],
             "ratio_to_raw": 1.0}]
    for name, case in found["cases"].items():
        ratio = case["ratio_to_raw"]
        rows.append({"case": name, "images_per_second": case["images_per_second"],
                     "ratio_to_raw": ratio["median"], "least": ratio["min"], "most": ratio["max"]})
    for row in rows:
        row |= {"rounds": asked.rounds, "bytes_per_file": found["file_bytes"]}
        print(row)
    record.save("input", "Input and raw decoding of 500 x 375 photos, one core", rows)


if __name__ == "__main__":
    main()
