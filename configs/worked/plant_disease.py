"""Diseases of plants by their leaves: PlantVillage (arXiv 1511.08060), fine-tuned from ImageNet.

imgcls train --config=worked/plant_disease:dir=PlantVillage-Dataset/raw/color,weights=imagenet1k_v1

Keys of the variant: dir, with folders CROP___DISEASE/*.JPG as distributed; weights, of resnet50, to
start from, without their head; size, pixels. The photographs show single leaves on a plain
background, several of the same leaf: a random split looks better than it is. Test on photographs
of your own fields: `c.evals.field = dict(name="classification", data=dict(name="folder", ...))`.
"""

from ml_collections import ConfigDict

from imgcls_jax.config import parse_variant


def get_config(variant=""):
    v = parse_variant(variant, dir="data/color", weights="", size=224)
    c = ConfigDict()
    c.data = dict(name="folder", dir=v["dir"], train="train", eval="val")
    c.transforms = (dict(name="random_resized_crop", size=v["size"], scale=(0.4, 1.0)),
                    dict(name="flip"),
                    dict(name="color_jitter", brightness=0.2, contrast=0.2, saturation=0.2))
    c.eval_transforms = (dict(name="resize_small", size=v["size"] * 8 // 7),
                         dict(name="center_crop", size=v["size"]))
    c.model = dict(name="resnet50", norm_group=32)
    c.init = dict(weights=v["weights"], reset=("head",)) if v["weights"] else None
    c.task = "multiclass"
    c.loss = dict(name="softmax", smoothing=0.1)
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 64
    c.total = dict(epochs=10)
    c.optimizer = dict(name="sgd", momentum=0.9, nesterov=True)
    c.schedule = dict(name="cosine", base=0.02, warmup=dict(epochs=1))
    c.weight_decay = dict(value=1e-4, on=".*kernel", mode="coupled")
    measures = (dict(name="topk"), dict(name="balanced_accuracy"), dict(name="confusion"))
    c.evals = dict(val=dict(name="classification", metrics=measures, every=dict(epochs=1)))
    c.checkpoint = dict(every=dict(epochs=1), keep=2, best="val/balanced_accuracy")
    return c
