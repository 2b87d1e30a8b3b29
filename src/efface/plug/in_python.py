"""Messages that speak of a study's YAML, in the words of a call from Python: its arguments and values."""

import re
from collections.abc import Callable

import yaml

from efface.plug.given import is_given, said

_TRAIN = "hand over train=(images, labels)"
_REFIT = f"{_TRAIN} and how to train, refit={{'epochs': 10, 'batch_size': 128, ...}}"
_NUMBERS = "number the labels as the outputs of the network"
_VERBS = r"set|Set|write|such as|with(?= (?:batched|unit|mean|std):)"
_MAPPING = r"\{\w+: (?:[^{}]|\{[^{}]*\})*\}"
_VALUE = rf"{_MAPPING}|\[[^\]]*\]|(?:true|false|null|same|auto|\d[\d.]*|[a-z][\w.]*)\b(?! is\b)"


def _written(value: str) -> str:
    """Return a value of YAML as Python writes it; the text itself if it is no such value."""
    if "..." in value:
        return re.sub(r"(\w+): ", r"'\1': ", value)
    try:
        return repr(yaml.safe_load(value))
    except yaml.YAMLError:
        return value


_WORDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"(?m)^(evaluate|efface): ", ""),
    (r"\(nothing was started\)", "(nothing was measured)"),
    (r"\S+/given/maps-[0-9a-f]+-[0-9a-f]+\.npz: ", ""),
    # places
    (r"(?<![\w.])attribution_methods\.([^:\n]+?)\.method: ", r"methods: \1: "),
    (r"(?<![\w.])attribution_methods\.([^:\n]+?)\.(name|kwargs|kwarg|post|draws|file|outputs): ", r"methods: \1: \2: "),
    (r"(?<![\w.])attribution_methods\.(?=\S)", "methods: "),
    (r"(?<![\w.])attribution_methods\b", "methods"),
    (r"(?<![\w.])metrics\.([^:\n]+?)\.name: ", r"metrics: \1: "),
    (r"(?<![\w.])metrics\.([^:\n]+?)\.kwargs\.", r"metrics: \1: "),
    (r"(?<![\w.])metrics\.(?=\S)", "metrics: "),
    (r"(?m)^data: images, split 'test': ", "images: "),
    (r"(?m)^data: images, split 'train': ", "train: "),
    (r"(\d+) targets are below 0", r"\1 labels are below 0"),
    # what the call lacks
    (
        r"(?:it retrains|a probe trains) the network, but the study has no 'fit'; add it, or drop the metric",
        f"it trains networks; {_REFIT}, or leave the metric out",
    ),
    (r"retraining needs a 'train' split, which \S+ does not give", f"the trainings need images; {_REFIT}"),
    (
        r"\S+ gives no 'train' split to fit on; give 'weights', or other data",
        f"there are no images to train the network on; {_TRAIN}, or a model that is trained",
    ),
    (
        r"\S+ gives no 'train' split; take other data, or drop the method",
        f"there are no training images; {_TRAIN}, or leave the method out",
    ),
    (
        r"the data have no 'train' split to fine-tune on; take other data, or drop it",
        f"there are no images to fine-tune on; {_TRAIN}, or leave the metric out",
    ),
    (
        r"which images does not give; choose data that have them, such as patches, or drop this metric",
        "which a call cannot hand over; leave this metric out, or write a study whose data have masks, such as patches",
    ),
    (
        r"which these data do not have; choose data that have them, such as patches, or drop this method",
        "which a call cannot hand over; leave this method out, or write a study whose data have masks, such as patches",
    ),
    (
        r"but the study has no 'second_network'; add second_network: \{model: \.\.\., fit: \.\.\.\}",
        "and the call has none; hand over second_network={'model': 'my_package.network', 'weights': 'file.pt'}",
    ),
    (
        r"but the study has no 'second_network'; add it",
        "and the call has none; hand over second_network={'model': 'my_package.network', 'weights': 'file.pt'}",
    ),
    (
        r"gives (\d+) classes, but the (test|train) data have (\d+); set model\.kwargs\.num_classes=\d+",
        lambda m: (
            f"has {m[1]} outputs, but {'labels' if m[2] == 'test' else 'the labels of train'} go up to class "
            f"{int(m[3]) - 1}; number the classes from 0 to {int(m[1]) - 1}, or hand over a model with {m[3]} "
            f"outputs"
        ),
    ),
    (
        (
            r"but a metric needs the maps of the train images, too; give a file for each, file: \{train: "
            r"a\.npz, test: b\.npz\}, or put them below train/ and test/"
        ),
        (
            "but a metric that trains needs the maps of the images of train=, too; hand over the method "
            "itself, or {'file': {'train': 'a.npz', 'test': 'b.npz'}} with files of efface.write_maps"
        ),
    ),
    (
        r"the study names none; list some, or give --metrics roar,morf",
        "there are none; hand over one or more, such as metrics=['morf', 'lerf']",
    ),
    (
        r"; write batched: false in its entry if it takes one image at a time",
        "; call its second argument image if it takes one image at a time",
    ),
    (r"write batched: false in its entry", "call its second argument image"),
    (
        r"name them in the study, outputs: \[([^\]]*)\]",
        lambda m: (
            "name them in an entry, {'method': ..., 'outputs': ["
            + ", ".join(repr(name.strip()) for name in m[1].split(","))
            + "]}"
        ),
    ),
    (r"\bgive the entry a longer timeout", "give it a longer one, {'method': ..., 'timeout': seconds}"),
    (
        r"; give a study's YAML file, or the folder of a run, of one of its variants, or of one seed",
        "; give a result, or the folder of a run",
    ),
    (r"Add --trust if you know this person", "If you know this person, call the command efface compare with --trust"),
    (
        r"add --trust if you know who made the folder",
        "call the command efface compare with --trust if you know who did",
    ),
    # keys and values as arguments
    (r"try device=auto", "leave device out"),
    (r"\{call: \.\.\., kwargs: \{\.\.\.\}\}", "{'call': ..., 'kwargs': {...}}"),
    (
        r"Set mean and std of its training in the study \(ImageNet: mean: (\[.*?\]), std: (\[.*?\])\)",
        r"Hand over mean and std of its training (ImageNet: mean=\1, std=\2)",
    ),
    (
        r"give each class the number of its output \(data\.kwargs\.classes of image_folder\)",
        "give each of the labels the number of its output",
    ),
    (
        (
            r"class folders are sorted by name \(10 before 2\), and data\.kwargs\.classes of image_folder "
            r"gives the network's number of each"
        ),
        "each of the labels must be the number of the network's output for its class",
    ),
    (r"set model\.kwargs\.num_classes=(\d+)", r"hand over a model with \1 outputs"),
    (r"; set data\.kwargs\.validation=0\.125", "; leave keep out"),
    (r"set data\.kwargs\.validation, e\.g\. 0\.125", "leave keep out"),
    (r"change root, train or test, or give the network's number of this class in data\.kwargs\.classes", _NUMBERS),
    (r"drop this method or the metric from the study", "leave this method or the metric out"),
    (r"give (this|the) study another folder with out=\.\.\.", "give another folder with out=..."),
    (r"; lower data\.kwargs\.validation, or raise the limit", "; hand over more of them"),
    (r"\(data\.kwargs\.classes of image_folder: ", "("),
    (r"give the study a 'fit'", _REFIT),
    (r"With batched: false the method", "A method whose second argument is image"),
    (r"drop this key if the method takes n images and n labels", "call it images if the method takes n images"),
    # words of all studies
    (
        r"\b([Rr])un the (?:\w+ )?stage\b(?: on its study)?(?: again)?(?: first)?",
        lambda m: f"{'mM'[m[1] == 'R']}ake the same call again",
    ),
    (r"\b(this|the|The|another) study\b", r"\1 call"),
    (r"\ba study gives\b", "a call gives"),
    (r"\b(the same|the|this) command(?= (?:ran|continues|goes on|again))", r"\1 call"),
    (r"unknown key; ", "unknown setting; "),
    (r"\b(this|the|no other|its|two) key(s?)\b", r"\1 setting\2"),
    (rf"\b({_VERBS}) (?:(\w+)\.)?(\w+): ({_VALUE})", lambda m: f"{m[1]} {m[3]}={_written(m[4])}"),
    (r"\band (\w+): (\[[^\]]*\])", r"and \1=\2"),
    (rf"\b(\w+): ({_MAPPING})", lambda m: f"{m[1]}={_written(m[2])}"),
    (rf"(?<![\w=]){_MAPPING}", lambda m: _written(m[0])),
)
"""What a message says of a study, as a pattern, and the same of a call."""


def in_python(text: str) -> str:
    """Return a message in the words of a call, with the names of the objects that it handed over."""
    text = said(text)
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text


def for_maker(text: str, model: str) -> str:
    """Return a message in the words of who made a study: of a call if its model was handed over in Python."""
    return in_python(text) if is_given(model) else said(text)
