"""The training step of this tree beside that of another, in turn, on one machine.

    python tests/benchmarks/trees.py FOLDER [--preset NAME ...] [--rounds N] [--workers N]

FOLDER is a checkout of another version (`git worktree add FOLDER VERSION`). Both train from the same weights on the
same batch; each has a process of its own, and they take turns. On a busy machine the lower quartile says more than the
median: what is in the way only ever makes a step longer.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parents[2]
CONFIGURATIONS = {
    "quick": ("quick", True),
    "blog": ("blog", True),
    "blog --no-attention": ("blog", False),
    "paper": ("paper", True),
}
PAUSE = 0.3  # seconds between two turns, in which threads that still wait for work go to sleep


def serve(tree, label, workers):
    """The life of one tree's process: for each number that it reads it does so many steps, and writes their seconds."""
    sys.path.insert(0, tree)
    from dataclasses import replace

    import minidraw
    from minidraw.draw import Draw
    from minidraw.presets import PRESETS

    try:
        from minidraw.training import Trainer
    except ImportError:  # before 0.2.0
        from minidraw.train import Trainer

    assert Path(minidraw.__file__).parents[1] == Path(tree), minidraw.__file__
    name, attention = CONFIGURATIONS[label]
    config, recipe = PRESETS[name]
    if not attention:
        config = replace(config, read_N=None, write_N=None)
    if hasattr(recipe, "growth"):
        recipe = replace(recipe, growth=())  # a step with all of the model's glimpses
    trainer = Trainer(Draw.initial(config), minidraw.mnist(), replace(recipe, workers=workers))
    batch = trainer.batch(1)
    step = trainer.train_step if hasattr(trainer, "train_step") else trainer.learn
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line) + 1):
            start = time.perf_counter()
            step(*batch)
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds[1:]), flush=True)


def compare(other, label, rounds, workers):
    """The milliseconds of (other, this), arrays of one length, in turn."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    code = f"import sys; sys.path.insert(0, {str(HERE / 'tests' / 'benchmarks')!r}); import trees; "
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", f"{code}trees.serve({str(tree)!r}, {label!r}, {workers})"], **pipes
        )
        for tree in (other, HERE)
    ]
    steps, times = (2 if label == "paper" else 10), ([], [])
    for k in range(rounds):
        for process, mine in list(zip(processes, times, strict=True))[:: 1 if k % 2 else -1]:
            time.sleep(PAUSE)
            print(steps, file=process.stdin, flush=True)
            mine += json.loads(process.stdout.readline())
    for process in processes:
        process.stdin.close()
        process.wait()
    return np.array(times) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a checkout of another version")
    parser.add_argument("--preset", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="turns of each (default: 10)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share a batch (default: 1)")
    args = parser.parse_args()
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "as many as it likes")
    print(f"{args.workers} worker(s), threads of OpenBLAS: {threads}; milliseconds, other -> this, and the ratio")
    for label in args.preset:
        times = compare(args.folder.resolve(), label, args.rounds, args.workers)
        columns = []
        for name, percentile in (("lowest", 0), ("lower quartile", 25), ("median", 50)):
            other, this = np.percentile(times, percentile, axis=1)
            columns.append(f"{name} {other:.1f} -> {this:.1f}, {this / other:.3f}")
        print(f"{label:20} {len(times[0])} steps: " + "; ".join(columns), flush=True)


if __name__ == "__main__":
    main()
