"""Whether two photographs show one person: Labeled Faces in the Wild (Huang et al. 2007).

imgcls train --config=worked/face_verification:data_dir=DIR --workdir=W

Keys of the variant: data_dir, as for the dataset `lfw`; size, pixels. The model learns to classify
the people of `train`, none of whom is in the 1,000 pairs that are compared: the cosine similarity
of the features before its head says whether two photographs show one person. The field reports
accuracy, ROC, EER and acceptance at a fixed false acceptance. Trained on LFW alone, expect far less
than from models trained on millions of faces: give those as c.data, and these pairs as the data of
the evaluation.
"""

from ml_collections import ConfigDict

from imgcls_jax.config import parse_variant


def get_config(variant=""):
    v = parse_variant(variant, data_dir="data/lfw", size=112)
    c = ConfigDict()
    c.data = dict(name="lfw", data_dir=v["data_dir"], train="train", eval="test")
    c.transforms = (dict(name="random_resized_crop", size=v["size"], scale=(0.4, 0.8),
                         ratio=(0.9, 1.1)),
                    dict(name="flip"),
                    dict(name="color_jitter", brightness=0.3, contrast=0.3, saturation=0.3))
    # A face is the middle of the 250 pixels.
    c.eval_transforms = (dict(name="resize_small", size=v["size"] * 3 // 2),
                         dict(name="center_crop", size=v["size"]))
    c.model = dict(name="resnet18", norm_group=32)
    c.task = "multiclass"
    c.loss = dict(name="softmax", smoothing=0.1)
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 128
    c.total = dict(epochs=60)
    c.optimizer = dict(name="sgd", momentum=0.9, nesterov=True)
    c.schedule = dict(name="cosine", base=0.1, warmup=dict(epochs=5))
    c.weight_decay = dict(value=5e-4, on=".*kernel", mode="coupled")
    c.clip = dict(norm=5.0)
    c.evals = dict(pairs=dict(name="verification", pairs="adjacent", split="pairs_dev_test",
                              every=dict(epochs=5)))
    c.checkpoint = dict(every=dict(epochs=5), keep=2, best="pairs/auc")
    return c
