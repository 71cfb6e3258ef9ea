"""Ctrl-C within a step of a Trainer, as in a notebook, and then going on: the run it would have been."""

import random
import signal
import threading
import time
from dataclasses import replace

from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.images import load_images
from minidraw.training import Recipe, Trainer

CONFIG = Config(T=3, read_N=2, write_N=2, z_size=2, enc_size=32, dec_size=32, A=5, B=6)
RECIPE = Recipe(steps=12, horizon=12, batch_size=10, warm_up=3)


def interrupts(images, count, seed=0):
    """`count` interrupts, at random moments of runs in one process and in two; parameters compared to the bit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it, in its background
    try:
        return _interrupts(load_images(images), count, random.Random(seed))
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupts(images, count, rng):
    done, wrong, want, seconds = 0, [], {}, {}
    for workers in (1, 2):
        trainer = Trainer(Draw.initial(CONFIG), images, replace(RECIPE, workers=workers))
        next(trainer)
        start = time.perf_counter()
        list(trainer)
        want[workers], seconds[workers] = _bits(trainer), time.perf_counter() - start
    while done < count:
        workers = 2 if done % 10 == 9 else 1  # two take their time to start again
        trainer = Trainer(Draw.initial(CONFIG), images, replace(RECIPE, workers=workers))
        while trainer.steps_done < RECIPE.steps:
            timer = threading.Timer(rng.random() * seconds[workers], signal.raise_signal, [signal.SIGINT])
            timer = timer if rng.random() < 0.8 else None
            try:
                if timer:
                    timer.start()
                for _ in trainer:
                    pass
                if timer:
                    timer.cancel()
                    timer.join()
                time.sleep(0)
            except KeyboardInterrupt:
                done += 1
            finally:
                if timer:
                    timer.cancel()
        if _bits(trainer) != want[workers]:
            wrong.append(f"after {done} interrupts, with {workers} workers: another run")
    return done, wrong


def _bits(trainer):
    return [array.tobytes() for array in (*trainer.adam.parameters, *trainer.adam.m, *trainer.adam.v)]
