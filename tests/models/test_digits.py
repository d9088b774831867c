"""Every family learns: a small member of each reads handwritten digits after a few epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from imgcls_jax import init, tasks
from imgcls_jax.losses.softmax import softmax
from imgcls_jax.models._efficientnet import EfficientNet, Stage
from imgcls_jax.models.alexnet import RESPONSE, AlexNet
from imgcls_jax.models.bit import BiT
from imgcls_jax.models.convnext import ConvNeXt
from imgcls_jax.models.densenet import DenseNet
from imgcls_jax.models.googlenet import GoogLeNet
from imgcls_jax.models.inception import InceptionV3
from imgcls_jax.models.keras_resnet import KerasResNet
from imgcls_jax.models.maxvit import MaxViT
from imgcls_jax.models.mixer import Mixer
from imgcls_jax.models.mnasnet import MNASNet
from imgcls_jax.models.mobilenet_v2 import MobileNetV2
from imgcls_jax.models.mobilenet_v3 import SMALL, MobileNetV3
from imgcls_jax.models.regnet import RegNet
from imgcls_jax.models.resnet import ResNet, resnet20
from imgcls_jax.models.shufflenet_v2 import ShuffleNetV2
from imgcls_jax.models.squeezenet import SqueezeNet
from imgcls_jax.models.swin import Swin
from imgcls_jax.models.vgg import VGG
from imgcls_jax.models.vit import ViT
from imgcls_jax.steps import Parts
from imgcls_jax.steps.supervised import supervised
from imgcls_jax.types import TrainState

TASK = tasks.make("multiclass", tuple(map(str, range(10))), softmax, {})
BATCH, WARMUP = 32, 20
MBCONV = (Stage(1, 3, 1, 16, 1), Stage(4, 3, 2, 24, 2), Stage(4, 5, 2, 40, 1))
FUSED = (Stage(1, 3, 1, 16, 1, True), Stage(4, 3, 2, 24, 2, True), Stage(4, 3, 2, 40, 1))
# family: (model of 10 classes, pixels), then epochs, then a factor of the pixels, of -1 to 1: the
# first AlexNet starts from values made for its own widths and pixels of 0 to 255 less their mean.
FAMILIES = {
    "alexnet": (lambda: AlexNet(10, (32, 64, 96, 64, 64), hidden=256), 64),
    "alexnet_caffe": (lambda: AlexNet(10, (96, 256, 384, 384, 256), True, RESPONSE["caffe"],
                                      hidden=512, dropout=0.1), 75, 12, 64.0),
    "vgg": (lambda: VGG(10, (1, 1, 1, 1, 1), width=16, hidden=128), 32),
    "vgg_bn": (lambda: VGG(10, (1, 1, 1, 1, 1), True, width=16, hidden=128), 32),
    "googlenet": (lambda: GoogLeNet(10, 3, True, True, blocks=("3a", "3b", "4a"), divide=4), 48),
    "googlenet_5x5": (lambda: GoogLeNet(10, 5, True, blocks=("3a", "3b", "4a"), divide=4), 48),
    "inception": (lambda: InceptionV3(10, aux=False, divide=8), 75, 14),
    "resnet": (lambda: resnet20(10), 8),
    "resnet_bottleneck": (lambda: ResNet(10, (1, 1, 1, 1), bottleneck=True, width=16), 32),
    "resnext": (lambda: ResNet(10, (1, 1, 1, 1), bottleneck=True, inner=2, groups=8, width=16),
                32),
    "regnet": (lambda: RegNet(10, ((1, 16, 8), (1, 32, 8), (1, 64, 8)), gated=True), 32),
    "shufflenet": (lambda: ShuffleNetV2(10, (48, 96), 256, (2, 2)), 32),
    "seresnet": (lambda: ResNet(10, (1, 1, 1, 1), True, 16, "deep", "average", gated=True), 32),
    "squeezenet": (lambda: SqueezeNet(10, (32, 3), (4,), ((16, 32),) * 4, 0.1), 32, 30),
    "bit": (lambda: BiT(10, (1, 1, 1, 1), 32), 32),
    "densenet": (lambda: DenseNet(10, (3, 3, 3), growth=12, width=24), 32),
    "efficientnet": (lambda: EfficientNet(10, MBCONV, 16, 128), 32),
    "tf_efficientnet": (lambda: EfficientNet(10, MBCONV, 16, 128, form="tensorflow"), 32),
    "efficientnet_v2": (lambda: EfficientNet(10, FUSED, 16, 128), 32),
    "mobilenet_v2": (lambda: MobileNetV2(10, ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2))), 32),
    "mobilenet_v3": (lambda: MobileNetV3(10, SMALL[:3], 128, form="timm"), 32),
    "keras_resnet": (lambda: KerasResNet(10, (1, 1, 1, 1), width=16), 32),
    "keras_resnet_v2": (lambda: KerasResNet(10, (1, 1, 1, 1), 2, width=16), 32),
    "vit": (lambda: ViT(10, 4, 64, 4, 4), 16, 25),
    "deit": (lambda: ViT(10, 4, 64, 4, 4, distilled=True, kernels="normal"), 16, 25),
    "deit3": (lambda: ViT(10, 4, 64, 4, 4, layer_scale=1e-4, token_position=False,
                          kernels="normal"), 16, 25),
    "convnext": (lambda: ConvNeXt(10, (1, 1, 2, 1), (24, 48, 96, 192)), 32),
    "swin": (lambda: Swin(10, 32, (2, 2), (2, 4), 4), 32, 25),
    "swin_v2": (lambda: Swin(10, 32, (2, 2), (2, 4), 4, 2), 32, 25),
    "maxvit": (lambda: MaxViT(10, 16, (1, 1), (32, 64), 2), 16, 25),
    "mnasnet": (lambda: MNASNet(10, 0.5, ((1, 16, 3, 1, 1), (3, 24, 3, 1, 2), (6, 40, 5, 2, 2)),
                                momentum=0.9), 32),
    "convnextv2": (lambda: ConvNeXt(10, (1, 1, 2, 1), (24, 48, 96, 192), None, grn=True), 32),
    "mixer": (lambda: Mixer(10, 4, 64, 4, 32, 256), 16),
}


def images_and_labels(size: int):
    images, labels = load_digits(return_X_y=True)
    images = jax.image.resize(images.reshape(-1, 8, 8, 1).astype(np.float32),
                              (len(images), size, size, 1), "linear")
    test = np.arange(len(labels)) % 5 == 0
    return np.asarray(images) / 8 - 1, labels, np.flatnonzero(~test), np.flatnonzero(test)


def top1(module, size: int, epochs: int = 10, scale: float = 1.0) -> float:
    """On every fifth image, after some epochs on the others."""
    images, labels, train, test = images_and_labels(size)
    variables = init.initialise(module, (1, size, size, 1), 0)
    params, state = variables.pop("params"), variables
    steps = epochs * (len(train) // BATCH)
    rate = optax.warmup_cosine_decay_schedule(0, 1.5e-3, WARMUP, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.02))
    step = jax.jit(supervised(Parts(
        apply=module.apply, task=TASK, optimizer=optimizer, ema=None, seed=0,
        prepare=lambda key, images, targets: (scale * images, targets))),
        donate_argnums=0)
    state = TrainState(jnp.int32(0), params, state, optimizer.init(params), None)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for chosen in rng.permutation(train)[:len(train) // BATCH * BATCH].reshape(-1, BATCH):
            state, _ = step(state, {"image": images[chosen], "label": labels[chosen]})
    logits = jax.jit(module.apply)({"params": state.params, **state.model_state},
                                     scale * images[test])
    return float((np.asarray(logits).argmax(-1) == labels[test]).mean())


@pytest.mark.nightly(rotating=True)
@pytest.mark.usefixtures("optimized")  # thousands of steps
@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_member_learns_digits(family):
    build, *arguments = FAMILIES[family]
    found = top1(build(), *arguments)
    assert found >= 0.95, found
