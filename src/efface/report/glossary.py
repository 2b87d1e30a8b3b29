"""The terms of the page, each explained once."""

GLOSSARY = {
    "map": "The attributions of one image: a number for each pixel, or for each channel of a pixel.",
    "control": "A method whose maps do not depend on the network: a random ranking, an edge filter, or the true mask "
    "of the object. A method that is no better than a random ranking or an edge filter tells nothing of the network.",
    "reference": "The row with which all others are compared. It is a random ranking, unless the study names another.",
    "area": "The mean height of a curve over its axis. It is the one number that stands for the whole curve. Some "
    "metrics use the mean of their points, and metrics without an axis have one value instead.",
    "gain": "The difference between a method and the reference on the same images or trainings. Its sign is turned "
    "where lower is better, so + is always better.",
    "interval": "A 95 % confidence interval. Over images, it says what other test images of the kind would change. "
    "Over trainings, it says what other random starts would change as well.",
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
    "unit": "What is ranked and removed as a whole: a pixel, a channel of a pixel, or a group of pixels.",
    "fill": "What takes the place of removed units, such as the mean colour.",
    "ties": "Units with equal relevance. Their order is drawn at random.",
    "most first": "MoRF: the most relevant units are removed first. A truthful map makes the score fall fast.",
    "least first": "LeRF: the least relevant units are removed first. A truthful map keeps the score high for long.",
    "retraining": "ROAR and KAR train a new network on the images without the removed units, or with only the kept "
    "ones. The network is used to such images, and is not surprised by them.",
    "mask leakage": "The outline of the removed units may tell the class, even if the map is wrong. A new network "
    "can learn the outline. Then methods look worse than chance in ROAR, or better than they are in KAR.",
    "Kendall's tau": "Agreement of the order of the methods on two metrics: 1 is the same order, 0 no relation, "
    "\N{MINUS SIGN}1 the reversed order.",
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
