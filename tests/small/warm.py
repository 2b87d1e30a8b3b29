"""What every process that writes a report would do again: templates, fonts and figures. Imported before a fork.

The server of the forks finds this module by PYTHONPATH. The forks see neither that nor the folder of the tests.
"""

import gc
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from efface.report import page
from small.reports import curve_of, facts_of

BEFORE = "PYTHONPATH_BEFORE"
"""The variable that keeps the value of PYTHONPATH for the forks."""

sys.path.remove(str(Path(__file__).parents[1]))
os.environ["PYTHONPATH"] = os.environ.pop(BEFORE)
with tempfile.TemporaryDirectory() as folder:
    values = np.random.default_rng(0).random((4, 3))
    page.write(Path(folder), [curve_of(values + i, name) for i, name in enumerate("ab")], None, facts_of())
gc.collect()
gc.freeze()  # a collection in a fork would walk through everything that is imported, and copy its pages
