"""efface from Python: `efface.evaluate`, `efface.maps`, `efface.compare`."""
