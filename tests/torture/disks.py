"""A disk that is full at one of the writes: one line, status 1, and what was saved before is still there."""

import random
import resource
from pathlib import Path

from torture.common import call, left_behind, resume, state, train


def full_disks(folder, images, count, seed=0):
    """Train with a limit on the size of a file, so that each kind of write fails in its turn (POSIX)."""
    rng, wrong, folder = random.Random(seed), [], Path(folder)
    call(train(images, folder / "enough"))
    want = state(folder / "enough")
    size = (folder / "enough" / "checkpoint.npz").stat().st_size
    for number in range(count):
        limit, run, workers = rng.randrange(size + 20_000), folder / f"full-{number}", rng.choice((1, 2))

        def small(limit=limit):
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write that is too long fails like one on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        saved = rng.random() < 0.5
        if saved:  # a run that stopped half-way, and goes on on a full disk
            call(train(images, run, steps=20))
            half = state(run)
            status, _, err = call([*resume(run), "--steps", "40"], preexec_fn=small)
        else:
            status, _, err = call(train(images, run, workers=workers), preexec_fn=small)
        last = err.strip().splitlines()[-1] if err.strip() else ""
        if "Traceback" in err or status not in (0, 1) or (status == 1 and not last.startswith("minidraw: ")):
            wrong.append(f"limit {limit}: status {status}, {err[-300:]}")
        if saved and status != 0:
            lines = state(run)[1]
            if lines[: len(half[1])] != half[1]:
                wrong.append(f"limit {limit}: what was saved is another")
            if call([*resume(run), "--steps", "40"])[0] != 0 or left_behind(run):
                wrong.append(f"limit {limit}: it did not go on afterwards; {left_behind(run)}")
        if not saved and status == 0 and workers == 1 and state(run) != want:
            wrong.append(f"limit {limit}: another result")
    return count, wrong
