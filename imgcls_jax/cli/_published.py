"""The config that evaluates published weights in the way they were published."""

from imgcls_jax import config


def make(model: str, weights: str, overrides, *, data: str = "imagenet2012",
         size: int | None = None, resize: int | None = None, interpolation: str | None = None,
         channels: int = 3) -> dict:
    """A complete config of `model` on `data`, with the preprocessing and arguments of `weights`.

    weights: as of pretrained.load.locate. size, resize: pixels of the crop, and of the short side
    before it; they and interpolation replace the published ones. Where nothing is published: the
    model's size, 8/7 of it, and bilinear. Raises ConfigError for an unknown model.
    """
    from imgcls_jax.models import MODELS
    from imgcls_jax.pretrained import load
    from imgcls_jax.types import ModelSpec

    native = MODELS.get(model, "--model") and MODELS.facts(model)["image_size"]
    _, published = load.locate(weights, model)
    pixels = size or (published.image_size if published else native)
    chosen = config.load(f"finetune:model={model},data={data},size={pixels}").config
    chosen["data"]["channels"] = channels
    spec = ModelSpec(name=model, **MODELS.facts(model))
    chosen["model"] |= load.told(weights, spec)["model"]
    if published and not (size or resize or interpolation):
        chosen["eval_transforms"] = load.transforms(published)
    else:
        chosen["eval_transforms"] = (
            {"name": "resize_small", "size": resize or pixels * 8 // 7,
             "interpolation": interpolation or "bilinear", "library": "pillow"},
            {"name": "center_crop", "size": pixels})
    if given := load.normalisation(weights, spec):
        chosen["data"] |= {"mean": given[0], "std": given[1]}
    return config.override(chosen, overrides)
