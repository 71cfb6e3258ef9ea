"""Begins a run with the weights of another: `python tutorial/runs/further.py MODEL RUN [--steps N] [--workers N]`.

MODEL is the folder of a run, or `paper`, the bundled one; RUN is a new folder. All of the model's glimpses are used
from the first step on, the learning rate is held for half of the steps, and Adam begins anew.
`minidraw train --resume RUN` does the steps.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where scenes.py is

from scenes import attempt, whole

from minidraw.checkpoint import load_run
from minidraw.images import mnist
from minidraw.runs import Run
from minidraw.training import Recipe, best_workers


def begin(model, folder, steps, workers=None):
    """Make the run `folder`, at its step 0, with the weights of `model`; None workers: `best_workers`."""
    weights = load_run(model).model
    workers = workers or best_workers(Recipe.batch_size)
    recipe = Recipe(steps=steps, horizon=steps, warm_up=min(500, steps), hold=0.5, floor=0.01, seed=1, workers=workers)
    run = Run.new(folder, weights.config, recipe, mnist())
    for fresh, known in zip(run.trainer.model.arrays().values(), weights.arrays().values(), strict=True):
        fresh[:] = known
    run.save()
    print(f"minidraw train --resume {folder}")


def main(argv=None):
    """Begin one run; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="the folder of a run, or paper")
    parser.add_argument("run", metavar="RUN", help="a new folder")
    parser.add_argument("--steps", type=whole(1, 10**9), default=6_600, metavar="N", help="how many (default: 6600)")
    about = "processes that share a batch (default: one for every core)"
    parser.add_argument("--workers", type=whole(1, 10**9), metavar="N", help=about)
    args = parser.parse_args(argv)
    return attempt("further.py", begin, args.model, args.run, args.steps, args.workers)


if __name__ == "__main__":
    sys.exit(main())
