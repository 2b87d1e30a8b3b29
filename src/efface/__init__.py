"""Benchmark of attribution maps: it erases the pixels that a map ranks as important and measures the classifier."""

from efface.plug.moved import install as _install

__version__ = "0.2.0.dev0"
_install()
