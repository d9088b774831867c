"""Records what the augmentations of torchvision 0.28 and timm 1.0.31 make of three small images,
with the numbers that they drew.

python -m experiments.parity.augmentations

Writes tests/transforms/augmentations/torchvision.npz and timm.npz: the images; the tables of the
policies; and cases, each a dict of what was drawn, with the result at the same place of the array
`results`. Install torch==2.13.0, torchvision==0.28.0, timm==1.0.31 and pillow first.
"""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from experiments.parity import pictures
from experiments.parity.record import _LIBRARY  # noqa: F401  operators that torchvision declares

import timm.data.auto_augment as timm  # isort: skip
import torchvision.transforms as tv  # isort: skip
from torchvision.transforms import autoaugment, functional  # isort: skip

FOLDER = Path(__file__).parents[2] / "tests" / "transforms" / "augmentations"
FILL = (124, 116, 104)
NEAREST, BILINEAR = functional.InterpolationMode.NEAREST, functional.InterpolationMode.BILINEAR


def images() -> list[np.ndarray]:
    """In color, of one channel, and gray in three."""
    color = pictures.scene(17, 22, 1)
    gray = pictures.scene(21, 15, 2)[..., :1]
    return [color, gray, np.repeat(pictures.scene(9, 13, 3)[..., :1], 3, -1)]


class Record:
    """Cases with their results; `save` writes them."""

    def __init__(self, name: str):
        self.name, self.cases, self.results, self.tables = name, [], [], {}
        self.images = images()

    def picture(self, number: int) -> Image.Image:
        return Image.fromarray(self.images[number].squeeze())

    def add(self, result, **drawn):
        self.cases.append(drawn)
        self.results.append(np.asarray(result).ravel())

    def save(self):
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{self.name}.npz"
        np.savez_compressed(
            path, results=np.concatenate(self.results), cases=json.dumps(self.cases),
            tables=json.dumps(self.tables),
            **{f"image{number}": image for number, image in enumerate(self.images)})
        print(path, len(self.cases), "cases,", path.stat().st_size // 1024, "KiB")


# ---- torchvision ------------------------------------------------------------------------------


def spaces(size) -> dict:
    """Policy -> (number of bins, operation -> (magnitudes, signed))."""
    return {"randaugment": (31, autoaugment.RandAugment()._augmentation_space(31, size)),
            "trivial": (31, autoaugment.TrivialAugmentWide()._augmentation_space(31)),
            "auto": (10, autoaugment.AutoAugment()._augmentation_space(10, size)),
            "augmix": (10, autoaugment.AugMix()._augmentation_space(10, size))}


def record_torchvision():
    record = Record("torchvision")
    record.tables = {
        "names": {policy: list(space) for policy, (_, space) in spaces((9, 9)).items()},
        "signed": [name for name, (_, signed) in spaces((9, 9))["randaugment"][1].items()
                   if signed],
        "policies": {name: autoaugment.AutoAugment(
            autoaugment.AutoAugmentPolicy(name)).policies for name in (
                "imagenet", "cifar10", "svhn")}}
    apply = autoaugment._apply_op
    for number, image in enumerate(record.images):
        picture = record.picture(number)
        for policy, (bins, space) in spaces(image.shape[:2]).items():
            for name, (magnitudes, signed) in space.items():
                plain = not magnitudes.ndim
                chosen = [0] if plain else sorted({1 + number, bins // 2, bins - 1})
                for place, sign in itertools.product(chosen, (1, -1) if signed else (1,)):
                    value = sign * float(magnitudes if plain else magnitudes[place])
                    if policy == "augmix" and name == "Posterize" and value < 1:
                        continue  # Pillow refuses to keep no bit
                    how = BILINEAR if policy == "augmix" else NEAREST
                    fill = None if number or policy != "auto" else FILL
                    record.add(apply(picture, name, value, how, fill), kind=policy, image=number,
                               name=name, number=place, sign=sign, magnitude=value,
                               interpolation=how.value, fill=0 if fill is None else fill)
    record_auto_augment(record)
    record_mixtures(record)
    record_jitter(record)
    for size, sigma in itertools.product((3, 9, 13), (0.1, 0.7, 2.0)):
        for number in (0, 1):
            blurred = functional.gaussian_blur(record.picture(number), [size] * 2, [sigma] * 2)
            record.add(blurred, kind="blur", image=number, size=size, sigma=sigma)
    record.save()


def record_auto_augment(record):
    """Every sub-policy with both operations, signs drawn."""
    torch.manual_seed(0)
    for policy in ("imagenet", "cifar10", "svhn"):
        augment = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy(policy))
        for line in range(25):
            signs = torch.randint(2, (2,))
            augment.get_params = lambda count, line=line, signs=signs: (
                line, torch.zeros(2), signs)
            record.add(augment(record.picture(0)), kind="auto_augment", image=0, policy=policy,
                       line=line, signs=[2 * int(sign) - 1 for sign in signs])


def record_mixtures(record):
    """AugMix, its operations done by Pillow."""
    apply, log = autoaugment._apply_op, []

    def by_pillow(batch, name, magnitude, **how):
        log.append((name, magnitude))
        made = apply(functional.to_pil_image(batch[0]), name, magnitude, **how)
        return functional.pil_to_tensor(made)[None]

    for seed in range(6):
        torch.manual_seed(seed)
        weights = [torch.distributions.Dirichlet(torch.ones(count)).sample()[None]
                   for count in (2, 3)]
        augment = autoaugment.AugMix(severity=7, chain_depth=2)
        drawn = iter(weights)
        augment._sample_dirichlet = lambda parameters, drawn=drawn: next(drawn)
        log.clear()
        autoaugment._apply_op = by_pillow
        mixed = augment(record.picture(seed % 2))
        autoaugment._apply_op = apply
        record.add(mixed, kind="augmix_whole", image=seed % 2, operations=list(log),
                   share=float(weights[0][0, 0]), weights=weights[1][0].tolist())


def record_jitter(record):
    for seed in range(12):
        torch.manual_seed(seed)
        jitter = tv.ColorJitter(0.5, 0.4, 0.6, 0.3)
        drawn = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        jitter.get_params = lambda *_, drawn=drawn: drawn
        record.add(jitter(record.picture(seed % 3)), kind="jitter", image=seed % 3,
                   order=drawn[0].tolist(), factors=drawn[1:])


# ---- timm -------------------------------------------------------------------------------------


class Drawn:
    """What timm's operations draw from `random`, in the order in which they ask."""

    def __init__(self):
        self.rows = []

    def uniform(self, low, high):  # first of each operation, for the magnitude
        self.magnitude, self.negative, self.interpolation = self.rows.pop(0)
        return self.magnitude

    def random(self):
        return 0.9 if self.negative else 0.1

    def choice(self, kinds):
        return kinds[self.interpolation]


def record_timm():
    record = Record("timm")
    drawn = timm.random = Drawn()
    kept = {"magnitude_std": float("inf"), "magnitude_max": None}
    lists = {"plain": timm._RAND_TRANSFORMS, "increasing": timm._RAND_INCREASING_TRANSFORMS,
             "augmix": timm._AUGMIX_TRANSFORMS}
    names = sorted({*itertools.chain(*lists.values()), "PosterizeOriginal"})
    record.tables = {"names": lists, "policies": {
        name: [[(op.name, op.prob, op.magnitude) for op in line]
               for line in timm.auto_augment_policy(name)]
        for name in ("original", "originalr", "v0", "v0r")}}

    def operation(name, number):
        # Without a fill of three levels an image of one channel raises there.
        fill = FILL if record.images[number].shape[-1] == 3 else 118
        return timm.AugmentOp(name, 1.0, 10, {**kept, "img_mean": fill})

    geometric = ("Rotate", "Shear", "Translate")
    for number, name in itertools.product(range(3), names):
        moves = name.startswith(geometric)
        signed = moves or (name.endswith("Increasing") and not name.startswith(("Post", "Sol")))
        for magnitude in (0.0, 2.6, 5.0 + number, 10.0):
            for negative, kind in itertools.product((0, 1) if signed else (0,),
                                                    (0, 1) if moves else (0,)):
                drawn.rows = [(magnitude, negative, kind)]
                try:
                    result = operation(name, number)(record.picture(number))
                except ValueError:  # Pillow refuses to keep no bit
                    continue
                record.add(result, kind="operation", image=number, name=name,
                           rows=[drawn_row(magnitude, negative, kind)])
    generator = np.random.Generator(np.random.Philox(0))
    for _ in range(12):
        chosen = [lists["increasing"][place] for place in (15 * generator.random(3)).astype(int)]
        rows = [(float(m * 9 + 0.5), int(s > 0.5), int(i > 0.5)) for m, s, i in generator.random(
            (3, 3))]
        drawn.rows, picture = list(rows), record.picture(0)
        for name in chosen:
            picture = operation(name, 0)(picture)
        record.add(picture, kind="chain", image=0, names=chosen,
                   rows=[drawn_row(*row) for row in rows])
    record_timm_mixtures(record, drawn, operation, generator)
    record.save()


def record_timm_mixtures(record, drawn, operation, generator):
    log, call = [], timm.AugmentOp.__call__

    def logged(self, image):
        log.append(self.name)
        return call(self, image)

    timm.AugmentOp.__call__ = logged
    for seed in range(6):
        np.random.seed(seed)
        weights, share = generator.random(3).astype(np.float32), np.float32(generator.random())
        weights /= weights.sum()
        rows = [(float(m * 5), int(s > 0.5), int(i > 0.5)) for m, s, i in generator.random((6, 3))]
        drawn.rows = list(rows)
        log.clear()
        augment = timm.AugMixAugment([operation(name, 0) for name in timm._AUGMIX_TRANSFORMS],
                                     depth=2)
        mixed = augment._apply_basic(record.picture(0), weights, share)
        record.add(mixed, kind="augmix_whole", image=0, names=list(log), weights=weights.tolist(),
                   share=float(share), rows=[drawn_row(*row) for row in rows])


def drawn_row(magnitude: float, negative: int, interpolation: int) -> list[float]:
    return [magnitude, -1.0 if negative else 1.0, 0.25 + 0.5 * interpolation]


if __name__ == "__main__":
    random.seed(0)
    record_torchvision()
    record_timm()
