"""Training on classes skewed 100 to 1, by what is done about it.

python -m experiments.sweeps.imbalance [--runs=DIR] [--seeds=0,1,2,3,4] [--arms=plain,sampling]

The first ten classes of the drawn scenes, 500 examples of the first and 5 of the last. What is
evaluated on is balanced: there top-1 is the macro recall. Writes imbalance.json and imbalance.md.
"""

from experiments.sweeps.arms import sweep

SKEWED = ["--config=shapes:pretrain,imbalance=100", "--config.data.examples=5000",
          "--config.total.examples=20000", "--config.schedule.warmup.examples=2000"]


def arms(folder, seed):
    return {"plain": SKEWED,
            "sampling": [*SKEWED, "--config.data.sampling={'name': 'class_balanced'}"],
            "weights": [*SKEWED, "--config.loss.class_weights=auto"],
            "focal": [*SKEWED, "--config.loss.name=softmax_focal"],
            "logit_adjusted": [*SKEWED, "--config.loss.name=logit_adjusted"]}


if __name__ == "__main__":
    sweep(__file__, arms, {"top1": "macro recall %"})
