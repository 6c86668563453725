"""Speech recognition as a library: knows neither database nor daemon.

All of the daemon that imports PyTorch is in here, and so comes behind what is set here.
"""

import os

# Of GNU's OpenMP, which PyTorch and CTranslate2 bring: how often a thread looks before it lies down to wait for the
# others. By itself it looks for milliseconds. Where the kernel leaves two threads on one processor, because another
# process has the other, the one that looks keeps the one that is waited for from its work, at each product of matrices:
# drafting and training take 20 to 40 times as long. So they do not, and beside nobody they take as long as ever
# (benchmarks/neighbour.py).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
