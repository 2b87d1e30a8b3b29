"""`efface cite`: BibTeX of efface, and of the papers that the docstrings of a study's plug-ins name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from efface.__main__ import main
from efface.commands.references import Reference, bibtex, merged, references
from efface.plug import docstrings, words
from small.messages import names
from small.studies import write_study

ROOT = Path(__file__).parents[2]


def entries(text):
    """The entries of BibTeX by key, each with its fields; what they are for stands above them."""
    found = {}
    for used, key, body in re.findall(r"(?:% ([^\n]*)\n)?@misc\{([^,\s]+),\n(.*?)\n\}", text, re.DOTALL):
        assert body.count("{") == body.count("}")
        found[key] = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", body, re.MULTILINE)) | {"used": used}
    return found


def test_efface_alone(capsys):
    assert main(["cite"]) == 0
    (own,) = entries(capsys.readouterr().out).items()
    assert own[0] == "efface"
    assert own[1]["title"].startswith("{efface: ")


def test_a_study_names_the_papers_of_its_methods_and_metrics(capsys):
    assert main(["cite", str(ROOT / "configs" / "digits.yml")]) == 0
    found = entries(capsys.readouterr().out)
    assert found["selvaraju2017"]["eprint"] == "1610.02391"
    assert found["selvaraju2017"]["used"] == "grad_cam"
    assert found["sundararajan2017"]["author"] == "Sundararajan and Taly and Yan"
    roar = found["hooker2019"]
    assert roar["author"] == "Hooker and Erhan and Kindermans and Kim"
    assert set(roar["used"].split(", ")) >= {"roar", "kar"}
    assert found["madry2018"]["eprint"] == "1706.06083"


def test_overrides_variants_and_settings_count(tmp_path, capsys):
    changes = {
        "attribution_methods": [
            {"name": "random", "method": "random"},
            {"name": "g", "method": "smooth_grad", "kwargs": {"base": "guided_backprop"}},
            {"name": "mine", "method": "mine.brightness"},
        ],
        "metrics": [{"name": "m", "metric": "morf", "kwargs": {"imputer": "noisy_linear"}}, "pixel_perturb"],
        "variants": {"plain": {}, "robust": {"fit.attack": {"call": "pgd"}}},
    }
    study = write_study(tmp_path, **changes)
    assert main(["cite", str(study), "imputer=histogram"]) == 0
    said = capsys.readouterr().out
    used = {each for entry in entries(said).values() for each in entry["used"].split(", ")}
    assert {"smooth_grad", "guided_backprop", "morf", "noisy_linear", "pgd", "histogram", "pixel_perturb"} <= used
    assert names(said.splitlines()[-1], "net.network mine.brightness")


def test_the_folder_of_a_run_is_read_without_its_code(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    write_study(tmp_path / "run", {"mine": "raise SystemExit('it ran')\n"})
    assert main(["cite", str(tmp_path / "run")]) == 0
    assert "samek2015" in entries(capsys.readouterr().out)
    assert main(["cite", str(tmp_path)]) == 2
    assert names(capsys.readouterr().err, f"{tmp_path}/study.yml no file")


def test_cite_imports_no_torch():
    asked = ["cite", str(ROOT / "configs" / "digits.yml")]
    code = f"import sys; from efface.__main__ import main; main({asked!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Selvaraju et al. 2017, section 3 (arXiv:1610.02391)",
            [Reference(("Selvaraju",), True, "2017", arxiv="1610.02391")],
        ),
        (
            "Bach et al. 2015, doi 10.1371/journal.pone.0130140; zennit: Anders et al. 2021 (arXiv:2106.13200)",
            [
                Reference(("Bach",), True, "2015", doi="10.1371/journal.pone.0130140"),
                Reference(("Anders",), True, "2021", arxiv="2106.13200"),
            ],
        ),
        (
            "Xie et al., IJCAI 2023, ViT-CX: causal explanation of vision transformers (arXiv:2211.03064)",
            [
                Reference(
                    ("Xie",),
                    True,
                    "2023",
                    "IJCAI",
                    "ViT-CX: causal explanation of vision transformers",
                    "2211.03064",
                )
            ],
        ),
        (
            "the code of Shah, Jain & Netrapalli 2021, version 1, section 5 (arXiv:2102.12781v1), and its notebook",
            [Reference(("Shah", "Jain", "Netrapalli"), False, "2021", arxiv="2102.12781")],
        ),
        ("torchvision's RandomRotation (bilinear), whose default `fill` is 0", []),
        (
            "Yang et al., AAAI 2023; re-calibration from the same, ICLR 2023",
            [Reference(("Yang",), True, "2023", "AAAI")],
        ),
    ],
)
def test_a_source_is_read(text, expected):
    assert list(references(text, "x")) == expected


def test_every_arxiv_number_and_doi_of_a_source_is_cited():
    for kind in words.KINDS:
        for path in words.index(kind).values():
            source = docstrings.said(docstrings.docstring(path), "Source")
            text = bibtex(merged(references(source, "x")))
            for number in re.findall(r"arXiv:(\d{4}\.\d{4,5})", source):
                assert f"eprint = {{{number}}}" in text, path
            for doi in re.findall(r"doi[: ] ?(10\.[^\s);]+)", source):
                assert f"doi = {{{doi}}}" in text, path


def test_a_paper_stands_once_and_two_papers_of_one_year_have_letters():
    short = Reference(("Hooker",), True, "2019", arxiv="1806.10758", used_by=("a",))
    whole = Reference(("Hooker", "Erhan"), False, "2019", arxiv="1806.10758", used_by=("b",))
    bare = Reference(("Hooker",), True, "2019", used_by=("c",))
    (one,) = merged([short, whole, bare])
    assert (one.authors, one.arxiv, set(one.used_by)) == (("Hooker", "Erhan"), "1806.10758", {"a", "b", "c"})
    other = Reference(("Hooker",), True, "2019", arxiv="1111.11111", used_by=("d",))
    assert set(entries(bibtex(merged([whole, other])))) == {"hooker2019a", "hooker2019b"}
