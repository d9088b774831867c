"""Any model on any data: a folder of images, or another dataset by path or name.

imgcls train --config=finetune:data=DIR
imgcls train --config=finetune:model=resnet50,data=DIR,size=224
imgcls train --config=finetune:model=resnet18,data=DIR,weights=imagenet1k_v1
imgcls train --config=finetune:model=resnet18,data=rows.csv,task=multilabel

Keys of the variant: model, by default resnet18 (resnet20 for digits); data, a folder or archive of
images (train/val/CLASS/* or CLASS/*), a manifest (.csv, .jsonl), what `imgcls data prepare` wrote,
or the name of a dataset (imgcls list datasets), by default digits; weights, a workdir, file or
published name (imgcls weights list) to start from, without its head; size, pixels, by default 224
(8 for digits); task, multiclass, binary or multilabel. The best checkpoint is chosen by top-1, by
accuracy, or by mean average precision.
"""

from ml_collections import ConfigDict

from imgcls_jax.config import data_at, parse_variant

# task -> loss, metrics (None: those of the task), what the best checkpoint is chosen by
BY_TASK = {
    "multiclass": (dict(name="softmax", smoothing=0.1), None, "val/top1"),
    "binary": (dict(name="sigmoid"), None, "val/accuracy"),
    "multilabel": (dict(name="sigmoid"), (dict(name="decisions"), dict(name="average_precision")),
                   "val/average_precision_macro"),
}


def get_config(variant=""):
    v = parse_variant(variant, model="", data="digits", weights="", size=None, task="multiclass")
    if v["task"] not in BY_TASK:
        raise TypeError(f"task={v['task']!r} is not one of {list(BY_TASK)}")
    loss, metrics, best = BY_TASK[v["task"]]
    digits = v["data"] == "digits"
    size = (8 if digits else 224) if v["size"] is None else v["size"]
    c = ConfigDict()
    c.data = data_at(v["data"]) or dict(name=v["data"], train="train",
                                        eval="test" if digits else "validation")
    c.transforms = (dict(name="random_resized_crop", size=size, scale=(0.5, 1.0)),)
    c.transforms += () if digits else (dict(name="flip"),)
    c.eval_transforms = (dict(name="resize_small", size=size * 8 // 7),
                         dict(name="center_crop", size=size))
    c.model = dict(name=v["model"] or ("resnet20" if digits else "resnet18"))
    c.init = dict(weights=v["weights"], reset=("head",)) if v["weights"] else None
    c.task = v["task"]
    c.loss = loss
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 64
    c.total = dict(epochs=20)
    c.optimizer = dict(name="sgd", momentum=0.9, nesterov=True)
    c.schedule = dict(name="cosine", base=0.01 if v["weights"] else 0.05, per=64,
                      warmup=dict(epochs=1))
    c.weight_decay = dict(value=1e-4, on=".*kernel", mode="coupled")
    c.clip = dict(norm=1.0)
    c.evals = dict(val=dict(name="classification", every=dict(epochs=1)))
    if metrics:
        c.evals.val.metrics = metrics
    c.checkpoint = dict(every=dict(epochs=1), keep=2, best=best)
    c.log = dict(every=dict(steps=20))
    return c
