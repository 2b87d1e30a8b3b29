"""From configurations of the ROAR reference system to studies, key by key.

The reference system is saurabheights/ROAR. Its files are read as data: no code in them runs.
"""

from efface.study.convert.old import Line, Old, read_old
from efface.study.convert.studies import Converted, converted

__all__ = ["Converted", "Line", "Old", "converted", "read_old"]
