"""Speech recognition as a library: knows neither database nor daemon.

Whoever imports PyTorch does it behind this.
"""

import os

# Of the OpenMP that PyTorch brings: how often a thread looks before it lies down to wait for the others. By itself it
# looks for milliseconds. Where another process wants a processor as well, the one that looks keeps it from the one that
# is waited for, at each product of matrices: with two threads on two processors drafting took 29 times as long. So it
# takes 1.4 times, and beside nobody as long as ever (benchmarks/neighbour.py).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
