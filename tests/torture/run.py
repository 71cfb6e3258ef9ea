"""Everything that may go wrong around a run, many times over: `python tests/torture/run.py`, an hour at the most.

Prints how often, and what went wrong; the exit status is 1 if anything did.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from torture.calls import calls
from torture.common import call, make_images, train
from torture.disks import full_disks
from torture.fuzz import fuzz
from torture.interrupts import interrupts
from torture.kills import kills, pairs, stops


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="how many times as much (default: 1, within an hour)")
    parser.add_argument("--seed", type=int, default=0, help="of what is random in it (default: 0)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these parts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(folder)
        run = Path(folder) / "run"
        call(train(images, run))

        def place(name):
            path = Path(folder) / name
            path.mkdir()
            return path

        def times(count):
            return max(1, round(count * args.scale))

        parts = {
            "calls": lambda: calls(images),
            "fuzz": lambda: fuzz(place("fuzz"), images, run, times(21_000), args.seed),
            "interrupts": lambda: interrupts(images, times(120), args.seed),
            "full_disks": lambda: full_disks(place("disks"), images, times(40), args.seed),
            "pairs": lambda: pairs(place("pairs"), images, times(20), args.seed),
            "stops": lambda: stops(place("stops"), images, times(30), args.seed),
            "kills": lambda: kills(place("kills"), images, times(210), args.seed),
        }
        failed = False
        for name, part in parts.items():
            if args.only and name not in args.only:
                continue
            start = time.monotonic()
            done, wrong = part()
            failed |= bool(wrong)
            print(f"{name:12} {done:6} done, {len(wrong)} wrong, {time.monotonic() - start:.0f} s", flush=True)
            for what in wrong:
                print(f"    {what}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
