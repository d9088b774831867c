"""Records small files of torch.save, for the tests of our reader: python -m experiments.parity.pth

Writes tests/pretrained/files/: the same tensors in the zip archive, in the stream of torch before
1.6, and wrapped as training scripts wrap them. torch 2.13.
"""

import collections
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[2] / "tests" / "pretrained" / "files"


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=draw)
    tensors = collections.OrderedDict(
        plain=torch.randn(2, 3, 1, 2, generator=draw), transposed=base.t(), part=base[1:, 2:],
        half=torch.randn(3, generator=draw).half(),
        bfloat=torch.randn(5, generator=draw).bfloat16(),
        double=torch.randn(2, generator=draw).double(), count=torch.tensor(7),
        flags=torch.tensor([True, False]), empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.randn(2, 2, generator=draw)))
    torch.save(tensors, FOLDER / "archive.pth")
    torch.save(tensors, FOLDER / "stream.pth", _use_new_zipfile_serialization=False)
    wrapped = {"epoch": 3, "arch": "resnet", "lr": 0.1, "optimizer": {"state": {}, "groups": [1]},
               "state_dict": {f"module.{k}": v for k, v in tensors.items()}}
    torch.save(wrapped, FOLDER / "wrapped.pth")
    np.savez_compressed(FOLDER / "expected.npz",
                        **{k: v.detach().float().numpy() for k, v in tensors.items()})
    torch.save({"tensor": base, "model": torch.nn.Linear(2, 2)}, FOLDER / "module.pth")


if __name__ == "__main__":
    main()
