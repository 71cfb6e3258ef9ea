"""What may go wrong around a run, many times over: kills, interrupts, full disks, damaged files, wrong calls.

`python tests/torture/run.py` does all of it, for an hour at the most; the suite does a short part of each. Every
function here does something `count` times and returns (how often, a list of what went wrong).
"""
