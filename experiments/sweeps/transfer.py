"""Transfer between the halves of the drawn scenes, at 20 examples a class.

python -m experiments.sweeps.transfer [--runs=DIR] [--seeds=0,1,2,3,4]

Ten classes are learned from 200 examples each; then the other ten, from 20 each, by all weights
(finetune) or the head alone (probe), and from scratch. Of the same 20 examples and the same frozen
features are the few-shot classifier (least squares, by its penalty) and the nearest neighbours
beside the probe. Writes transfer.json and transfer.md.
"""

from experiments.sweeps.arms import sweep

FEW = ["--config.total.examples=8000", "--config.schedule.warmup.examples=800"]


def arms(folder, seed):
    start = f"weights={folder}/pretrain-{seed},per_class=20"
    of_features = {"few": {"name": "few_shot", "shots": (20,), "l2": (32.0, 1024.0), "seeds": 1},
                   "knn": {"name": "knn"}}
    evals = [f"--config.evals.{name}={choice}" for name, choice in of_features.items()]
    return {"pretrain": ["--config=shapes:pretrain"],
            "scratch": ["--config=shapes:scratch,per_class=20", *FEW],
            "probe": [f"--config=shapes:probe,{start}", *FEW, *evals],
            "finetune": [f"--config=shapes:finetune,{start}", *FEW]}


if __name__ == "__main__":
    sweep(__file__, arms, {"top1": "top-1 %", "few/20shot_l2_32": "few-shot, l2 32, %",
                           "few/20shot_l2_1024": "few-shot, l2 1024, %",
                           "knn/top1": "kNN, %"}, unshown=("pretrain",))
