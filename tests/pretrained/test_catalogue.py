"""The published weights that are known, against what is known of them from elsewhere."""

import re
import typing

import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.pretrained import catalogue, fetch
from imgcls_jax.transforms._resize import Interpolation

ROWS = {f"{model}/{tag}": weights for model in catalogue.models()
        for tag, weights in catalogue.weights(model).items()}


@pytest.mark.parametrize("name, file, crop, resize, interpolation, top1, top5, params", [
    # The tables of torchvision's documentation.
    ("resnet50/imagenet1k_v1", "resnet50-0676ba61.pth", 224, 256, "bilinear", 76.13, 92.862,
     25_557_032),
    ("resnet50/imagenet1k_v2", "resnet50-11ad3fa6.pth", 224, 232, "bilinear", 80.858, 95.434,
     25_557_032),
    ("efficientnet_b2/imagenet1k_v1", "efficientnet_b2_rwightman-c35c1473.pth", 288, 288,
     "bicubic", 80.608, 95.31, 9_109_994),
    ("vit_l16/imagenet1k_swag_e2e_v1", "vit_l_16_swag-4f3808c9.pth", 512, 512, "bicubic", 88.064,
     98.512, 305_174_504),
    # 224 / 0.95, rounded down, and the evaluation at another size than that of training.
    ("resnet50/a3_in1k", "resnet50_a3_0-59cae1ef.pth", 224, 235, "bicubic", 78.05, None,
     25_557_032),
    ("vit_b32/augreg_in1k_384", "model.safetensors", 384, 384, "bicubic", 78.75, None,
     88_224_232 + (12**2 - 7**2) * 768),
    # keras.io/api/applications, whose counts include 53,120 running statistics.
    ("keras_resnet50/imagenet", "resnet50_weights_tf_dim_ordering_tf_kernels.h5", 224, 256,
     "bilinear", 74.9, 92.1, 25_636_712 - 53_120),
    # tensorflow/tpu, models/official/efficientnet/lite/README.md.
    ("efficientnet_lite1/imagenet1k", "efficientnet-lite1-77cc7160.pth", 240, 272, "bilinear",
     76.7, None, 5_416_680),
    ("tf_efficientnet_b7/keras_imagenet", "efficientnetb7.h5", 600, 632, "bicubic", 84.3, 97.0,
     66_347_960),
])
def test_facts_are_those_of_the_publisher(name, file, crop, resize, interpolation, top1, top5,
                                          params):
    _, _, weights = catalogue.find(name)
    assert weights.file.startswith(("https://", "package:"))
    assert weights.file.endswith(f"/{file}")
    assert (weights.image_size, weights.resize, weights.interpolation) == (crop, resize,
                                                                           interpolation)
    assert (weights.top1, weights.top5, weights.params) == (top1, top5, params)


@pytest.mark.parametrize("name, mean, std", [
    ("resnet18/imagenet1k_v1", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("efficientnet_v2_l/imagenet1k_v1", (0.5,) * 3, (0.5,) * 3),
    ("vit_s16/augreg_in1k", (0.5,) * 3, (0.5,) * 3),
    # ImageNet's, then torchvision's `transform_input`: x * s / 0.5 + (m - 0.5) / 0.5.
    ("googlenet/imagenet1k_v1", (0.5,) * 3, (0.5,) * 3),
    ("inception_v3/imagenet1k_v1", (0.5,) * 3, (0.5,) * 3),
    ("keras_resnet101v2/imagenet", (0.5,) * 3, (0.5,) * 3),
    ("keras_densenet169/imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
])
def test_the_normalisation_is_what_the_net_itself_receives(name, mean, std):
    _, _, weights = catalogue.find(name)
    assert (weights.mean, weights.std) == (mean, std)


def test_lite_takes_levels_minus_127_over_128():
    """tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py."""
    _, _, weights = catalogue.find("efficientnet_lite2/imagenet1k")
    levels = np.arange(256)[:, None]
    np.testing.assert_allclose((levels / 255 - weights.mean) / weights.std,
                               np.tile((levels - 127) / 128, 3), atol=1e-12)


@pytest.mark.parametrize("name", ["vgg16/keras_imagenet", "vgg19/keras_imagenet",
                                  "keras_resnet50/imagenet", "keras_resnet152/imagenet"])
def test_the_mode_of_caffe_is_a_mean_off_the_levels(name):
    """keras/src/applications/imagenet_utils.py, but for the order of the channels."""
    _, _, weights = catalogue.find(name)
    levels = np.arange(256)[:, None]
    found = (levels / 255 - weights.mean) / weights.std
    np.testing.assert_allclose(found, levels - [123.68, 116.779, 103.939], atol=1e-9)


def test_every_family_is_there():
    said = {"alexnet": 1, "vgg": 11, "googlenet": 1, "inception_v3": 1, "resnet": 32,
            "wide_resnet": 4, "resnext": 5, "densenet": 4, "efficientnet_b": 9,
            "efficientnet_v2": 3, "efficientnet_lite": 8, "mobilenet_v2": 2, "mobilenet_v3": 3,
            "convnext": 8, "convnextv2": 18, "regnet_x": 14, "regnet_y": 20, "squeezenet": 2,
            "shufflenet": 4, "seresnet": 5, "seresnext": 3, "swin_": 6, "swin_v2": 6, "maxvit": 1,
            "mnasnet": 5, "tf_efficientnet_b": 18, "tf_efficientnetv2": 3, "mixer": 3, "deit": 4,
            "vit": 32, "keras_resnet": 6, "keras_densenet": 3}
    found = dict.fromkeys(said, 0)
    for name in ROWS:
        found[max((family for family in said if name.startswith(family)), key=len)] += 1
    assert found == said and sum(said.values()) == len(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_can_be_used(name):
    weights = ROWS[name]
    assert re.fullmatch(r"[a-z0-9_]+/[a-z0-9_]+", name)
    assert weights.layout in ("torchvision", "timm", "npz", "keras", "efficientnet_pytorch")
    assert weights.sha256[:8] in weights.file
    assert re.fullmatch(r"([0-9a-f]{64})" if fetch.package(weights) else r"([0-9a-f]{8,10})?",
                        weights.sha256)
    assert weights.sha256 or weights.md5 or weights.file.startswith((
        "https://huggingface.co/timm/", "https://storage.googleapis.com/vit_models/",
        "https://storage.googleapis.com/mixer_models/"))
    assert bool(weights.md5) == (weights.layout == "keras")
    assert re.fullmatch(r"([0-9a-f]{32})?", weights.md5)
    assert weights.resize >= weights.image_size and weights.crop_mode in ("center", "squash")
    assert weights.interpolation in typing.get_args(Interpolation)
    assert len(weights.mean) == len(weights.std) == 3
    assert weights.top1 is None or 50 < weights.top1 < (weights.top5 or 100)
    licences = {"torchvision": {"BSD-3-Clause"}, "timm": {"Apache-2.0", "MIT"},
                "npz": {"Apache-2.0"}, "efficientnet_pytorch": {"Apache-2.0"},
                "keras": {"CC-BY-4.0", "MIT", "BSD-3-Clause", "Apache-2.0"}}
    bound = "swag" in name or "convnextv2" in name
    assert weights.licence in ({"CC-BY-NC-4.0"} if bound else licences[weights.layout])


def test_no_two_weights_share_a_file():
    assert len({weights.file for weights in ROWS.values()}) == len(ROWS)
    assert len({fetch.place(weights) for weights in ROWS.values()}) == len(ROWS)


def test_a_model_without_weights_has_none():
    assert catalogue.weights("resnet20") == {} and "resnet20" not in catalogue.models()


@pytest.mark.parametrize("name, said", [
    ("resnet5/imagenet1k_v1", ("'resnet5'", "'resnet50'")),
    ("resnet50/imagenet1k_v3", ("'imagenet1k_v3'", "'imagenet1k_v2'")),
    ("resnet50", ("resnet50/imagenet1k_v1", "resnet50/a1_in1k")),
])
def test_a_wrong_name_is_answered_with_the_nearest(name, said):
    with pytest.raises(ConfigError) as caught:
        catalogue.find(name, "config.init.weights")
    assert all(word in str(caught.value) for word in (*said, "config.init.weights"))
