"""`efface cite`: BibTeX of efface, and of the papers that the docstrings of a study's plug-ins name."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from efface.__main__ import main
from efface.commands import cite
from efface.commands.references import bibliography, cited
from efface.plug import docstrings, words
from efface.study.study import Study
from small.messages import names
from small.studies import write_study

ROOT = Path(__file__).parents[2]
FILE = ROOT / "src" / "efface" / "commands" / "bibliography.bib"
PLUG_INS = [path for kind in words.KINDS for path in words.index(kind).values()]
SOURCES = {path: source for path in PLUG_INS if (source := docstrings.said(docstrings.docstring(path), "Source"))}
VENUES = {"article": "journal", "incollection": "booktitle", "inproceedings": "booktitle", "techreport": "institution"}


def braced(text, at):
    """The text between the brace at a position and the one that closes it, and the position behind that one."""
    assert text[at] == "{", text[at : at + 40]
    depth = 0
    for end in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[at + 1 : end], end + 1
    raise AssertionError(f"no brace closes {text[at : at + 40]}")


def parsed(text):
    """The entries of BibTeX: kind, key, fields, and the comments above, by the grammar `@kind{key, name = {value}}`."""
    found, at = [], 0
    while match := re.compile(r"((?:\s|%[^\n]*\n)*)@(\w+)").match(text, at):
        body, at = braced(text, match.end())
        key, _, rest = body.partition(",")
        fields, position = {}, 0
        while name := re.compile(r"[\s,]*(\w+) = ").match(rest, position):
            fields[name[1]], position = braced(rest, name.end())
        assert not rest[position:].strip(), rest[position:]
        found.append((match[2], key, fields, match[1]))
    assert re.fullmatch(r"(\s|%[^\n]*(\n|$))*", text[at:]), text[at : at + 80]
    return found


def entries(text):
    """The fields of the entries of BibTeX by key; `used` is what stands above an entry."""
    found = parsed(text)
    assert max(Counter(key for _, key, _, _ in found).values()) == 1
    return {key: fields | {"used": above.strip().removeprefix("% ")} for _, key, fields, above in found}


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
    path = found["sundararajan2017"]
    assert path["author"] == "Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi"
    assert path["title"] == "{Axiomatic Attribution for Deep Networks}"
    assert set(found["hooker2019"]["used"].split(", ")) >= {"roar", "kar", "channel_mean"}
    assert found["madry2018"]["eprint"] == "1706.06083"


def test_the_fill_of_a_study_without_one_is_cited(tmp_path, capsys):
    assert words.index("imputer")[cite.DEFAULT_FILL] == Study.model_fields["imputer"].default.call
    study = write_study(tmp_path, imputer=None)
    assert main(["cite", str(study)]) == 0
    assert "channel_mean" in entries(capsys.readouterr().out)["hooker2019"]["used"]


def test_recommended_metrics_are_cited(tmp_path, capsys):
    assert main(["cite", str(write_study(tmp_path, metrics="recommended"))]) == 0
    said = capsys.readouterr().out
    used = {each for entry in entries(said).values() for each in entry["used"].split(", ")}
    assert {"morf", "lerf", "srg", "randomisation", "random_logit", "roar"} <= used
    assert "recommended" not in said


def test_overrides_variants_and_settings_count(tmp_path, capsys):
    changes = {
        "attribution_methods": [
            {"name": "random", "method": "random"},
            {"name": "g", "method": "smooth_grad", "kwargs": {"base": "guided_backprop"}},
            {"name": "mine", "method": "mine.brightness"},
        ],
        "metrics": [{"name": "m", "metric": "morf", "kwargs": {"imputer": "noisy_linear"}}, "pixel_perturb"],
        "refit": {"preset": "short", "regularizers": [{"call": "score_matching", "preset": "paper"}]},
        "variants": {"plain": {}, "robust": {"fit.attack": {"call": "pgd"}}},
    }
    study = write_study(tmp_path, **changes)
    assert main(["cite", str(study), "imputer=histogram"]) == 0
    said = capsys.readouterr().out
    used = {each for entry in entries(said).values() for each in entry["used"].split(", ")}
    assert {
        "smooth_grad",
        "guided_backprop",
        "morf",
        "noisy_linear",
        "pgd",
        "histogram",
        "pixel_perturb",
        "short",
    } <= used
    assert names(said.splitlines()[-1], "net.network mine.brightness")


@pytest.mark.parametrize("path", [*sorted((ROOT / "configs").rglob("*.yml"))], ids=lambda path: path.stem)
def test_no_plug_in_of_efface_is_taken_for_a_function_of_your_own(path, capsys):
    assert main(["cite", str(path)]) == 0
    said = capsys.readouterr().out
    assert entries(said)
    assert "no reference" not in said


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
        ("Selvaraju et al. 2017, section 3 (arXiv:1610.02391)", ["selvaraju2017"]),
        (
            "Bach et al. 2015, doi 10.1371/journal.pone.0130140; zennit: Anders et al. 2021 (arXiv:2106.13200)",
            ["bach2015", "anders2021"],
        ),
        ("Xie et al., IJCAI 2023, ViT-CX: causal explanation of vision transformers", ["xie2023"]),
        ("the code of Shah, Jain & Netrapalli 2021, version 1 (arXiv:2102.12781v1), and its notebook", ["shah2021"]),
        ("torchvision's RandomRotation (bilinear), whose default `fill` is 0", []),
        ("Yang et al., AAAI 2023; re-calibration from the same, ICLR 2023", ["yang2023local"]),
        ("Yang et al., ICLR 2023, the fill", ["yang2023recalibrating"]),
        ("Yang, Akhtar, Wen, Shah & Mian 2023", ["yang2023recalibrating"]),
        ("the square of Adebayo et al. 2018 (arXiv:1810.03307)", ["adebayo2018local"]),
        (
            "Böhle et al. 2021; Nguyen & Martinez 2020; Moosavi-Dezfooli, Fawzi & Frossard 2016",
            ["bohle2021", "nguyen2020", "moosavidezfooli2016"],
        ),
    ],
)
def test_a_source_is_read(text, expected):
    assert list(cited(text)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Nobody et al. 2017 (arXiv:1610.02391)", "no entry Nobody 2017"),
        ("Selvaraju et al. 2017 (arXiv:1610.00000)", "no entry 1610.00000"),
        ("Selvaraju, Taly & Yan 2017", "no entry Taly"),
        ("Selvaraju et al., ICML 2017", "no entry ICML"),
        ("Bach et al. 2015, doi 10.1371/other", "no entry 10.1371/other"),
        ("Yang et al. 2023", "yang2023local and yang2023recalibrating"),
    ],
)
def test_a_paper_that_the_bibliography_has_not_or_has_twice_is_an_error(text, said):
    with pytest.raises(LookupError) as error:
        list(cited(text))
    assert names(str(error.value), f"bibliography.bib {said}")


@pytest.mark.parametrize("path", SOURCES)
def test_every_source_has_entries(path):
    source = SOURCES[path]
    keys = list(cited(source))
    assert keys or not re.search(r"\b(19|20)\d\d\b", source)
    text = "\n".join(bibliography()[key] for key in keys)
    for number in re.findall(r"arXiv:(\d{4}\.\d{4,5})", source):
        assert f"eprint = {{{number}}}" in text
    for doi in re.findall(r"doi[: ] ?(10\.[^\s);,]+)", source):
        assert f"doi = {{{doi}}}" in text


def test_the_bibliography_is_whole_and_has_no_paper_that_nothing_cites():
    text = FILE.read_text()
    assert text.isascii()  # accents as LaTeX writes them, so that every BibTeX sorts and shortens them
    found = parsed(text)
    keys = [key for _, key, _, _ in found]
    assert keys == sorted(set(keys)) == list(bibliography())
    assert set(keys) == {key for source in SOURCES.values() for key in cited(source)}
    for kind, key, fields, _ in found:
        family = re.sub("[^a-z]", "", fields["author"].partition(",")[0].lower())
        assert re.fullmatch(rf"{family}(\d{{4}})([a-z]*)", key), key
        assert re.fullmatch(r"\{.{10,}\}", fields["title"]), key
        assert 0 <= int(fields["year"]) - int(re.search(r"\d{4}", key)[0]) <= 2, key
        assert VENUES.get(kind, "title") in fields, key
        assert ("eprint" in fields) == ("archivePrefix" in fields), key
    for field in ("title", "eprint", "doi", "url"):
        values = [fields[field] for _, _, fields, _ in found if field in fields]
        assert len(values) == len(set(values)), field


def test_a_study_with_every_method_metric_and_fill_names_each_paper_once(tmp_path, capsys):
    kinds = {"method": "attribution_methods", "metric": "metrics"}
    changes = {kinds[kind]: [{"name": word, kind: word} for word in words.index(kind)] for kind in ("method", "metric")}
    for fill in words.index("imputer"):
        changes["metrics"].append({"name": f"morf_{fill}", "metric": "morf", "kwargs": {"imputer": fill}})
    assert main(["cite", str(write_study(tmp_path, **changes))]) == 0
    found = entries(capsys.readouterr().out)
    expected = {}
    for kind in ("method", "metric", "imputer"):
        for path in words.index(kind).values():
            for key in cited(SOURCES.get(path, "")):
                expected.setdefault(key, set()).add(words.word_of(path))
    assert expected.keys() <= found.keys()
    for key, used in expected.items():
        assert used <= set(found[key]["used"].split(", ")), key
