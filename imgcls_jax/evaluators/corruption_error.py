"""Errors on corrupted images, relative to those of AlexNet."""

import dataclasses

from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts
from imgcls_jax.evaluators.classification import classification
from imgcls_jax.metrics.topk import topk

# Top-1 error of AlexNet on each corruption of ImageNet-C, mean of the five severities, as in the
# code of arXiv 1903.12261 and of those who compare with it.
ALEXNET = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640,
    "defocus_blur": 0.819880, "glass_blur": 0.826268, "motion_blur": 0.785948,
    "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572, "fog": 0.819324,
    "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056,
    "pixelate": 0.717840, "jpeg_compression": 0.606500,
}
SEVERITIES = range(1, 6)


@EVALUATORS.register()
def corruption_error(parts: Parts, *, reference: dict | None = None):
    """Errors on corrupted images, relative to those of AlexNet: ImageNet-C (arXiv 1903.12261).

    (variables) -> "mce", the mean over corruptions of the top-1 error divided by AlexNet's on the
    same corruption, each summed over the five severities (section 4.1; AlexNet has 1.0); "error",
    the mean top-1 error, not divided; "CORRUPTION_error" for each. Its data is
    dict(name="imagenet_c"), or another dataset with splits `CORRUPTION-SEVERITY`. reference:
    corruption -> error of the model to compare with; default: AlexNet's for the benchmark's 15.
    """
    if parts.task.kind != "multiclass":
        raise ConfigError(f"corruption_error needs a multiclass task, not {parts.task.kind}",
                          where="config.evals.NAME.name", fix="leave it out")
    reference = ALEXNET if reference is None else dict(reference)
    if not reference or min(reference.values()) <= 0:
        raise ConfigError(f"reference={reference} is not valid",
                          where="config.evals.NAME.reference",
                          fix="give the error of each corruption, above 0")
    task = dataclasses.replace(parts.task, metrics={"top1": topk("multiclass", k=(1,))})

    def of_split(split: str):
        return classification(dataclasses.replace(
            parts, task=task, batches=lambda: parts.batches(split)))

    first = of_split("")  # one program for all splits

    def evaluate(variables, program=first.program) -> dict:
        found, relative = {}, []
        for corruption, of_reference in reference.items():
            right = [of_split(f"{corruption}-{severity}")(variables, program)["top1"]
                     for severity in SEVERITIES]
            error = 1.0 - sum(right) / len(right)
            found[f"{corruption}_error"] = error
            relative.append(error / of_reference)
        errors = list(found.values())
        return {"mce": sum(relative) / len(relative), "error": sum(errors) / len(errors), **found}

    evaluate.program = first.program
    evaluate.splits = tuple(f"{corruption}-{severity}" for corruption in reference
                            for severity in SEVERITIES)
    return evaluate
