"""Packages of other people that take seconds to import. They are imported when a test uses them, not by each worker.

To replace one of their functions, use `monkeypatch.setattr("timm.create_model", mine)`.
"""

import importlib


class Lazy:
    """A package that is imported on first use."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self._name), attribute)


autolrp, datasets = Lazy("autolrp"), Lazy("datasets")
timm, transformers = Lazy("timm"), Lazy("transformers")
