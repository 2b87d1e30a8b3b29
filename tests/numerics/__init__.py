"""Golden outputs: small numbers that this version of efface gives, by the name of the area or plug-in they are of.

A declared version says that numbers are the same as long as it is the same. These outputs guard it: where one of them
changes, the version of its name has to rise. `python -m numerics --write [NAME ...]`, in tests/, writes the files anew.

Convolutions use the instructions that every processor of the last ten years has. With newer ones, a few numbers that
magnify rounding would differ from the files.
"""

import os

os.environ.setdefault("DNNL_MAX_CPU_ISA", "AVX2")  # before the first convolution

from numerics.files import compare, versions, write
from numerics.table import declared, names, output

__all__ = ["compare", "declared", "names", "output", "versions", "write"]
