"""The three ways to train that have a name."""

from minidraw.config import Config
from minidraw.training import Recipe

PRESETS = {
    # the first recognisable digits, within about a minute: fewer glimpses, through finer grids; and small batches, for
    # in so short a time the number of steps counts for more than what each of them sees
    "quick": (
        Config(T=5, read_N=12, write_N=12, enc_size=128, dec_size=128, learned_start=True),
        Recipe(steps=2_200, batch_size=50, horizon=2_200, learning_rate=3e-3, warm_up=100, floor=0.01),
    ),
    # the sizes of the blog post that minidraw started from
    "blog": (Config(), Recipe()),
    # the paper's MNIST model, table 3; it says nothing of how it was trained. All weights are shared over t, so T can
    # grow: most is learned while a step still costs a quarter
    "paper": (
        Config(T=64, read_N=2, write_N=5, z_size=100, learned_start=True),
        Recipe(
            steps=100_000,
            horizon=100_000,
            learning_rate=1e-3,
            hold=0.4,
            floor=0.02,
            growth=((0.5, 16), (0.75, 32)),
        ),
    ),
}
