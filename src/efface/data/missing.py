"""Sentences for data that are not there: how to get them, and what works without them."""

from pathlib import Path

DEMO = "'efface demo', or './taskw demo' in a checkout, shows efface at work and needs no data"


def to_get_photographs(folder: Path) -> str:
    """Return how to fill a folder that should hold a tree of photographs, by its name."""
    if "imagenet" not in str(folder).lower() and "ilsvrc" not in str(folder).lower():
        return "put a folder of photographs for each class there, or change root"
    if folder.name.lower().startswith(("val", "test")):
        what, where = "validation images", f"{folder}, a folder for each class"
    else:
        what, where = "images", f"{folder / 'train'} and {folder / 'val'}, a folder for each class"
    return (
        f"ImageNet has no open download: register at image-net.org, download the {what} of ILSVRC2012 and put them "
        f"into {where}; or change root to the folder where you have them. {DEMO}"
    )
