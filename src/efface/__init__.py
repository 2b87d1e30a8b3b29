"""efface: does an attribution map tell the truth about an image classifier?"""

__version__ = "0.1.0"
