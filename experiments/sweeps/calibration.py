"""Accuracy and calibration on the drawn scenes: plain, SAM, a moving average, distillation.

python -m experiments.sweeps.calibration [--runs=DIR] [--seeds=0,1,2,3,4] [--arms=plain,ema]

50 training examples a class, forty passes over them: of all 200, in ten passes, a network comes out
calibrated as it is. The teacher of an arm is the plain run of its seed. ECE is of one half of the
validation split, the temperature is fitted on the other. Writes calibration.json and .md.
"""

from experiments.sweeps.arms import sweep

PLAIN = ["--config=shapes:pretrain,per_class=50", "--config.total.examples=20000",
         "--config.evals.cal={'name': 'temperature'}"]


def arms(folder, seed):
    distill = f"{{'name': 'distill', 'teacher': '{folder}/plain-{seed}'}}"
    return {"plain": PLAIN,
            "ema": [*PLAIN, "--config.ema={'decay': 0.99, 'warmup': True}"],
            "sam": [*PLAIN, "--config.step={'name': 'sam', 'rho': 0.05}"],
            "distill": [*PLAIN, f"--config.step={distill}"]}


if __name__ == "__main__":
    sweep(__file__, arms, {
        "top1": "top-1 %", "loss": "loss, nats", "cal/ece": "ECE %",
        "cal/ece_scaled": "ECE behind the temperature %", "cal/temperature": "temperature"})
