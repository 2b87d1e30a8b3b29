"""What YAML would read otherwise than it looks, or for hours, is one error with its line."""

import time

import pytest

from efface.study.study import read
from efface.study.yaml_file import InvalidStudyError
from efface.study.yaml_text import YamlTextError, read_yaml

EXPLODES = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a: the key stands twice, lines 1 and 3"),
        ("fit:\n  epochs: 1\n  epochs: 2", 3, "epochs.*twice"),
        ("a: 010", 1, "010"),
        ("a: 0x1F", 1, "0x1F"),
        ("b: 2\na: 1_0", 2, "1_0"),
        ("a: 1_0.5", 1, "1_0.5"),
        (f"a: {'9' * 5000}", 1, "5,000 digits"),
        ("a: 1e999", 1, "too large"),
        ("a: !!python/name:os.system", 1, "read safely.*os.system"),
        ("a: !!binary aGk=", 1, "binary"),
        ("a: !!set {b}", 1, "set"),
        ("[" * 5000, 1, "40 levels"),
        ("\n".join("  " * i + f"k{i}:" for i in range(60)), 40, "40 levels"),
        ("a: 1\nb: &x [*x]", 2, "contains itself"),
        (EXPLODES, 6, "anchors make more than"),
        ("? [1, 2]\n: 3", 1, "a key is a list"),
        ("a: 1\nb: \x00", 2, "not allowed"),
        (b"a: 1\nb: \xe9", 2, "UTF-8"),
        ("---\na: 1\n---\nb: 2", 3, "another document"),
    ],
)
def test_what_cannot_be_read_names_its_line(text, line, said):
    started = time.process_time()
    with pytest.raises(YamlTextError, match=said) as problem:
        read_yaml(text)
    assert problem.value.line == line
    assert time.process_time() - started < 5


def test_text_of_another_encoding_and_a_huge_text_are_refused():
    for codec in ("utf-16", "utf-32"):
        with pytest.raises(YamlTextError, match=f"is in {codec.upper()}"):
            read_yaml("a: 1".encode(codec))
        for order in ("le", "be"):
            mark = "\N{ZERO WIDTH NO-BREAK SPACE}"
            with pytest.raises(YamlTextError, match=f"is in {codec.upper()}"):
                read_yaml(f"{mark}a: 1".encode(f"{codec}-{order}"))
            with pytest.raises(YamlTextError, match="UTF-16 and UTF-32"):  # without its mark
                read_yaml("a: 1".encode(f"{codec}-{order}"))
    with pytest.raises(YamlTextError, match="250,000"):
        read_yaml("a: " + "x" * 250_001)
    assert read_yaml(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_merged_keys_may_be_set_again():
    assert read_yaml("base: &b {x: 1, y: 2}\na: {<<: *b, x: 3}")["a"] == {"x": 3, "y": 2}


STUDY = """
out: out
data: {call: digits, kwargs: {limit: 20, test_limit: 10}}
model: {call: mlp, kwargs: {in_features: 64, num_classes: 10}}
fit: {epochs: 1}
attribution_methods: [{name: random, method: random}]
"""


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("repeats=yes", "repeats.*yes"),
        ("repeats=true", "repeats.*true.*number"),
        ("fractions=[true]", "fractions.*number"),
        ("fit.optimizer={call: torch.optim.Adam, kwargs: {lr: '1e-3'}}", "fit.optimizer.*lr='1e-3'"),
        ("executor={call: processes, kwargs: {workers: -1}}", r"executor.kwargs.workers.*-1.*from 1 to 1024"),
        ("executor={call: processes, kwargs: {workers: 100000}}", r"executor.kwargs.workers.*100000.*1024"),
        ("executor={call: processes, kwargs: {workers: true}}", "workers"),
        ("variants={" + ", ".join(f"v{i}: {{seed: {i}}}" for i in range(1001)) + "}", "variants.*1,001"),
        (f"seeds={[*range(20_000)]}", "seeds.*20,000"),
        (f"fractions={[each / 2000 for each in range(1001)]}", "fractions.*1,001"),
        ("repeats=1000000000", "repeats.*1000"),
        ("seeds=1.5", "seeds.*1.5"),
        ("variants=7", "variants.*7"),
        ("metrics=true", "metrics"),
        ("fit.optimizer={call: torch.optqm.Adam}", r"fit.optimizer.*torch\.optqm\.Adam.*optim"),
        ("attribution_methods.random.draws=1000000000", "attribution_methods.random.draws.*1000"),
        ("metrics=[{name: roar, kwargs: {repeats: 100000}}]", "metrics.roar.kwargs.repeats.*1000"),
    ],
)
def test_values_that_would_mean_something_else_do_not_pass(tmp_path, override, said):
    path = tmp_path / "study.yml"
    path.write_text(STUDY)
    with pytest.raises(InvalidStudyError, match=said):
        read(path, [override])


def test_an_empty_file_is_told(tmp_path):
    path = tmp_path / "study.yml"
    path.write_text("# nothing yet\n")
    with pytest.raises(InvalidStudyError, match=r"study\.yml: the file is empty"):
        read(path)
