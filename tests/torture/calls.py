"""Wrong calls of every public function: a BadInput of one line, never a result, never another exception."""

import numpy as np

import minidraw
from minidraw.ops import affine


def wrong_calls(images):
    """(what, function) of calls that ask for what cannot be."""
    config = minidraw.Config(T=3, read_N=2, write_N=2, z_size=4, enc_size=8, dec_size=8, A=5, B=6)
    data = minidraw.load_images(images)
    model = minidraw.Draw.initial(config)
    x, noise = data.test.astype("f"), np.zeros((3, len(data.test), 4), "f")
    recipe = minidraw.Recipe(steps=5, horizon=5, batch_size=10)
    step = lambda *batch, **changes: minidraw.Trainer(  # noqa: E731
        minidraw.Draw.initial(config), data, minidraw.Recipe(**(vars(recipe) | changes))
    ).train_step(*batch)
    ones, ten = np.ones((10, 30), "f"), np.zeros((3, 10, 4), "f")
    nan = ones.copy()
    nan[3, 4] = np.nan

    def replaced():
        trainer = minidraw.Trainer(minidraw.Draw.initial(config), data, recipe)
        next(trainer)
        trainer.model.parameters["mu/w"].value = trainer.model.parameters["mu/w"].value.copy()
        next(trainer)

    def two_at_once():
        other = minidraw.Draw.initial(config)
        first, second = (minidraw.Trainer(other, data, recipe) for _ in range(2))
        next(second)
        next(first)

    for name, value in [
        *(("T", v) for v in (0, -1, 1.5, None, "3", 10**9, True)),
        *(("read_N", v) for v in (0, 1, -2, 2.5, "5", 10**9)),
        *(("write_N", v) for v in (0, 1, 2.5, 10**9)),
        *((size, v) for size in ("z_size", "enc_size", "dec_size", "A", "B") for v in (0, -1, 1.5, None, 10**9)),
        *(("channels", v) for v in (0, 2, 4, None, "1")),
    ]:
        yield f"Config({name}={value!r})", lambda n=name, v=value: minidraw.Config(**{n: v})
    for name, value in [
        *((n, v) for n in ("steps", "batch_size", "horizon", "workers") for v in (0, -1, 1.5, None, True)),
        *((n, v) for n in ("seed", "warm_up") for v in (-1, 1.5, None)),
        *((n, v) for n in ("learning_rate", "clip") for v in (0, -1, float("nan"), float("inf"))),
        *((n, v) for n in ("hold", "floor") for v in (-0.1, 1.1, float("nan"))),
        *(("growth", v) for v in (((0.5, 0),), ((0.0, 1),), ((0.5, 2), (0.2, 1)), ((0.5, 1.5),))),
        ("workers", 10**6),
    ]:
        yield f"Recipe({name}={value!r})", lambda n=name, v=value: minidraw.Recipe(**{n: v})
    yield from {
        "evaluate 255 times too bright": lambda: minidraw.evaluate(model, x * 255),
        "evaluate NaN": lambda: minidraw.evaluate(model, nan),
        "evaluate negative": lambda: minidraw.evaluate(model, -ones),
        "evaluate no image": lambda: minidraw.evaluate(model, x[:0]),
        "evaluate a single image": lambda: minidraw.evaluate(model, x[0]),
        "evaluate pictures": lambda: minidraw.evaluate(model, x.reshape(-1, 6, 5)),
        "evaluate other images": lambda: minidraw.evaluate(model, x[:, :-1]),
        "evaluate no samples": lambda: minidraw.evaluate(model, x, samples=0),
        "evaluate no batch": lambda: minidraw.evaluate(model, x, batch_size=0),
        "evaluate words": lambda: minidraw.evaluate(model, np.array([["x"] * 30])),
        "reconstruct 255": lambda: model.reconstruct(x * 255),
        "reconstruct NaN": lambda: model.reconstruct(nan),
        "reconstruct no image": lambda: model.reconstruct(x[:0]),
        "sample nothing": lambda: model.sample(0),
        "generate with too few latents": lambda: list(model.generate(np.zeros((3, 2, 3), "f"))),
        "generate without t": lambda: list(model.generate(np.zeros((3, 4), "f"))),
        "generate nothing": lambda: list(model.generate(np.zeros((0, 2, 4), "f"))),
        "infer with too few pixels": lambda: list(model.infer(x[:, :-1], noise)),
        "infer one image": lambda: list(model.infer(x[0], noise)),
        "infer other noise": lambda: list(model.infer(x, noise[:, :1])),
        "infer no noise": lambda: list(model.infer(x, noise[:0])),
        "infer a list": lambda: list(model.infer(x.tolist(), noise)),
        "nats of no image": lambda: model.nats(x[:0], noise[:, :0]),
        "a step of 7 images": lambda: step(ones[:7], ten[:, :7]),
        "a step of one image": lambda: step(ones[:1], ten[:, :1]),
        "a step of one image, two workers": lambda: step(ones[:1], ten[:, :1], workers=2),
        "a step of NaN": lambda: step(nan, ten),
        "a step too bright": lambda: step(255 * ones, ten),
        "a step too dark": lambda: step(-ones, ten),
        "a step too long": lambda: step(ones, np.zeros((4, 10, 4), "f")),
        "two Trainers at once": two_at_once,
        "a parameter replaced": replaced,
        "a batch too large": lambda: minidraw.Trainer(model, data, minidraw.Recipe(batch_size=1000)),
        "images of another size": lambda: minidraw.Trainer(model, minidraw.mnist(), recipe),
        "growth beyond T": lambda: minidraw.Trainer(model, data, minidraw.Recipe(batch_size=10, growth=((0.5, 4),))),
        "affine, x too narrow": lambda: affine(np.ones((2, 3)), np.ones((4, 5)), np.ones(5)),
        "affine, x too wide": lambda: affine(np.ones((2, 5)), np.ones((4, 5)), np.ones(5)),
        "affine, another bias": lambda: affine(np.ones((2, 4)), np.ones((4, 5)), np.ones(4)),
        "affine, one image": lambda: affine(np.ones(4), np.ones((4, 5)), np.ones(5)),
        "a model with a row too many": lambda: minidraw.Draw(config, model.arrays() | {"mu/w": np.ones((9, 4))}),
        "a model without a weight": lambda: minidraw.Draw(config, {"mu/w": np.ones((8, 4))}),
        "no such run": lambda: minidraw.load("runs/none"),
        "a run that is a file": lambda: minidraw.load(images),
        "no such images": lambda: minidraw.load_images("none.npy"),
        "images that are a folder": lambda: minidraw.load_images("."),
    }.items()


def calls(images):
    done, wrong = 0, []
    for what, function in wrong_calls(images):
        done += 1
        try:
            result = function()
            wrong.append(f"{what}: gave {str(result)[:80]}")
        except minidraw.BadInput as error:
            if "\n" in str(error):
                wrong.append(f"{what}: more than a line: {error}")
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}: {error}")
    return done, wrong
