"""minidraw: DRAW, the network that draws, from scratch, for learning.

    import minidraw

    model = minidraw.load()                    # a bundled model; or load("blog"), or load("runs/quick-1")
    drawing = model.sample(16)                 # drawing.means: (T, 16, 28, 28)

Pictures are in `minidraw.plots`, which is imported on its own: matplotlib takes its time.
"""

from minidraw import checkpoint as _checkpoint
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.errors import BadInput, Diverged, MinidrawError, WorkerLost
from minidraw.evaluation import evaluate
from minidraw.images import load_images, mnist
from minidraw.training import Recipe, Trainer

__version__ = "0.2.0"
__all__ = [
    "BadInput",
    "Config",
    "Diverged",
    "Draw",
    "MinidrawError",
    "Recipe",
    "Trainer",
    "WorkerLost",
    "evaluate",
    "load",
    "load_images",
    "mnist",
]


def load(run=None):
    """The model (Draw) of a run folder, or of a bundled one: `blog` or `paper`, where no folder is called that.

    None is `paper`. Raises BadInput.
    """
    return _checkpoint.load_run(run).model
