"""Records the losses of torch, torchvision and timm 1.0.31: value and gradient, in f64.

python -m experiments.parity.losses

Writes tests/losses/reference.npz: logits, targets, and of each case NAME the loss of each example,
NAME_loss f64[B], and the gradient of their sum, NAME_gradient f64[B,K]. Install torch==2.13.0,
torchvision==0.28.0 and timm==1.0.31 first.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from experiments.parity.record import _LIBRARY  # noqa: F401  operators that torchvision declares

import timm.loss  # isort: skip
import torchvision  # isort: skip

OUT = Path(__file__).parents[2] / "tests" / "losses" / "reference.npz"
RNG = np.random.default_rng(0)
B, K = 6, 5
LOGITS = RNG.normal(size=(B, K)) * 4
LABELS = np.array([0, 3, 4, 1, 1, 2])
MULTIHOT = (RNG.random((B, K)) < 0.4).astype(np.float64)
SOFT = RNG.dirichlet(np.ones(K), B)
WEIGHTS = np.array([0.5, 1.0, 2.0, 3.5, 0.25])


def rowwise(loss):
    """A loss of one batch, of each row by itself: what is reduced over a row is."""
    def each(x, *target):
        return torch.stack([loss(x[i:i + 1], *(t[i:i + 1] for t in target)) for i in range(len(x))])

    return each


def cases():
    labels, multihot, soft, weights = map(torch.tensor, (LABELS, MULTIHOT, SOFT, WEIGHTS))
    bce = timm.loss.BinaryCrossEntropy

    def of(loss, *target):
        return lambda x: loss(x, *target)

    yield "softmax", of(torch.nn.CrossEntropyLoss(reduction="none"), labels)
    yield "softmax_soft", of(torch.nn.CrossEntropyLoss(
        weight=weights, label_smoothing=0.1, reduction="none"), soft)
    yield "softmax_weighted", of(torch.nn.CrossEntropyLoss(
        weight=weights, label_smoothing=0.1, reduction="none"), labels)
    yield "bce", of(rowwise(bce(smoothing=0.1, sum_classes=True)), labels)
    yield "bce_mean", of(rowwise(bce(smoothing=0.1, pos_weight=weights)), labels)
    yield "bce_threshold", of(rowwise(bce(smoothing=0.0, target_threshold=0.2)), soft)
    yield "sigmoid", of(lambda x: F.binary_cross_entropy_with_logits(
        x, multihot, reduction="none").sum(-1))
    yield "sigmoid_smooth", of(rowwise(bce(smoothing=0.1, smooth_dense=True, sum_classes=True,
                                           pos_weight=weights)), multihot)
    focal = torchvision.ops.sigmoid_focal_loss
    yield "focal", of(lambda x: focal(x, multihot).sum(-1))
    yield "focal_soft", of(lambda x: focal(x, soft, alpha=-1, gamma=1.5).sum(-1))
    yield "asymmetric_single", of(timm.loss.AsymmetricLossSingleLabel(reduction="none"), labels)

    def asymmetric(**options):
        # Its computation in f32 is the reference's own choice; here both are in f64.
        made = timm.loss.AsymmetricLossMultiLabel(reduction="none", eps=1e-300, **options)
        return lambda x: made(_Wide(x), _Wide(multihot)).sum(-1)

    yield "asymmetric", asymmetric()
    yield "asymmetric_weighted", asymmetric(gamma_neg=2, gamma_pos=0, clip=0, pos_weight=weights)


class _Wide:
    """A tensor that `.float()` leaves as it is."""

    def __init__(self, tensor):
        self.tensor = tensor

    def float(self):
        return self.tensor


def main():
    found = dict(logits=LOGITS, labels=LABELS, multihot=MULTIHOT, soft=SOFT, weights=WEIGHTS)
    for name, loss in cases():
        x = torch.tensor(LOGITS, requires_grad=True)
        value = loss(x)
        value.sum().backward()
        found |= {f"{name}_loss": value.detach().numpy(), f"{name}_gradient": x.grad.numpy()}
    np.savez_compressed(OUT, **found)
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
