"""Small changes of efface's source: those of its numerics, which golden outputs must notice, and harmless ones.

The file of a change is found by its text, which occurs once in all of efface, so the list survives moves.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "efface"


@dataclass(frozen=True)
class Mutation:
    """One change.

    old: a text that occurs once in all of efface; for `word`, a name that is renamed everywhere in a file.
    new: what takes its place. names: the golden outputs to compute.
    beside: for `word`, a text that only the file to change holds.
    """

    old: str
    new: str
    names: tuple[str, ...]
    harmless: bool = False
    beside: str = ""


@cache
def sources() -> dict[Path, str]:
    """All files of efface."""
    return {path: path.read_text() for path in sorted(SOURCE.rglob("*.py"))}


def mutated(mutation: Mutation) -> tuple[Path, str]:
    """The file that a mutation changes, and its changed source."""
    searched = mutation.beside or mutation.old
    counts = {path: text.count(searched) for path, text in sources().items() if searched in text}
    assert sum(counts.values()) == 1, f"{searched!r} occurs {sum(counts.values())} times in efface, expected once"
    (path,) = counts
    text = sources()[path]
    if mutation.beside:
        return path, re.sub(rf"\b{mutation.old}\b", mutation.new, text)
    return path, text.replace(mutation.old, mutation.new)


def _wrong(old: str, new: str, *names: str) -> Mutation:
    return Mutation(old, new, names)


def _fine(old: str, new: str, *names: str) -> Mutation:
    return Mutation(old, new, names, harmless=True)


def _renamed(old: str, new: str, beside: str, *names: str) -> Mutation:
    return Mutation(old, new, names, harmless=True, beside=beside)


STORE = (
    _wrong(
        "np.take(self.numpy(), indices.cpu().numpy(), axis=0)",
        "np.take(self.numpy(), indices.cpu().numpy()[::-1], axis=0)",
        "store",
    ),
    _wrong(
        "source.index_select(0, indices.to(source.device)) if",
        "source.index_select(0, indices.flip(0).to(source.device)) if",
        "store",
    ),
    _wrong("bool((indices.diff() == 1).all())", "True", "store"),
    _wrong("return source[first : last + 1]", "return source[first:last]", "store"),
    _wrong(
        "data = np.ascontiguousarray(block, stored.dtype)",
        "data = np.ascontiguousarray(block[::-1], stored.dtype)",
        "store",
    ),
    _wrong('f"{tuple(shape)} {dtype.name} "', 'f"{tuple(shape)} {dtype} {dtype.name} "', "store"),
    _wrong("np.linspace(0, len(source) - 1, count).round()", "np.linspace(0, len(source) - 2, count).round()", "store"),
    _wrong(
        "zlib.crc32(np.ascontiguousarray(row).data, zlib.crc32(target.tobytes()))",
        "zlib.crc32(np.ascontiguousarray(row).data)",
        "store",
    ),
    _wrong("self.values[name][~np.isnan(self.values[name])]", "np.nan_to_num(self.values[name])", "store"),
    _wrong('self.records[record["key"]] = record\n', 'self.records.setdefault(record["key"], record)\n', "store"),
)
TRAINING = (
    _wrong(
        "self.accuracies[-1] > max(self.accuracies[:-1])", "self.accuracies[-1] < max(self.accuracies[:-1])", "train"
    ),
    _wrong("not self.best or self.accuracies[-1] >", "not self.best or self.accuracies[-1] >=", "train"),
    _wrong("kept = state.best_epoch if state.best else state.epoch - 1", "kept = state.epoch - 1", "train"),
    _wrong('draws.seed_of(f"epoch {seed} {epoch}")', 'draws.seed_of(f"epoch {seed} {epoch + 1}")', "train"),
    _wrong('draws.seed_of(f"dropout {seed} {epoch}")', 'draws.seed_of(f"dropout {seed}")', "train"),
    _wrong(
        "torch.randint(0, 2 * settings.crop + 1,",
        "torch.randint(0, max(1, 2 * settings.crop),",
        "train",
    ),
    _wrong("return order[:-1] if len(order) > 1 and", "return order[1:] if len(order) > 1 and", "train"),
    _wrong(
        "torch.where(flips[:, None], w - 1 - across, across)",
        "torch.where(flips[:, None], across, w - 1 - across)",
        "train",
    ),
    _wrong("means.add(values, sum(part.sizes))", "means.add(values, 1)", "train"),
    _wrong(
        "own = draws.fold(seeds, number + 1).to(images.device)",
        "own = draws.fold(seeds, number).to(images.device)",
        "train",
    ),
    _wrong("loss = loss + weighted", "loss = loss - weighted", "train"),
    _wrong("state.losses[-1] < self.loss", "state.losses[-1] <= self.loss + 0.5", "train"),
    _wrong(">= self.accuracy - 1e-9", "> self.accuracy + 1e-9", "train"),
    _wrong("return Term(norms.mean() / 2,", "return Term(norms.mean(),", "regularizer.gradient_norm", "train"),
    _wrong(
        "return total * (2 / (samples * sigma**2))",
        "return total * (1 / (samples * sigma**2))",
        "regularizer.score_matching",
    ),
    _wrong("-traces.clamp(max=threshold).mean()", "-traces.mean()", "regularizer.anti_score_matching"),
    _wrong("higher = losses > highest", "higher = losses < highest", "attack.pgd"),
    _wrong("self.network.load_state_dict(self.best)", "None", "train"),
    _wrong('eps / (4 if norm == "linf" else 2)', 'eps / (2 if norm == "linf" else 2)', "attack.pgd"),
    _wrong(
        "(math.log(bound) for bound in ratio)",
        "(math.log(bound) + 0.05 for bound in ratio)",
        "augmentation.random_resized_crop",
    ),
    _wrong("GREY = (0.299, 0.587, 0.114)", "GREY = (0.2126, 0.7152, 0.0722)", "augmentation.colour_jitter"),
)
ERASING = (
    _wrong("return math.floor(fraction * units + 1e-6)", "return math.floor(fraction * units)", "erase"),
    _wrong(
        "+ 1\n        gone = torch.floor(fraction * units.double() + 1e-6)",
        "+ 1\n        gone = torch.ceil(fraction * units.double() - 1e-6)",
        "erase",
    ),
    _wrong("ranks < first if order ==", "ranks <= first if order ==", "erase"),
    _wrong("tied |= values[:, 1:2].isnan().any(1)", "tied |= False", "erase"),
    _wrong("argsort(dim=1, descending=True, stable=True)", "argsort(dim=1, descending=False, stable=True)", "erase"),
    _wrong("return images.mul(255).round_()", "return images.mul(255).floor_()", "erase"),
    _wrong("border[:, width:-width, width:-width] = False", "border[:, width:, width:] = False", "erase"),
    _wrong("key = epoch if redrawn else 0", "key = 0", "erase"),
    _wrong("yield prepare(*item, epoch if redrawn else 0)", "yield prepare(*item, epoch)", "erase"),
    _wrong(
        'ties, post = draws.seeds_of(f"{case.seed} ties"', 'ties, post = draws.seeds_of(f"{case.seed} tie"', "erase"
    ),
    _wrong("draws.fold(maps, epoch) if epoch else maps", "draws.fold(maps, epoch + 1) if epoch else maps", "erase"),
    _wrong("convert2lab=image.shape[-1] == 3", "convert2lab=False", "unit.superpixel", "erase"),
    _wrong("(sums / sizes.clamp_min(1)).to(maps.dtype)", "sums.to(maps.dtype)", "erase"),
    _wrong("return maps.std(1)", "return maps.std(1, correction=0)", "post.channel_std"),
    _wrong(
        "near = giver.clamp(0, size - 1)",
        "near = giver % size",
        "imputer.blur",
        "post.gaussian_blur",
    ),
    _wrong("return int(4 * sigma + 0.5)", "return int(3 * sigma + 0.5)", "imputer.blur"),
    _wrong("torch.where(count > 0, means, unknown(images, mean))", "means", "imputer.kept_mean"),
    _wrong("sources = (draw * (h * w)).long()", "sources = (draw * (h * w - 1)).long()", "imputer.image_pixels"),
)
DRAWING = (
    _wrong(
        'again = f" draw {entry.draw}" if entry.draw > 1', 'again = f" draw {entry.draw}" if entry.draw > 2', "explain"
    ),
    _wrong("return f\"{run.study.seed} {split} {'random' if", "return f\"{run.study.seed} {'random' if", "explain"),
    _wrong("return _mix(_mix(indices.long() + 1) + start)", "return _mix(_mix(indices.long()) + start)", "draws"),
    _wrong("numbers[rows, 0, columns] = angle.cos()", "numbers[rows, 0, columns] = angle.sin()", "draws"),
    _wrong("_wrap(_wrap(number + 1) * _GOLDEN)", "_wrap(_wrap(number) * _GOLDEN)", "draws"),
    _wrong(
        "draws.seeded(int(seeds[0])), watched_hooks() as watch:",
        "draws.seeded(int(seeds[-1])), watched_hooks() as watch:",
        "explain",
    ),
    _wrong(
        "images = images + lr * (gradient - decay * (images - GREY))",
        "images = images + lr * (gradient + decay * (images - GREY))",
        "generate",
    ),
)
MAPPING = (
    _wrong(
        "return gradients.mean((2, 3), keepdim=True)", "return gradients.amax((2, 3), keepdim=True)", "method.grad_cam"
    ),
    _wrong("return gradients.relu()", "return gradients.abs()", "method.layer_cam"),
    _wrong("slopes.square().sum(1).sqrt()", "slopes.abs().sum(1)", "method.sobel"),
    _wrong("(numbers[:, :-2] < visible)", "(numbers[:, :-2] > visible)", "method.rise"),
    _wrong("return noise * ranges(images) *", "return noise *", "explain.parts"),
    _wrong(
        "features.flatten(2).var(2, correction=0).topk(channels).indices",
        "features.flatten(2).mean(2).topk(channels).indices",
        "method.score_cam",
    ),
    _wrong(
        "scale = (norm.running_var.double() + norm.eps).rsqrt()",
        "scale = (norm.running_var.double() + 0.001).rsqrt()",
        "evaluate",
    ),
)
SCORING = (
    _wrong(
        'np.where(before > 0, erased.values["logit"]',
        'np.where(before >= 0.3, erased.values["logit"]',
        "measure.formula",
    ),
    _wrong("np.abs(before - after) / np.maximum", "(before - after) / np.maximum", "measure.formula"),
    _wrong(
        "return pearson(rankdata(one, axis=1), rankdata(other, axis=1))",
        "return pearson(rankdata(one, axis=1), other)",
        "measure.formula",
    ),
    _wrong('roar = retrained(\n    "most_first"', 'roar = retrained(\n    "least_first"', "metric.roar"),
    _wrong(
        "positive = maps.double().clamp(min=0)\n    whole = positive.sum((1, 2))\n    shares",
        "positive = maps.double().abs()\n    whole = positive.sum((1, 2))\n    shares",
        "metric.relevance_mass",
    ),
    _wrong(
        "left = (size - above.sum(1)).double()",
        "left = (size - above.sum(1)).double() * 0",
        "metric.relevance_rank",
    ),
    _wrong(
        "disc = (places[:, None] ** 2 + places**2 <= tolerance**2)",
        "disc = (places[:, None] ** 2 + places**2 < tolerance**2)",
        "metric.pointing_game",
    ),
    _wrong(
        "return whole - answers(network, images, classes, changed, samples",
        "return whole + answers(network, images, classes, changed, samples",
        "metric.faithfulness_correlation",
    ),
    _wrong(
        '"accuracy": (logits.argmax(1) == targets.cpu()).numpy(),',
        '"accuracy": (logits.argmin(1) == targets.cpu()).numpy(),',
        "evaluate",
        "erase",
    ),
    _wrong("value.std(correction=0) + value.mean()", "value.std() + value.mean()", "metric.randomisation"),
)
HARMLESS = (
    _renamed("_mix", "_stir", "SplitMix64's last step", "draws"),
    _renamed("_pieces", "_blocks", "SplitMix64's last step", "draws"),
    _renamed("_checksum", "_sum_of", "def _checksum(", "store"),
    _renamed("_cut_torn_line", "_cut_line", "def _cut_torn_line(", "store"),
    _renamed("_descending", "_from_largest", "def _descending(", "erase"),
    _renamed("prepared", "made_ready", "def prepared(", "erase"),
    _renamed("_kept_ranks", "_ranks_kept", "def _kept_ranks(", "erase"),
    _renamed("_trained_on", "_seen", "def _trained_on(", "train"),
    _renamed("_dump", "_whole", "def finish(self, epoch", "train"),
    _renamed("_uphill", "_upwards", "def _uphill(", "attack.pgd"),
    _renamed("_enlarged", "_made_large", "def _shared_gradient(", "method.grad_cam"),
    _renamed("_climbed", "_risen", "def grey_noise(", "generate"),
    _renamed("shuffle", "mixed", "def _descending(", "erase"),
    _fine('"""Imputers: functions ', '"""Fills are functions ', "imputer.constant"),
    _fine("# NaN come first and equal nothing: two of them tie as well", "# NaN equal nothing", "erase"),
    _fine(
        'raise ValueError(f"fraction is {fraction}, expected a number from 0 to 1")',
        'raise ValueError(f"fraction {fraction}")',
        "erase",
    ),
    _fine("return math.floor(fraction * units + 1e-6)", "return int(fraction * units + 1e-6)", "erase"),
    _fine("higher = losses > highest", "higher = highest < losses", "attack.pgd"),
    _fine("return maps.abs()", "return abs(maps)", "post.absolute"),
    _fine("return maps.square()", "return maps * maps", "post.square"),
    _fine(
        'return ranks < first if order == "most_first" else ranks >= whole - first',
        'return ranks >= whole - first if order != "most_first" else ranks < first',
        "erase",
    ),
    _fine("self.epoch, self.best_epoch = 0, -1", "self.best_epoch, self.epoch = -1, 0", "train"),
    _fine(
        "    return maps.amax(1) if maps.ndim == 4 else maps",
        "    return maps if maps.ndim != 4 else maps.max(1).values",
        "post.channel_max",
    ),
    _fine("return _mix(_mix(indices.long() + 1) + start)", "return _mix(start + _mix(1 + indices.long()))", "draws"),
    _fine('Kind = Literal["maps", ', 'import random  # unused\n\nKind = Literal["maps", ', "store"),
    _fine("loss = loss + weighted", "loss = weighted + loss", "train"),
)
MUTATIONS = (*STORE, *TRAINING, *ERASING, *DRAWING, *MAPPING, *SCORING, *HARMLESS)
