"""Drawn scenes of 64 x 64 pixels, 20 classes of shape and texture: top-1 88 after ten epochs.

imgcls train --config=shapes                               # all 20 classes
imgcls train --config=shapes:pretrain --workdir=W          # ten of them
imgcls train --config=shapes:finetune,weights=W            # the other ten, from these weights
imgcls train --config=shapes:probe,weights=W,per_class=20  # the head alone, on few examples

Keys of the variant: what, `all`, `pretrain` (classes 0 to 9), or on classes 10 to 19 `scratch`,
`finetune` and `probe`; weights, what the last two start from; per_class, training examples of each
class, 0 for all; imbalance, ratio of the largest to the smallest class, such as 100.

A probe trains the head alone: all else is frozen, the running statistics of BatchNorm included. The
claim of `pretrain` is the mean of five seeds, that of `all` is one run, seed 0.
"""

from ml_collections import ConfigDict

from imgcls_jax.config import parse_variant

CLAIMS = {
    "all": dict(params=704_676, image_size=64, top1=88.2, tolerance=3.0, source="seed 0"),
    "pretrain": dict(params=703_386, image_size=64, top1=93.6, tolerance=3.0,
                     source="experiments/parity/torch_training.json"),
}
PARTS = {"all": range(20), "pretrain": range(10), "scratch": range(10, 20),
         "finetune": range(10, 20), "probe": range(10, 20)}


def get_config(variant=""):
    v = parse_variant(variant, what="all", weights="", per_class=0, imbalance=1)
    transfers = v["what"] in ("finetune", "probe")
    if transfers != bool(v["weights"]):
        raise TypeError("finetune and probe need weights=WORKDIR; the others take none")
    c = ConfigDict()
    c.data = dict(name="shapes", examples=200 * len(PARTS[v["what"]]), held_out=2000,
                  classes=tuple(PARTS[v["what"]]), imbalance=v["imbalance"], train="train",
                  eval="validation", mean=(0.45, 0.45, 0.45), std=(0.27, 0.27, 0.27))
    if v["per_class"]:
        c.data.per_class = v["per_class"]
    c.transforms = (dict(name="pad_crop", padding=6), dict(name="flip"))
    c.eval_transforms = ()
    c.model = dict(name="resnet18", width=16, norm_group=None)
    c.init = dict(weights=v["weights"], reset=("head",)) if v["weights"] else None
    c.task = "multiclass"
    c.loss = dict(name="softmax", smoothing=0.0)
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 32
    c.total = dict(examples=40_000)
    c.optimizer = dict(name="sgd", momentum=0.9, nesterov=True)
    c.schedule = dict(name="cosine", base=0.01 if v["what"] == "finetune" else 0.05,
                      warmup=dict(examples=4000))
    c.weight_decay = dict(value=5e-4, on=".*kernel", mode="coupled")
    c.freeze = (r"(?!head/).*",) if v["what"] == "probe" else ()
    c.evals = dict(val=dict(name="classification", every=dict(examples=10_000)))
    c.checkpoint = dict(every=dict(examples=10_000), keep=1)
    c.log = dict(every=dict(examples=2000))
    return c
