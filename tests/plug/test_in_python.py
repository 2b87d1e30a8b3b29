"""Every text of efface that a call from Python can show is in the words of the call, whatever raises it."""

import ast
import re
from pathlib import Path

import pytest

import efface
from efface.plug.in_python import in_python

ROOT = Path(efface.__file__).parent
OTHERS = (
    *("commands", "study/convert", "stages/check", "stages/prune", "stages/status", "stages/watch", "stages/convert"),
    *("stages/compare", "study/yaml_file", "study/yaml_text", "plug/moved"),  # a study's file, and the command line
    "data",  # a call hands over its images, so no function of efface loads them
    "report",  # the page has the study
    "plug/in_python",
)
"""Modules whose texts no call shows."""
OF_YAML = re.compile(
    r"attribution_methods|data\.kwargs|model\.kwargs|'fit'; |a 'fit'|'train' split|\b(the|The|this|another) study\b|"
    r"(?<!compare with )--trust|--metrics|efface_given|\{\w+: |evaluate: |/given/|[Rr]un the (\w+ )?stage|"
    r"unknown key; |\b(this|the|no other) keys?\b|\b(set|write|such as) \w+: |\b(with|With) (batched|unit|mean|std): "
)
"""Words of a study's file and of the command line."""
ELSEWHERE = {
    "--metrics: ": "the option of the command line",
    "efface report FOLDER --trust": "a page that the command line writes of a folder",
    "numbered by data.kwargs.classes": "a study's data set has this setting, and images in memory have none",
}


def texts(file):
    """The texts with several words that are no docstrings, with 3 in place of every value."""
    tree = ast.parse(file.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in alone | parts:
            of = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "3" for part in of)
            if " " in text.strip():
                yield node.lineno, re.sub(r"\b3(?=[a-z])", "3 ", text)


def test_no_text_that_a_call_can_show_has_words_of_a_study():
    leaks, seen = [], 0
    for file in sorted(ROOT.rglob("*.py")):
        name = file.relative_to(ROOT).with_suffix("").as_posix()
        if any(name == other or name.startswith(f"{other}/") for other in OTHERS):
            continue
        for line, text in texts(file):
            seen += 1
            said = in_python(text)
            if OF_YAML.search(said) and not any(each in text for each in ELSEWHERE):
                leaks.append(f"{name}:{line}: {said}")
    assert seen > 1000
    assert leaks == [], "\n".join(leaks)


@pytest.mark.parametrize(
    ("study", "call"),
    [
        ("state them, such as tokens: {prefix: 1, grid: [14, 14]}", "tokens={'prefix': 1, 'grid': [14, 14]}"),
        ("expected attribute: {baselines: [0.0, 1.0]}", "expected attribute={'baselines': [0.0, 1.0]}"),
        ("set canonizer: null to run", "set canonizer=None to run"),
        ("take it with unit: token and", "take it with unit='token' and"),
        ("the images have gaps: image 3 lacks one", "the images have gaps: image 3 lacks one"),
        ("with gaps: image 3", "with gaps: image 3"),
        ("unit: it gives labels", "unit: it gives labels"),
        ("run the extract stage to finish it", "make the same call again to finish it"),
    ],
)
def test_values_of_a_study_are_written_as_python_has_them(study, call):
    assert call in in_python(study)
