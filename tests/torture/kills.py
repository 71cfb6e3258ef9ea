"""Kills at random moments: a run goes on bit for bit, and nothing stays behind."""

import random
import signal
import subprocess
import time
from pathlib import Path

from torture.common import ENVIRONMENT, call, children, left_behind, resume, state, train


def kills(folder, images, count, seed=0, workers_tried=(1, 2)):
    """Kill training `count` times in all, with one process and with two; each run must end as if nothing had been."""
    rng, done, wrong, folder = random.Random(seed), 0, [], Path(folder)
    whole = {}
    for workers in workers_tried:
        status, _, err = call(train(images, folder / f"whole-{workers}", workers=workers))
        assert status == 0, err
        whole[workers] = state(folder / f"whole-{workers}")
    number = 0
    while done < count:
        number += 1
        workers, run = rng.choice(workers_tried), folder / f"killed-{number}"
        while True:
            saved = (run / "checkpoint.npz").exists()
            command = resume(run) if saved else train(images, run, workers=workers)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
            last = done >= count or rng.random() < 0.2
            if not last:
                before = time.monotonic() + rng.random() * 3
                while time.monotonic() < before and process.poll() is None:
                    time.sleep(0.005)
                if rng.random() < 0.5:  # aimed: while a file is being written
                    until = time.monotonic() + 2
                    while time.monotonic() < until and process.poll() is None and not left_behind(run):
                        time.sleep(0.0005)
                process.send_signal(signal.SIGKILL)
            err = process.communicate()[1].decode(errors="replace")
            done += process.returncode == -signal.SIGKILL
            if process.returncode not in (0, -signal.SIGKILL) or "Traceback" in err:
                wrong.append(f"run {number}: status {process.returncode}, {err[-300:]}")
                break
            if process.returncode == 0:
                break
        if (run / "metrics.jsonl").exists() and state(run) != whole[workers]:
            wrong.append(f"run {number} with {workers} workers: another result")
        if left_behind(run):
            wrong.append(f"run {number}: {left_behind(run)} left behind")
    time.sleep(1)
    if children():
        wrong.append(f"worker processes left: {children()}")
    return done, wrong


def stops(folder, images, count, seed=0):
    """Signals that ask politely, at random moments after the first step: all is saved, one line says how to go on."""
    rng, wrong, folder = random.Random(seed), [], Path(folder)
    for number in range(count):
        name, run = rng.choice(("SIGINT", "SIGTERM", "SIGHUP")), folder / f"stopped-{number}"
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, "text": True}
        process = subprocess.Popen(train(images, run, steps=100_000, workers=rng.choice((1, 2))), **options)
        until = time.monotonic() + 300
        while time.monotonic() < until and not ((run / "metrics.jsonl").exists()):
            time.sleep(0.005)
        time.sleep(rng.random())
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=300)
        lines = (run / "metrics.jsonl").read_text().count("\n")
        if process.returncode != 128 + getattr(signal, name) or "Traceback" in err or "--resume" not in out:
            wrong.append(f"{name}: status {process.returncode}, {out[-200:]} {err[-300:]}")
        elif f"after {lines} steps" not in out.replace("\n", " "):
            wrong.append(f"{name}: {lines} lines of metrics, and it says {out[-200:]}")
    time.sleep(1)
    if children():
        wrong.append(f"worker processes left: {children()}")
    return count, wrong


def pairs(folder, images, count, seed=0):
    """A second process on a run that is being trained: it gets one line, and the first does not notice."""
    rng, wrong, folder = random.Random(seed), [], Path(folder)
    call(train(images, folder / "alone"))
    want = state(folder / "alone")
    for number in range(count):
        run = folder / f"pair-{number}"
        first = subprocess.Popen(train(images, run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
        while not (run / "metrics.jsonl").exists() and first.poll() is None:
            time.sleep(0.005)
        status, _, err = call(resume(run) if rng.random() < 0.7 else train(images, run))
        _, first_err = first.communicate()
        finished = status == 0 and "Traceback" not in err  # the first had ended already
        if not finished and (status != 1 or err.count("\n") != 1):
            wrong.append(f"pair {number}: the second has status {status}, {err[-300:]}")
        if first.returncode != 0 or state(run) != want or left_behind(run):
            wrong.append(f"pair {number}: the first was disturbed: {first_err.decode()[-300:]} {left_behind(run)}")
    return count, wrong
