"""ViT-S/16, ImageNet-1k, 90 epochs (big_vision recipe): top-1 76.5.

imgcls train --config=imagenet/vit:vit_s16 --workdir=W         # published on TPU v3-8, 6 to 7 h

Recipe: big_vision/configs/vit_s16_i1k.py (arXiv 2205.01580); evaluated at 224 after resizing the
short side to 256 by area. The last percent of the training images is held out as `minival`.
Parameters include the 384-wide layer before the head.
"""

from ml_collections import ConfigDict

CLAIMS = {"vit_s16": dict(params=22_122_472, top1=76.5, tolerance=0.3, image_size=224,
                          source="big_vision README")}


def get_config(variant="vit_s16"):
    CLAIMS[variant]
    c = ConfigDict()
    c.data = dict(name="imagenet2012", train="train[:99%]", eval="validation",
                  mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    c.transforms = (dict(name="random_resized_crop", size=224, scale=(0.05, 1.0),
                         antialias=False),
                    dict(name="flip"),
                    dict(name="randaugment", operations=2, magnitude=10))
    c.eval_transforms = (dict(name="resize_small", size=256, interpolation="area"),
                         dict(name="center_crop", size=224))
    c.device_transforms = (dict(name="mixup", alpha=0.2),)
    c.model = dict(name=variant, pool="gap", positions="sincos2d", representation=True,
                   gelu="tanh", remat="values")
    c.task = "multiclass"
    c.loss = dict(name="softmax", smoothing=0.0)
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 1024
    c.total = dict(epochs=90)
    c.optimizer = dict(name="adamw", b1=0.9, b2=0.999, mu_dtype="bfloat16")
    c.schedule = dict(name="cosine", base=1e-3, warmup=dict(steps=10_000))
    c.weight_decay = dict(value=1e-4, on=".*/kernel", mode="times_schedule")
    c.clip = dict(norm=1.0)
    c.evals = dict(
        minival=dict(name="classification", split="train[99%:]", every=dict(epochs=1)),
        val=dict(name="classification", every=dict(epochs=1)))
    c.checkpoint = dict(every=dict(epochs=1), keep=3, best="minival/top1")
    return c
