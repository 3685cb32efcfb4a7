"""How fast tea is, beside its peers: one script for each row of the table in `docs/benchmarks.md`.

`python -m benchmarks` runs them all; each runs alone, too. A figure counts only beside the figure of its peer from
the same run: absolute times say more about the machine, and who else is on it.
"""
