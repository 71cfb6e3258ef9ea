"""GAN: a generator and a critic that learn from each other, without a likelihood. Chapter 20.

    python tutorial/gan.py classifier --steps 1500
    python tutorial/gan.py gan
    python tutorial/gan.py gan --seed 1

The first trains a small classifier of digits; its weights are in runs/classifier.npz beside this file. The others
train a GAN on the bundled MNIST at half its size, and have that classifier count the digits among its samples. Each
writes NAME.npz, weights as float16 (of a GAN the generator's), and NAME.json, its curve and results.

Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio: Generative Adversarial Nets, NIPS 2014,
arXiv 1406.2661. With fewer units, LeakyReLU in place of maxout, and no dropout.
"""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from descent import Descent, Maps, command, descend, load_weights, rows_of, save_weights, with_biases

from minidraw.autodiff import no_grad, primitive
from minidraw.backend import array_module, to_host
from minidraw.images import mnist, mnist_labels
from minidraw.ops import bernoulli, cross_entropy
from minidraw.ops.elementary import logistic, mean, sigmoid
from minidraw.training import Recipe

# The networks

SLOPE = 0.2
GENERATOR, CRITIC, CLASSIFIER = [64, 128, 128, 196], [196, 128, 128, 1], [196, 128, 10]  # widths


@primitive
def leaky_relu(a):
    """a where it is positive, a fifth of it elsewhere, (20.9)."""
    slope = array_module(a).where(a.real > 0, 1, SLOPE).astype(a.real.dtype)

    def backward(dy):
        return dy * slope  # (20.10)

    return a * slope, backward


def initial(widths, *seed, xp=np):
    """Maps "1", "2", ... from each width to the next."""
    shapes = {f"{k}": pair for k, pair in enumerate(pairwise(widths), start=1)}
    return Maps.initial(with_biases(shapes), seed, xp)


def network(maps, x):
    """x (batch, first width) through the maps, `leaky_relu` between: (batch, last)."""
    last = len(maps.parameters) // 2
    for k in range(1, last):
        x = leaky_relu(maps(f"{k}", x))
    return maps(f"{last}", x)


def generate(generator, z):
    """Images (batch, 196), each pixel in (0, 1), from latents z (batch, 64)."""
    return sigmoid(network(generator, z))


# The game


def critic_loss(real, fake):
    """What the critic pays, in nats: logits (batch, 1) for images of the data and of the generator, (20.1)."""
    return mean(bernoulli(real, 1)) + mean(bernoulli(fake, 0))


def minimax_loss(fake):
    """The mean of log(1 - D), what the generator makes small in the minimax game, (20.5)."""
    return -mean(bernoulli(fake, 0))


def generator_loss(fake):
    """The mean of -log D: the generator pays for every image that does not pass for the data's, (20.7)."""
    return mean(bernoulli(fake, 1))


# What it learns from, and who counts


def halved(images):
    """Images (n, 784) of zeros and ones at half the size, (n, 196) float32: each pixel the mean of four."""
    return images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 196)


def digits_of(classifier, images):
    """The digit (n,) that the classifier sees in each of images (n, 196), and its probability."""
    with no_grad():
        a = network(classifier, images).value
    p = array_module(a).exp(a - a.max(axis=1, keepdims=True))
    return a.argmax(axis=1), 1 / p.sum(axis=1)


def census(generator, classifier, seed=0, count=1000):
    """How many of `count` samples show each of the ten digits, (10,): as the classifier sees them."""
    z = np.random.default_rng([seed, 4]).standard_normal((count, GENERATOR[0]), np.float32)
    with no_grad():
        images = generate(generator, generator.xp.asarray(z)).value
    return to_host(generator.xp.bincount(digits_of(classifier, images)[0], minlength=10))


# The command

RUNS = Path(__file__).resolve().parent / "runs"
RECIPE = Recipe(steps=3000, horizon=3000, learning_rate=5e-4, hold=0.5, floor=0.1)


def trained(name, xp=np):
    """The Maps in runs/NAME.npz: of "gan" the generator, of "classifier" the classifier."""
    return Maps(load_weights(RUNS / f"{name}.npz", xp)[1])


def train(name, recipe, path, xp):
    """Train what that name says; see `descent.command`."""
    return {"gan": train_gan, "classifier": train_classifier}[name](recipe, path, xp)


def game(recipe, xp):
    """Generator and critic, a Descent each, and the function of a step, for `descend`."""
    classifier, images = trained("classifier", xp), mnist().train
    generator, critic = (initial(widths, recipe.seed, k, xp=xp) for k, widths in enumerate((GENERATOR, CRITIC)))
    descents = {"generator": Descent(generator, recipe, beta1=0.5), "critic": Descent(critic, recipe, beta1=0.5)}

    def step(number):
        x = xp.asarray(halved(rows_of(images, recipe, number)))
        rng = np.random.default_rng([recipe.seed, 3, number])
        fake = generate(generator, xp.asarray(rng.standard_normal((len(x), GENERATOR[0]), np.float32)))
        real, caught = network(critic, x), network(critic, fake.value)
        paid = critic_loss(real, caught)
        descents["critic"].step(paid)
        lost = generator_loss(network(critic, fake))
        norm = descents["generator"].step(lost)
        D = {"D_data": logistic(real.value).mean(), "D_samples": logistic(caught.value).mean()}
        seen = xp.bincount(digits_of(classifier, fake.value)[0], minlength=10) / len(x)
        shares = {f"{digit}": share for digit, share in enumerate(seen)}
        return {"critic": paid.value, "generator": lost.value, **D, "norm": norm, **shares}

    return descents, step


def train_gan(recipe, path, xp):
    descents, step = game(recipe, xp)
    classifier, generator, critic = trained("classifier", xp), descents["generator"].maps, descents["critic"].maps
    curve, seconds = descend(path, descents, step, recipe, {"widths": [GENERATOR, CRITIC]})
    save_weights(path.with_suffix(".npz"), {"widths": GENERATOR}, generator)
    counts = census(generator, classifier).tolist()
    results = {"parameters": [generator.number_of_parameters, critic.number_of_parameters], "steps": recipe.steps}
    line = f"of 1,000 samples each digit has {counts}"
    return {**results, "seconds": seconds, "digits": counts, "curve": curve}, line


def train_classifier(recipe, path, xp):
    recipe = replace(recipe, learning_rate=4 * recipe.learning_rate)  # nobody answers its steps
    classifier = initial(CLASSIFIER, recipe.seed, xp=xp)
    images, labels, descent = mnist(), mnist_labels("train"), Descent(classifier, recipe)

    def step(number):
        x = xp.asarray(halved(rows_of(images.train, recipe, number)))
        y = xp.asarray(rows_of(labels, recipe, number))
        nats = cross_entropy(network(classifier, x), y)
        norm = descent.step(mean(nats))
        return {"nats": nats.value.mean(), "norm": norm}

    curve, seconds = descend(path, {"classifier": descent}, step, recipe, {"widths": CLASSIFIER})
    save_weights(path.with_suffix(".npz"), {"widths": CLASSIFIER}, classifier)
    seen, _ = digits_of(classifier, xp.asarray(halved(images.test)))
    wrong = (to_host(seen) != mnist_labels("test")).mean()
    results = {"parameters": classifier.number_of_parameters, "steps": recipe.steps, "seconds": seconds}
    return {**results, "test_error": round(float(wrong), 4), "curve": curve}, f"test error {wrong:.2%}"


if __name__ == "__main__":
    sys.exit(command("gan", ("gan", "classifier"), train, RECIPE))
