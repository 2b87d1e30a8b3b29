"""The terms of the page, each explained once, and the links from a sentence to them."""

import re

from markupsafe import Markup, escape

GLOSSARY = {
    "map": "The attributions of one image: a number for each pixel, or for each channel of a pixel.",
    "control": "A row that is no explanation of the network: a random ranking, an edge filter, the true mask of the "
    "object, or a map that is optimised on the metric. A method that is no better than a random ranking or an edge "
    "filter tells nothing of the network.",
    "reference": "The row with which all others are compared. It is a random ranking, unless the study names another.",
    "area": "The mean height of a curve over its axis. It is the one number that stands for the whole curve. Some "
    "metrics use the mean of their points, and metrics without an axis have one value instead.",
    "gain": "The difference between a method and the reference on the same images or trainings. Its sign is turned "
    "where lower is better, so + is always better.",
    "interval": "A 95 % confidence interval. Over images, it says what other test images of the kind would change. "
    "Over trainings, it says what other random starts would change as well.",
    "n": "The number of samples of a mean: of images, or of trainings.",
    "Student's t": "The usual interval and test of a mean of samples that are about normally distributed.",
    "skewness": "How unequal the two sides of a distribution are. A few large values would make the interval of "
    "Student's t too short on one side, so it is corrected by a formula of Hall.",
    "Wilson's method": "An interval of a share, such as an accuracy. It holds near 0 and 1, and if all values are "
    "equal.",
    "Tango's method": "The same for the difference of two shares of the same images.",
    "trainings and images": "All trainings are tested on the same images. The interval has the variance of both: what "
    "other trainings and what other test images would change.",
    "betting": "An interval and a test that hold whenever a study stops measuring, however often it looks at its "
    "results.",
    "p value": "The probability of so large a difference, or a larger one, if there is none in truth. A corrected p "
    "value also allows for the number of comparisons.",
    "verdict": "Better or worse than the reference, if a paired test tells the two apart after the correction. No "
    "different: the test does not tell them apart. This does not show that they are equal.",
    "correction": "Of many comparisons, some differ by chance. The p values of all verdicts on the first scores are "
    "raised together, so that the probability of any false one is at most 5 %. Tests over images are corrected by "
    "drawing the signs of their differences (the smallest p of all), tests over trainings by Holm's rule.",
    "rank": "1 plus the number of methods that are shown to be better. Methods that are not told apart may share one.",
    "among the best": "The method with the best mean on a metric, and every method that is not told apart from it.",
    "not told apart": "No test shows a difference at 5 %, after the correction. In other words: not significantly "
    "different.",
    "letters": "Two methods that share a letter are not told apart. Two methods without a common letter differ.",
    "effect size": "Of a pair of methods: the mean difference divided by the standard deviation of the differences "
    "(Cohen's d of paired samples). The common language effect is the share of images or repeats on which the first "
    "is better; ties count half, and 0.5 means no effect.",
    "explained class": "The class whose score a map explains: the true class of the image, or the predicted one.",
    "unit": "What is ranked and removed as a whole: a pixel, a channel of a pixel, or a group of pixels.",
    "fill": "What takes the place of removed units, such as the mean colour.",
    "ties": "Units with equal relevance. Their order is drawn at random.",
    "most first": "MoRF: the most relevant units are removed first. A truthful map makes the score fall fast.",
    "least first": "LeRF: the least relevant units are removed first. A truthful map keeps the score high for long.",
    "retraining": "ROAR and KAR train a new network on the images without the removed units, or with only the kept "
    "ones. The network is used to such images, and is not surprised by them.",
    "mask leakage": "The outline of the removed units may tell the class, even if the map is wrong. A new network "
    "can learn the outline. Then methods look worse than chance in ROAR, or better than they are in KAR.",
    "outline": "The shape of what is removed, which a network that is trained on erased images also sees. `mask_leak` "
    "measures how much of the class it tells.",
    "Kendall's tau": "Agreement of the order of the methods on two metrics: 1 is the same order, 0 no relation, "
    "\N{MINUS SIGN}1 the reversed order.",
    "Spearman correlation": "Agreement of two orders of the methods, as Kendall's tau, by the differences of their "
    "ranks: 1 is the same order, 0 no relation, \N{MINUS SIGN}1 the reversed order.",
    "Krippendorff's alpha": "Agreement of the images of one metric on the order of the methods: 1 is complete, 0 is "
    "that of chance.",
    "degenerate map": "A map that ranks nothing: it is constant, has mostly tied units, is the same for all images, or "
    "is the same for another class.",
}
"""Terms with their explanations, in the order of the page."""


def anchor(term: str) -> str:
    """Return the id of a term's entry. KeyError: the glossary does not have the term."""
    assert term in GLOSSARY, term
    return "term-" + "".join(letter if letter.isalnum() else "-" for letter in term.lower())


_PHRASES = {
    "95 % interval": "interval",
    "95 % intervals": "interval",
    "Student's t": "Student's t",
    "correction for skewness": "skewness",
    "Wilson's method": "Wilson's method",
    "Tango's method": "Tango's method",
    "variance of both trainings and images": "trainings and images",
    "betting": "betting",
    "corrected p": "p value",
    "not told apart": "not told apart",
    "mask leakage": "mask leakage",
    "area under the curve": "area",
    "explained class": "explained class",
    "the unit is": "unit",
    "the fill is": "fill",
    "ties are": "ties",
}
"""Phrases of the page's own sentences, and the terms that explain them."""


def linked(text: str) -> Markup:
    """Return a sentence of the page, with a link from the first place of each phrase to the term that explains it."""
    found, at = Markup(), 0
    seen: set[str] = set()
    pattern = "|".join(re.escape(phrase) for phrase in sorted(_PHRASES, key=len, reverse=True))
    for match in re.finditer(rf"\b(?:{pattern})\b", text):
        term = _PHRASES[match[0]]
        if term in seen:
            continue
        seen.add(term)
        found += escape(text[at : match.start()]) + Markup('<a class="term" href="#{}">{}</a>').format(
            anchor(term), match[0]
        )
        at = match.end()
    return found + escape(text[at:])
