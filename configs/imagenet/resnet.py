"""ResNet, ImageNet-1k, 90 epochs (torchvision V1 recipe): ResNet-50 top-1 76.130, top-5 92.862.

imgcls train --config=imagenet/resnet:resnet50 --workdir=W     # published on 8 GPUs of 32 images

Recipe: torchvision references/classification/README.md; accuracies: torchvision's weight tables,
one center crop of 224 after resizing the short side to 256, bilinear. There, BatchNorm statistics
are over the 32 images of one GPU, hence norm_group=32; weight decay is on all parameters.
"""

from ml_collections import ConfigDict

_SOURCE = dict(tolerance=0.3, source="torchvision V1 weights", image_size=224)
CLAIMS = {
    "resnet50": dict(params=25_557_032, top1=76.130, top5=92.862, **_SOURCE),
    "resnet18": dict(params=11_689_512, top1=69.758, top5=89.078, **_SOURCE),
    "resnet34": dict(params=21_797_672, top1=73.314, top5=91.420, **_SOURCE),
    "resnet101": dict(params=44_549_160, top1=77.374, top5=93.546, **_SOURCE),
    "resnet152": dict(params=60_192_808, top1=78.312, top5=94.046, **_SOURCE),
}


def get_config(variant="resnet50"):
    CLAIMS[variant]  # a KeyError here lists the variants
    c = ConfigDict()
    c.data = dict(name="imagenet2012", train="train", eval="validation")
    c.transforms = (dict(name="random_resized_crop", size=224), dict(name="flip"))
    c.eval_transforms = (dict(name="resize_small", size=256), dict(name="center_crop", size=224))
    c.model = dict(name=variant, norm_group=32)
    c.task = "multiclass"
    c.loss = dict(name="softmax", smoothing=0.0)
    c.step = dict(name="supervised", accumulate=1)
    c.batch_size = 256
    c.total = dict(epochs=90)
    c.optimizer = dict(name="sgd", momentum=0.9)
    c.schedule = dict(name="step", base=0.1, per=256, factor=0.1,
                      boundaries=(dict(epochs=30), dict(epochs=60)))
    c.weight_decay = dict(value=1e-4, on=".*", mode="coupled")
    c.evals = dict(val=dict(name="classification", every=dict(epochs=1)))
    c.checkpoint = dict(every=dict(epochs=1), keep=3, best="val/top1")
    return c
