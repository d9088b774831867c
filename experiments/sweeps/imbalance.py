"""Training on classes skewed 100 to 1, by what is done about it.

python -m experiments.sweeps.imbalance [--runs=DIR] [--seeds=0,1,2,3,4] [--arms=plain,sampling]

The first ten classes of the drawn scenes, 500 examples of the first and 5 of the last. What is
evaluated on is balanced: there top-1 is the macro recall. Each rule of weights is trained at a
third, once and three times the config's learning rate, because weights of 0.1 to 10 also change how
large the steps are. Writes imbalance.json and imbalance.md.
"""

from experiments.sweeps.arms import sweep

SKEWED = ["--config=shapes:pretrain,imbalance=100", "--config.data.examples=5000",
          "--config.total.examples=20000", "--config.schedule.warmup.examples=2000"]
RATE = 0.05  # of the config
RATES = {"": 1, ", rate / 3": 1 / 3, ", rate x 3": 3}
WEIGHTS = {
    "plain": "None", "weights": "{'weights': 'balanced', 'mean': 'examples'}",
    "weights, mean over them": "{'weights': 'balanced', 'mean': 'weights'}",
    "weights up to 10, mean over them": "{'weights': 'balanced', 'cap': 10.0, 'mean': 'weights'}",
    "effective numbers, mean over weights": "{'weights': 'effective', 'mean': 'weights'}"}


def arms(folder, seed):
    rules = {f"{name}{at}": [*SKEWED, f"--config.loss.class_weights={rule}",
                             f"--config.schedule.base={RATE * factor:.4g}"]
             for name, rule in WEIGHTS.items() for at, factor in RATES.items()}
    return rules | {"sampling": [*SKEWED, "--config.data.sampling={'name': 'class_balanced'}"],
                    "focal": [*SKEWED, "--config.loss.name=softmax_focal"],
                    "logit_adjusted": [*SKEWED, "--config.loss.name=logit_adjusted"]}


if __name__ == "__main__":
    sweep(__file__, arms, {"top1": "macro recall %"})
