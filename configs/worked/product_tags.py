"""Tags of products from their photographs, multilabel: Kaggle's "Fashion Product Images".

imgcls train --config=worked/product_tags:data_dir=DIR,weights=imagenet1k_v1 --workdir=W
imgcls predict --workdir=W a.jpg --threshold=0.5

Keys of the variant: data_dir, as for the dataset `fashion_products`; weights, of resnet50, to start
from, without their head; size, pixels. There are some hundred tags, most of few products: the
asymmetric loss (arXiv 2009.14119) gives the many easy negatives less weight; the measure is mean
average precision, as in that paper.
"""

from ml_collections import ConfigDict

from imgcls_jax.config import parse_variant


def get_config(variant=""):
    v = parse_variant(variant, data_dir="data/fashion", weights="", size=224)
    c = ConfigDict()
    c.data = dict(name="fashion_products", data_dir=v["data_dir"], train="train", eval="val")
    c.transforms = (dict(name="random_resized_crop", size=v["size"], scale=(0.5, 1.0)),
                    dict(name="flip"))
    c.eval_transforms = (dict(name="resize_small", size=v["size"] * 8 // 7),
                         dict(name="center_crop", size=v["size"]))
    c.model = dict(name="resnet50", norm_group=32)
    c.init = dict(weights=v["weights"], reset=("head",)) if v["weights"] else None
    c.task = "multilabel"
    c.loss = dict(name="asymmetric")
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 64
    c.total = dict(epochs=10)
    c.optimizer = dict(name="adamw")
    c.schedule = dict(name="one_cycle", base=2e-4)
    c.weight_decay = dict(value=1e-4, on=".*kernel", mode="times_lr")
    c.ema = dict(decay=0.9997, warmup=True)
    measures = (dict(name="average_precision"), dict(name="f1"))
    c.evals = dict(val=dict(name="classification", metrics=measures, every=dict(epochs=1)))
    c.checkpoint = dict(every=dict(epochs=1), keep=2, best="val/average_precision_macro")
    return c
