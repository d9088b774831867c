"""The config that evaluates published weights in the way they were published."""

from imgcls_jax import config


def make(model: str, weights: str, overrides, *, data: str = "imagenet2012",
         size: int | None = None, resize: int | None = None, interpolation: str | None = None,
         channels: int = 3) -> dict:
    """A complete config of `model` on `data`, with the preprocessing and arguments of `weights`.

    weights: as of pretrained.load.locate. size, resize, interpolation: as of
    pretrained.load.settings. Raises ConfigError for an unknown model.
    """
    from imgcls_jax.models import MODELS
    from imgcls_jax.pretrained import load
    from imgcls_jax.types import ModelSpec

    MODELS.get(model, "--model")
    found = load.settings(weights, ModelSpec(name=model, **MODELS.facts(model)), size=size,
                          resize=resize, interpolation=interpolation)
    pixels = found["eval_transforms"][-1]["size"]
    chosen = config.load(f"finetune:model={model},data={data},size={pixels}").config
    chosen["eval_transforms"] = found["eval_transforms"]
    chosen["model"] |= found["model"]
    chosen["data"] |= {"channels": channels, **found["data"]}
    return config.override(chosen, overrides)
