"""Does an attribution map tell the truth about an image classifier? Erase what it calls important, and see."""

from efface.plug.moved import install as _install

__version__ = "0.2.0.dev0"
_install()
