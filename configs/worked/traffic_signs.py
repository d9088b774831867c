"""Traffic signs: GTSRB (Stallkamp et al. 2012), 43 classes of very different sizes.

imgcls train --config=worked/traffic_signs:data_dir=DIR --workdir=W

Keys of the variant: data_dir, as for the dataset `gtsrb`; size, pixels. The last fifth of the
tracks is for validation: the frames of a track show one sign. Signs are not mirrored (left is not
right), but rotated, shifted and changed in brightness. Rare signs are drawn more often; mean recall
counts every sign the same.
"""

from ml_collections import ConfigDict

from imgcls_jax.config import parse_variant


def get_config(variant=""):
    v = parse_variant(variant, data_dir="data", size=48)
    c = ConfigDict()
    c.data = dict(name="gtsrb", data_dir=v["data_dir"], train="train[:80%]", eval="train[80%:]",
                  sampling=dict(name="class_balanced", power=0.5))
    c.transforms = (dict(name="random_resized_crop", size=v["size"], scale=(0.6, 1.0),
                         ratio=(0.9, 1.1)),
                    dict(name="rotation", degrees=10.0),
                    dict(name="color_jitter", brightness=0.4, contrast=0.4, saturation=0.4))
    c.eval_transforms = (dict(name="resize", size=v["size"]),)
    c.model = dict(name="resnet20", width=32, norm_group=32)
    c.task = "multiclass"
    c.loss = dict(name="softmax", smoothing=0.1)
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 128
    c.total = dict(epochs=20)
    c.optimizer = dict(name="sgd", momentum=0.9, nesterov=True)
    c.schedule = dict(name="cosine", base=0.1, warmup=dict(epochs=1))
    c.weight_decay = dict(value=5e-4, on=".*kernel", mode="coupled")
    measures = (dict(name="topk"), dict(name="balanced_accuracy"), dict(name="confusion"))
    c.evals = dict(val=dict(name="classification", metrics=measures, every=dict(epochs=1)),
                   test=dict(name="classification", metrics=measures, split="test"))
    c.checkpoint = dict(every=dict(epochs=1), keep=2, best="val/balanced_accuracy")
    return c
