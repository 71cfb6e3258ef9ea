"""The commands a person types. Exit status 0, 1 for what went wrong, 2 for a wrong command line, 130 for Ctrl-C."""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np

import minidraw
from minidraw import checkpoint, images
from minidraw.backend import library
from minidraw.errors import BadInput, MinidrawError
from minidraw.evaluation import evaluate
from minidraw.files import write_atomically
from minidraw.presets import PRESETS
from minidraw.runs import Run, images_of, new_folder
from minidraw.training import best_workers
from minidraw.workers import cores


def _number(kind, low, high, what):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


def _path(text):
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    return text


ROUNDED_ON = 300  # test images that tell what rounding costs
BUSY = 0.25  # the range between the quartiles over the median from which a time says little

positive = _number(int, 1, 10**9, "a whole number from 1 to a billion")
natural = _number(int, 0, 2**63, "a whole number from 0 to 2^63")
positive_real = _number(float, sys.float_info.min, sys.float_info.max, "a positive number")


def _parser():
    parser = argparse.ArgumentParser(
        prog="minidraw", description="DRAW, the network that draws, from scratch.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"minidraw {minidraw.__version__}")
    parser.set_defaults(run=_help, parser=parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name, run, summary, description=None):
        description = description or summary[0].upper() + summary[1:] + "."
        sub = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
        sub.set_defaults(run=run, parser=sub)
        return sub

    def saved_run(sub):
        bundled = " or ".join(checkpoint.BUNDLED)
        note = f"a run folder; or {bundled}, bundled models, where no folder has that name (default: paper)"
        sub.add_argument("folder", nargs="?", type=_path, metavar="RUN", help=note)

    def preset(sub, note="sizes and recipe (default: quick)"):
        sub.add_argument("--preset", choices=PRESETS, help=note)
        sub.add_argument("--no-attention", action="store_true", help="read and write whole images, eq. (17) and (18)")

    def device(sub):
        sub.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy (default: cpu)")

    def workers(sub):
        note = "processes that share a batch on a CPU (default: one a core, of 25 images at least)"
        sub.add_argument("--workers", type=positive, metavar="N", help=note)

    def own_images(sub, default):
        sub.add_argument(
            "--data",
            type=_path,
            metavar="PATH",
            help="your own images: IDX (plain or .gz), or .npy or .npz with one array (count, height, width) or "
            f"(count, height, width, 3) (default: {default})",
        )
        sub.add_argument("--keep-grey", action="store_true", help="take grey values as they are: no binarising")

    sub = command(
        "train",
        _train,
        "train a model, or go on with one",
        "Train a model into a new run folder, or go on with one. Ctrl-C stops and saves; --resume goes on.",
    )
    preset(sub)

    def defaults(name):
        return ", ".join(f"{preset} {getattr(recipe, name)}" for preset, (_, recipe) in PRESETS.items())

    sub.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help=f"training steps in all (default: the preset's: {defaults('steps')})",
    )
    sub.add_argument("--batch-size", type=positive, metavar="N", help="images a step (default: the preset's)")
    sub.add_argument(
        "--learning-rate",
        type=positive_real,
        metavar="X",
        help=f"Adam's step size at its height (default: the preset's: {defaults('learning_rate')})",
    )
    sub.add_argument("--seed", type=natural, metavar="N", help="of all random numbers of the run (default: 0)")
    workers(sub)
    device(sub)
    own_images(sub, "the bundled MNIST")
    sub.add_argument("--out", type=_path, metavar="RUN", help="the new run folder (default: runs/PRESET-1, -2, ...)")
    sub.add_argument(
        "--resume",
        type=_path,
        metavar="RUN",
        help="go on with this run (default: a new one); only --steps, its new total, and --device go with it",
    )

    sub = command("sample", _sample, "draw new images from the prior, as pictures")
    saved_run(sub)
    sub.add_argument("--count", type=positive, default=36, metavar="N", help="how many (default: 36)")
    sub.add_argument("--seed", type=natural, default=0, metavar="N", help="which ones (default: 0)")
    sub.add_argument("--out", metavar="FOLDER", help="for the pictures (default: pictures/sample-1, -2, ...)")

    sub = command("reconstruct", _reconstruct, "images beside their reconstructions, where it looked, where it wrote")
    saved_run(sub)
    own_images(sub, "the run's test images")
    sub.add_argument("--out", metavar="FOLDER", help="for the pictures (default: pictures/reconstruct-1, -2, ...)")

    sub = command(
        "page",
        _page,
        "a model as one page for a browser, to draw for it and to move its window",
        "A model as one HTML file that a browser opens: draw for it, move its window, see it dream.",
    )
    saved_run(sub)
    own_images(sub, "the run's test images")
    sub.add_argument("--out", type=_path, metavar="FILE", help="the page (default: pictures/page-1.html, -2, ...)")

    sub = command("evaluate", _evaluate, "the bound, in nats, on the test images")
    saved_run(sub)
    sub.add_argument(
        "--samples",
        type=positive,
        default=1,
        metavar="K",
        help="drawings of each image; from 2 on also importance-weighted (default: 1)",
    )
    own_images(sub, "the run's test images")
    device(sub)
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    sub = command("bench", _bench, "how long a training step takes, beside its matrix products alone")
    preset(sub, "sizes and recipe (default: blog, blog --no-attention and paper, in turn)")
    sub.add_argument("--rounds", type=positive, default=40, metavar="N", help="steps to time (default: 40)")
    workers(sub)
    device(sub)
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="print a list of JSON objects, one for each row")
    what.add_argument("--profile", action="store_true", help="where the time goes, by op, in one process on the CPU")

    sub = command("gradcheck", _gradcheck, "check every hand-derived gradient against differences and the complex step")
    sub.add_argument("--verbose", action="store_true", help="a line for every gradient, not for every op")

    sub = command("params", _params, "names and shapes of a model's parameters")
    saved_run(sub)
    preset(sub, "the sizes of a preset, instead of RUN's")

    sub = command("data", None, "the bundled images")
    actions = sub.add_subparsers(dest="action", required=True, metavar="ACTION")
    sub = actions.add_parser(
        "build",
        help="rebuild the bundled file from the four IDX files",
        description="Rebuild the bundled MNIST file from the four original IDX files and compare the two.",
    )
    sub.add_argument("folder", metavar="FOLDER", help="where the IDX files are")
    sub.add_argument("--out", default="mnist.npz", metavar="FILE", help="the file to write (default: mnist.npz)")
    sub.set_defaults(run=_build, parser=sub)
    return parser


def _help(args, parser):
    parser.print_help()
    return 0


def _say(text):
    """Print a line, broken at words where it is wider than the terminal."""
    width = max(40, shutil.get_terminal_size().columns)
    print(textwrap.fill(text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))


def _train(args, parser):
    xp = library(args.device)
    if args.resume is not None:
        fixed = "preset batch_size learning_rate seed workers data out no_attention keep_grey"
        for option in fixed.split():
            if getattr(args, option) is not None and getattr(args, option) is not False:
                parser.error(f"--{option.replace('_', '-')} cannot be changed with --resume")
        run = Run.resume(args.resume, args.steps, xp)
    else:
        run = _new_run(args, xp)
    trainer = run.trainer
    if trainer.steps_done >= trainer.recipe.steps:
        list(run.train())  # its pictures, once more
        _say(f"{run.folder} has done all of its {trainer.steps_done} steps; --steps N goes on to step N")
        return 0
    _say(f"training {trainer.model.config.number_of_parameters:,} parameters in {run.folder}")
    stopped_by = _run_to_the_end(run)
    if stopped_by is not None:
        print(f"stopped after {trainer.steps_done} steps and saved; go on with:")
        print(f"minidraw train --resume {run.folder}")
        return 128 + stopped_by  # as a shell counts: 130 for Ctrl-C
    _say(f"{run.folder / 'samples.png'}: digits from the prior; the longer the training, the more handwritten")
    _say(f"{run.folder / 'loss.png'}: the bound falls, L_z rises as the latents are put to use")
    print(f"next: minidraw sample {run.folder}")
    print(f"      minidraw reconstruct {run.folder}")
    print(f"      minidraw evaluate {run.folder}")
    return 0


def _preset(args):
    """The name, Config and Recipe that --preset and --no-attention choose."""
    name = args.preset or "quick"
    config, recipe = PRESETS[name]
    if args.no_attention:
        config = replace(config, read_N=None, write_N=None)
    return name, config, recipe


def _workers(args, recipe):
    """How many processes share a batch: as asked, or as many as serve best."""
    if args.device == "gpu":
        if args.workers is not None:
            raise BadInput("workers share a batch on the CPU: there are none with --device gpu", "workers")
        return 1
    return args.workers or best_workers(recipe.batch_size)


def _new_run(args, xp):
    name, config, recipe = _preset(args)
    if args.steps is not None:
        recipe = replace(recipe, steps=args.steps, horizon=args.steps)
    chosen = {key: getattr(args, key) for key in ("batch_size", "learning_rate", "seed")}
    recipe = replace(recipe, binary=not args.keep_grey, **{k: v for k, v in chosen.items() if v is not None})
    recipe = replace(recipe, workers=_workers(args, recipe))
    trained_on = images.mnist() if args.data is None else images.load_images(args.data, recipe.binary)
    config = replace(config, A=trained_on.A, B=trained_on.B, channels=trained_on.channels)
    folder = args.out or new_folder(f"runs/{name}{'-no-attention' * args.no_attention}")
    return Run.new(folder, config, recipe, trained_on, args.data, xp)


class _Patient:
    """A stream for the progress bar that takes it calmly when nothing can be written: training goes on."""

    encoding = getattr(sys.stderr, "encoding", None) or "ascii"

    def write(self, text):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, or not there at all
            sys.stderr.write(text)

    def flush(self):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()


def _run_to_the_end(run):
    """Train under a progress bar; the signal that stopped it between two steps, after all was saved, or None.

    Ctrl-C (SIGINT), a shutdown (SIGTERM) and a terminal that closes (SIGHUP) are alike.
    """
    from tqdm import tqdm

    stop = None

    def ask_to_stop(number, _):
        nonlocal stop
        stop = number

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, ask_to_stop) for number in numbers}
    recent = None
    total, done = run.trainer.recipe.steps, run.trainer.steps_done
    look = "{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
    try:
        with (
            tqdm(total=total, initial=done, bar_format=look, smoothing=0.1, file=_Patient()) as bar,
            contextlib.closing(run.train()) as steps,
        ):
            for metrics in steps:
                now = np.array([metrics.L_x, metrics.L_z])
                recent = now if recent is None else 0.98 * recent + 0.02 * now
                bar.set_postfix_str(f"{recent.sum():.1f} = {recent[0]:.1f} + {recent[1]:.1f} nats", refresh=False)
                bar.update()
                if stop is not None and metrics.step < total:
                    run.save()
                    return stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return None


def _test_images(args, saved):
    """The test images that go with a checkpoint, or the held-out ones of --data; of the model's size."""
    if args.keep_grey and args.data is None:
        raise BadInput("--keep-grey goes with --data: the bundled images are binary")
    if args.data is not None:
        found = images.load_images(args.data, not args.keep_grey)
    else:
        found = images_of(saved.about, saved.recipe is None or saved.recipe.binary)
    if found.shape != saved.model.config.image_shape:
        raise BadInput(
            f"the images are of (height, width, channels) {found.shape}, but the model draws "
            f"{saved.model.config.image_shape}"
        )
    return found.test


def _pictures(out, kind, pictures):
    """Make and save (name, function that makes the figure, what to look for in it), overwriting nothing."""
    folder = Path(out) if out else new_folder(f"pictures/{kind}")
    for name, _, _ in pictures:
        if (folder / name).exists():
            raise BadInput(f"{folder / name} exists already: choose another folder", "out")
    folder.mkdir(parents=True, exist_ok=True)
    for name, make, look in pictures:
        if name.endswith(".gif"):
            make().save(folder / name, writer="pillow")
        else:
            make().savefig(folder / name)
        _say(f"{folder / name}: {look}")


def _first(windows, count):
    """The windows of the first `count` images; None where there is no attention."""
    return None if windows is None else windows[:, :count]


def _sample(args, parser):
    from minidraw import plots

    model = checkpoint.load_run(args.folder).model
    config, drawing = model.config, model.sample(args.count, args.seed)
    means, windows = drawing.means, drawing.write_windows
    pictures = [
        (
            "samples.png",
            lambda: plots.grid(means[-1], "Samples from the prior"),
            "new digits, made from noise alone",
        ),
        (
            "drawing.png",
            lambda: plots.steps(means[:, :6], _first(windows, 6), config.write_N, title="The canvas, step by step"),
            "each row a drawing; the rectangle is where it writes, a thicker line is a blurrier pen",
        ),
        (
            "drawing.gif",
            lambda: plots.animation(means[:, :16], _first(windows, 16), config.write_N),
            "the same, moving",
        ),
    ]
    if windows is not None:
        title = "A white patch through the write filters"
        pictures.append(
            (
                "white_patches.png",
                lambda: plots.white_patches(windows[:, :6], config.write_N, config.A, config.B, title),
                "where each write reaches: dots far apart, or one blot",
            )
        )
    _pictures(args.out, "sample", pictures)
    return 0


def _reconstruct(args, parser):
    from minidraw import plots

    saved = checkpoint.load_run(args.folder)
    model, config = saved.model, saved.model.config
    test = _test_images(args, saved)
    drawing, originals = model.reconstruct(test[:10]), config.as_images(test[:10])
    L_z_by_step = evaluate(model, test[:500]).L_z_by_step
    pictures = [
        (
            "reconstructions.png",
            lambda: plots.reconstructions(originals, drawing.means[-1]),
            "test images above, drawn again below",
        ),
        (
            "writing.png",
            lambda: plots.steps(
                drawing.means[:, :6], _first(drawing.write_windows, 6), config.write_N, title="Where it writes"
            ),
            "the canvas and the write window at every step",
        ),
        (
            "kl_by_step.png",
            lambda: plots.kl_by_step(L_z_by_step, "When the drawing is decided"),
            "the nats each step takes from the image, mean over the first 500 test images",
        ),
    ]
    if drawing.read_windows is not None:
        seen = np.repeat(originals[None, :6], config.T, axis=0)
        pictures.append(
            (
                "reading.png",
                lambda: plots.steps(seen, drawing.read_windows[:, :6], config.read_N, plots.READ, "Where it looks"),
                "the image and the read window at every step",
            )
        )
    _pictures(args.out, "reconstruct", pictures)
    return 0


def _page(args, parser):
    from minidraw import page

    saved = checkpoint.load_run(args.folder)
    test, labels = _test_images(args, saved), None
    if args.data is None and saved.about.get("data") is None:
        labels = images.mnist_labels("test")
    path = Path(args.out) if args.out else new_folder("pictures/page", ".html")
    if path.exists():
        raise BadInput(f"{path} exists already: choose another file", "out")
    binary = (saved.recipe is None or saved.recipe.binary) and not args.keep_grey
    content = page.page(saved.model, test, labels, binary).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content))
    _say(f"{path}: open it in a browser, by a double click; it fetches nothing and needs no server")
    cost = page.cost_of_rounding(saved.model, test[:ROUNDED_ON])
    count = min(len(test), ROUNDED_ON)
    nats = f"{cost:+.3f} nats an image ({count} test images)" if cost else "no nats: they are float16 already"
    _say(f"{len(content) / 1e6:.1f} MB; rounding the parameters to float16 costs {nats}")
    return 0


def _evaluate(args, parser):
    from tqdm import tqdm

    saved = checkpoint.load_run(args.folder, library(args.device))
    result = evaluate(
        saved.model,
        _test_images(args, saved),
        args.samples,
        progress=lambda batches: tqdm(batches, unit="batch", leave=False, disable=None),
    )
    if args.json:
        print(json.dumps(result._asdict()))
        return 0
    print(f"{result.images} test images, {result.samples} drawing(s) of each, nats an image")
    print(f"bound            {result.bound:8.2f} +- {_error(result.standard_error)}   (an upper bound on -log p(x))")
    print(f"  L_x            {result.L_x:8.2f}")
    print(f"  L_z            {result.L_z:8.2f}")
    _say("  L_z by step    " + " ".join(f"{nats:.2f}" for nats in result.L_z_by_step))
    if result.importance_weighted is not None:
        error = _error(result.importance_weighted_standard_error)
        print(f"importance-weighted {result.importance_weighted:5.2f} +- {error}   (tighter, with K = {args.samples})")
    return 0


def _error(standard_error):
    return "?" if standard_error is None else f"{standard_error:.2f}"


def _bench(args, parser):
    from minidraw.bench import bench, profile

    if args.preset is None and not args.no_attention:
        attentive, (paper, recipe) = PRESETS["blog"], PRESETS["paper"]
        whole = replace(attentive[0], read_N=None, write_N=None)
        chosen = [("blog", *attentive), ("blog", whole, attentive[1]), ("paper", paper, recipe)]
    else:
        args.preset = args.preset or "blog"
        chosen = [_preset(args)]
    library(args.device)  # is there a GPU?
    machine = f"NumPy {np.__version__}, Python {platform.python_version()}, {cores()} cores"
    if args.profile:
        _say(f"float32, batch {chosen[0][2].batch_size}, {machine}; medians of {args.rounds} steps in one process")
        for name, config, recipe in chosen:
            _print_profile(_title(name, config.read_N is not None), profile(config, recipe, args.rounds))
        return 0
    workers = _workers(args, chosen[0][2])
    if not args.json:
        where = f"{machine}; {args.device}, {workers} worker{'s' * (workers > 1)}"
        medians = f"medians, and ranges between the quartiles, of {args.rounds} steps"
        _say(f"float32, batch {chosen[0][2].batch_size}, {where}; {medians}")
        print(f"{'milliseconds':19} {'a step':>16} {'its products':>14}  ratio images/s  memory")
    rows = []
    for name, config, recipe in chosen:
        row = bench(name, config, replace(recipe, workers=_workers(args, recipe)), args.device, args.rounds)
        rows.append(row)
        if not args.json:
            memory = "?" if row.peak_mib is None else f"{row.peak_mib:.0f} MiB"
            print(
                f"{_title(name, row.attention):19} {row.step_ms:8.1f} ({row.step_spread_ms:5.1f})"
                f"{row.floor_ms:7.1f} ({row.floor_spread_ms:5.1f}) {row.ratio:6.2f} {row.images_per_second:8.0f} "
                f"{memory:>8}"
            )
    if args.json:
        print(json.dumps([row._asdict() for row in rows]))
    if any(row.step_spread_ms > BUSY * row.step_ms or row.floor_spread_ms > BUSY * row.floor_ms for row in rows):
        _print_error("bench: half of the times differ by more than a quarter: something else kept this machine busy")
    return 0


def _title(preset, attention):
    return preset if attention else f"{preset} --no-attention"


def _print_profile(title, rows):
    total = sum(map(sum, rows.values()))
    print(f"\n{title:36} forward  backward  share of {total:.1f} ms")
    for name, (forward, backward) in rows.items():
        print(f"{name:36} {forward:7.2f}  {backward:8.2f}  {(forward + backward) / total:5.0%}")


def _gradcheck(args, parser):
    from minidraw import gradcheck, gradcheck_cases

    print(f"{'worst relative errors':48} {'differences':>12} {'complex step':>13}")
    failed = count = 0
    for case in gradcheck_cases.op_cases() + gradcheck_cases.model_cases():
        rows = case.run()
        failed, count = failed + sum(not row.passed for row in rows), count + len(rows)
        worst = [max(getattr(row, witness) for row in rows) for witness in ("differences", "complex_step")]
        if args.verbose or not all(row.passed for row in rows):
            for row in rows:
                verdict = "" if row.passed else " FAILED"
                label = f"{case.label}: {row.input}"
                print(f"{label:48} {row.differences:12.1e} {row.complex_step:13.1e}{verdict}")
        else:
            print(f"{case.label:48} {worst[0]:12.1e} {worst[1]:13.1e}")
    limits = f"limits {gradcheck.DIFFERENCES_LIMIT:.0e} and {gradcheck.COMPLEX_STEP_LIMIT:.0e}"
    print(f"{count - failed} of {count} gradients agree with both witnesses ({limits})")
    return 1 if failed else 0


def _params(args, parser):
    if args.folder is not None and (args.preset or args.no_attention):
        parser.error("RUN and --preset or --no-attention exclude each other")
    if args.preset or args.no_attention:
        _, config, _ = _preset(args)
    else:
        config = checkpoint.load_run(args.folder).model.config
    for name, shape in config.shapes.items():
        print(f"{name:16} {shape}")
    print(f"{config.number_of_parameters:,} parameters")
    return 0


def _build(args, parser):
    if Path(args.out).exists():
        raise BadInput(f"{args.out} exists already: choose another file", "out")
    arrays = images.build_mnist(args.folder)
    write_atomically(args.out, lambda file: np.savez_compressed(file, **arrays))
    with np.load(images.BUNDLED, allow_pickle=False) as bundled:
        same = sorted(bundled.files) == sorted(arrays) and all(
            np.array_equal(arrays[name], bundled[name]) for name in arrays
        )
    print(f"{args.out}: {'equal to' if same else 'DIFFERENT from'} the bundled file in every array")
    return 0 if same else 1


def main(argv=None):
    """Run one command; returns the exit status."""
    os.environ["MPLBACKEND"] = "agg"  # no command opens a window, whatever the surroundings ask for
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a path that the terminal cannot spell is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        args = _parser().parse_args(argv)
        status, message = args.run(args, args.parser), ""
        if sys.stdout is not None:
            sys.stdout.flush()
    except MinidrawError as error:
        flags = ", ".join("--" + name.replace("_", "-") for name in error.arguments)
        status, message = 1, f"{error} ({flags})" if flags else str(error)
    except BrokenPipeError:  # nobody reads on
        status, message = 1, ""
    except MemoryError:
        status, message = 1, "not enough memory: ask for fewer (--count, --batch-size, --samples) or smaller images"
    except OSError as error:
        status, message = 1, f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    if message:
        _print_error(f"minidraw: {message}")
    _give_up_output()
    return status


def _print_error(message):
    """One line on standard error, where there is one."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(message.replace("\n", "\\n"), file=sys.stderr, flush=True)


def _give_up_output():
    """Drop what cannot be written: else Python would complain of it once more as it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
