"""The claims of configs/mnist5k.py: a small ResNet, ViT and Mixer on 5,000 images of MNIST.

python -m experiments.sweeps.mnist5k [--runs=DIR] [--seeds=0,1,2,3,4]

Writes mnist5k.json and mnist5k.md.
"""

from experiments.sweeps.arms import sweep


def arms(folder, seed):
    return {variant: [f"--config=mnist5k:{variant}"] for variant in ("resnet", "vit", "mixer")}


if __name__ == "__main__":
    sweep(__file__, arms, {"top1": "top-1 %", "loss": "loss"})
