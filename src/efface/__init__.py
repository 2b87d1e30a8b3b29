"""Does an attribution map tell the truth about an image classifier? Erase what it calls important, and see."""

__version__ = "0.1.0"
