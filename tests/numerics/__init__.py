"""Golden outputs: small numbers that this version of efface gives, by the name of the area or plug-in they are of.

A declared version says that numbers are the same as long as it is the same. These outputs guard it: where one of them
changes, the version of its name has to rise. `python tests/numerics --write [NAME ...]` writes the files anew.
"""

from numerics.files import compare, versions, write
from numerics.table import names, output

__all__ = ["compare", "names", "output", "versions", "write"]
