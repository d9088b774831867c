"""Findings in chest X-rays, multilabel: ChestX-ray14 (arXiv 1705.02315), DenseNet-121 as CheXNet.

imgcls train --config=worked/chest_xray:data_dir=DIR,weights=imagenet1k_v1 --workdir=W
imgcls predict --workdir=W a.png --threshold=0.3

Keys of the variant: data_dir, as for the dataset `chest_xray14`; weights, of densenet121, to start
from, without their head; size, pixels. Model, optimizer and batch are those of arXiv 1711.05225,
which divides the learning rate by ten when the validation loss (here: the training loss) stops
falling. Positives are weighted by negatives / positives of each finding. Validation is the last
tenth of the patients: no patient is on both sides. The field measures the ROC-AUC of each finding:
findings are rare, and accuracy would be high for a model that finds nothing.
"""

from ml_collections import ConfigDict

from imgcls_jax.config import parse_variant


def get_config(variant=""):
    v = parse_variant(variant, data_dir="data/chest_xray14", weights="", size=224)
    c = ConfigDict()
    c.data = dict(name="chest_xray14", data_dir=v["data_dir"], train="train[:90%]",
                  eval="train[90%:]")
    c.transforms = (dict(name="random_resized_crop", size=v["size"], scale=(0.7, 1.0)),
                    dict(name="flip"))
    c.eval_transforms = (dict(name="resize_small", size=v["size"] * 8 // 7),
                         dict(name="center_crop", size=v["size"]))
    c.model = dict(name="densenet121")
    c.init = dict(weights=v["weights"], reset=("head",)) if v["weights"] else None
    c.task = "multilabel"
    c.loss = dict(name="sigmoid", class_weights="auto")
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 16
    c.total = dict(epochs=10)
    c.optimizer = dict(name="adam")
    c.schedule = dict(name="plateau", base=1e-3, every=dict(epochs=1), patience=1)
    c.weight_decay = None
    measures = (dict(name="roc_auc"), dict(name="average_precision"), dict(name="f1"))
    c.evals = dict(val=dict(name="classification", metrics=measures, every=dict(epochs=1)),
                   test=dict(name="classification", metrics=measures, split="test"))
    c.checkpoint = dict(every=dict(epochs=1), keep=2, best="val/roc_auc_macro")
    return c
