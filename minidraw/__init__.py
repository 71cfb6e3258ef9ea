"""minidraw: DRAW, the network that draws, from scratch, for learning.

    import minidraw

    model = minidraw.load()                    # the bundled model; or load("runs/quick-1")
    drawing = model.sample(16)                 # drawing.means: (T, 16, 28, 28)

Pictures are in `minidraw.plots`, which is imported on its own: matplotlib takes its time.
"""

from minidraw import checkpoint as _checkpoint
from minidraw.data import mnist
from minidraw.draw import Config, Draw
from minidraw.evaluate import evaluate
from minidraw.train import Recipe, Trainer

__version__ = "0.1.0"
__all__ = ["Config", "Draw", "Recipe", "Trainer", "evaluate", "load", "mnist"]


def load(run=None):
    """The model (Draw) of a run folder, or the bundled one. Raises errors.BadInput, a ValueError."""
    return _checkpoint.load_run(run).model
