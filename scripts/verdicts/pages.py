"""Whole pages of methods that are all random, and claims about variants that are all alike."""

import numpy as np

from efface.report import between
from efface.report.claims import answer_claims
from efface.report.headline import headline as sentences
from efface.report.panels import panels
from efface.study.schema import Claim, Side
from verdicts.line import frozen, head, line, share, trained


def headline(runs: int, generator: np.random.Generator, *, quick: bool = False) -> None:
    """Print how often a page of random methods has a verdict, a sole first, or a star."""
    head("methods x metrics", "images", "any better or worse", "headline names a method", "any two told apart")
    for methods, metrics, count in ((6, 1, 1), (6, 5, 1), (15, 30, 0.2)):
        if quick and metrics > 5:
            continue
        for n in (20,) if quick else (20, 128):
            found = [_page(generator, methods, metrics, n) for _ in range(max(10, int(runs * count)))]
            line(f"{methods} x {metrics}", n, *(share(column) for column in np.array(found).T))


def _page(generator: np.random.Generator, methods: int, metrics: int, images: int) -> tuple[bool, bool, bool]:
    """One page: a fifth of the metrics retrains three times, the others are alike on the same images."""
    names = ["random", *(f"m{i}" for i in range(methods))]
    common = generator.normal(size=(len(names), images))
    curves = []
    for i in range(metrics):
        if i % 5 == 4:
            curves += [trained(_accuracy(generator, 3, images), name, f"metric{i}") for name in names]
        else:
            own = generator.normal(size=common.shape)
            scores = common * 0.7 + own * 0.7
            scores = scores if i % 5 < 2 else np.exp(scores)  # some metrics are skewed
            curves += [frozen(row, name, f"metric{i}") for name, row in zip(names, scores, strict=True)]
    found = panels(curves, ["random"])
    judged = any(row.verdict in ("better", "worse") for panel in found for row in panel.rows)
    told = any(pair.apart for pair in between.pairs(found))
    said = sentences(found)
    return judged, not all(sentence.startswith("No method is shown to be better") for sentence in said), told


def _accuracy(generator: np.random.Generator, trainings: int, images: int, spread: float = 0.3) -> np.ndarray:
    """Right or wrong of one method's trainings on the test images."""
    logit = 1.5 + generator.normal(0, spread, (trainings, 1)) + generator.normal(0, 1, (1, images))
    return (generator.random((trainings, images)) < 1 / (1 + np.exp(-logit))) * 1.0


def claims(runs: int, generator: np.random.Generator, *, quick: bool = False) -> None:
    """Print how often a claim about variants that differ in the seed alone gets a verdict."""
    head("eight variants that are alike", "trainings of each", "claims with a verdict")
    for seeds in (1, 3) if quick else (1, 3, 5, 8):
        hits: list[bool] = []
        for _ in range(max(5, runs // 28 * (4 if seeds > 1 else 1))):
            curves = {}
            for variant in "abcdefgh":
                images = np.stack([_accuracy(generator, 1, 200)[0] for _ in range(seeds)])
                one = (
                    trained(images, "gradient", "morf", trained="networks")
                    if seeds > 1
                    else frozen(images[0], "gradient")
                )
                curves[variant] = one
            found = {("morf", "accuracy", "gradient"): curves}
            asked = [
                Claim(says=f"{one} {other}", metric="morf", more=Side(variant=one), less=Side(variant=other))
                for i, one in enumerate("abcdefgh")
                for other in "abcdefgh"[:i]
            ]
            hits += [each.verdict in ("shown", "opposite") for each in answer_claims(asked, found)]
        line("", seeds, share(hits))
