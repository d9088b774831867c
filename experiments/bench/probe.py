"""How long does it take from 200 images in folders to a trained classifier?

python -m experiments.bench.probe

The line is `imgcls train --config=finetune:data=DIR,probe=true`, in a process of its own, timed
from its start to its end: once with an empty cache of compiled programs, then with that cache and a
new workdir. The images are squares of 256 pixels, 20 from each of 10 photos of experiments/sweeps/
photos.py, as JPEG files. "load" is the load average of the machine before the line, without it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.bench import record
from experiments.sweeps.photos import patches, photos

CLASSES, EACH, SIDE = 10, 20, 256


def write(folder: Path):
    for place, (name, image) in enumerate(list(photos().items())[:CLASSES]):
        (folder / name).mkdir(parents=True)
        rng = np.random.default_rng(place)
        for i, patch in enumerate(patches(image, (0.0, 1.0), EACH, rng, SIDE)):
            Image.fromarray(patch).save(folder / name / f"{i:02}.jpg", quality=90)


def main():
    rows = []
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "images"
        write(data)
        for n, case in enumerate(("the first time", "again, compiled before")):
            load, workdir, began = os.getloadavg()[0], Path(place) / f"run{n}", time.perf_counter()
            subprocess.run([sys.executable, "-m", "imgcls_jax", "train", f"--cache={place}/cache",
                            f"--config=finetune:data={data},probe=true", f"--workdir={workdir}"],
                           check=True)
            seconds = round(time.perf_counter() - began, 1)
            found = json.loads((workdir / "results.json").read_text())["eval"]["val"]
            rows.append({"case": f"{CLASSES * EACH} images, {case}", "seconds": seconds,
                         "load": round(load, 1), "top-1 of those held out": found["top1"]})
            print(rows[-1], flush=True)
    record.save("probe", "From 200 images to a classifier, seconds", rows)


if __name__ == "__main__":
    main()
