"""A budget around a Tuner of one's own: the model knows nothing of nasib-ray.

Run it, interrupt it with Ctrl-C, run it again: it goes on where it was, and never spends more than the budget.

    python examples/any_trainable.py --budget "1 cpu-minute"
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ray
from ray import tune
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

from nasib_ray import with_budget


class LinearModel(tune.Trainable):  # type: ignore[misc]
    """A linear classifier of handwritten digits; a step is one pass over the data."""

    def setup(self, config: dict[str, Any]) -> None:
        images, labels = load_digits(return_X_y=True)
        self.train_x, self.test_x, self.train_y, self.test_y = train_test_split(images, labels, random_state=0)
        self.model = SGDClassifier(alpha=config["alpha"], learning_rate="constant", eta0=config["rate"], random_state=0)

    def step(self) -> dict[str, float]:
        for _ in range(50):
            self.model.partial_fit(self.train_x, self.train_y, classes=range(10))
        return {"accuracy": float(self.model.score(self.test_x, self.test_y))}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        state = {"coef": self.model.coef_.tolist(), "intercept": self.model.intercept_.tolist(), "t": self.model.t_}
        Path(checkpoint_dir, "model.json").write_text(json.dumps(state))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        state = json.loads(Path(checkpoint_dir, "model.json").read_text())
        self.model.partial_fit(self.train_x[:10], self.train_y[:10], classes=range(10))
        self.model.coef_[:], self.model.intercept_[:] = state["coef"], state["intercept"]
        self.model.t_ = state["t"]


def main() -> None:
    """Tune the classifier under a budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="1 cpu-minute", help="device-time for all trials together")
    parser.add_argument("--storage", default=str(Path("~/nasib_ray_results").expanduser()), help="where results go")
    parser.add_argument("--cpus", type=int, default=2, help="processors to use")
    options = parser.parse_args()

    ray.init(address="local", num_cpus=options.cpus, include_dashboard=False, log_to_driver=False)
    tune_config, run_config = with_budget(
        options.budget,
        tune.TuneConfig(metric="accuracy", mode="max"),
        tune.RunConfig(name="any_trainable", storage_path=options.storage, verbose=0),
        max_t=16,  # reports after which a trial is complete
    )
    space = {"alpha": tune.loguniform(1e-6, 1e-1), "rate": tune.loguniform(1e-5, 1e-1)}
    results = tune.Tuner(LinearModel, param_space=space, tune_config=tune_config, run_config=run_config).fit()

    sweep = tune_config.scheduler.state
    print(f"{sweep.end}: {sweep.end_why}")
    print(f"spent {sweep.ledger.spent:.1f} of {sweep.ledger.budget:.1f} CPU-seconds on {len(sweep.searches)} trials")
    if sweep.incumbent is not None:
        print(f"best accuracy {sweep.incumbent.best_value:.3f} with {sweep.incumbent.config}")
    print(f"results in {results.experiment_path}")


if __name__ == "__main__":
    main()
