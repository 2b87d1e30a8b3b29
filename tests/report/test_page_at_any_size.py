"""The page at any width and on paper, with long names; its colours; its controls by the keyboard alone."""

import re
from pathlib import Path

import numpy as np
import pytest

from efface.report import page
from efface.report.facts import Origin
from efface.report.gallery import Gallery
from small.reports import curve_of, facts_of
from small.tiers import first_short

CSS = (Path(page.__file__).parent / "page.css").read_text()
METHODS = (
    "random",
    *(f"method_{i}_with_a_name_of_sixty_letters_so_that_it_must_be_{i:03}" for i in range(4)),
    "A" * 60,
)
METRICS = (
    "roar",
    "morf with imputer=noisy_linear, unit=patch(size=16), fractions=[0.1, 0.3, 0.5, 0.7, 0.9]",
    "pointing_game_of_the_largest_connected_component_with_tolerance_15",
    *(f"metric_{i}_with_settings(imputer=channel_mean, size=16, steps=32)" for i in range(21)),
)
FAMILIES = ("retraining", "erasure", "localisation")
PAPER = 703  # pixels of A4 less the margins of the page's own style


def curves(metrics=METRICS[:4]):
    rng = np.random.default_rng(0)
    found = []
    for m, metric in enumerate(metrics):
        at, axis = ((0.0,), "") if m % 3 == 2 else (tuple(np.linspace(0, 1, 11).round(1).tolist()), "fraction removed")
        how = {"metric": metric, "at": at, "axis": axis, "family": FAMILIES[m % 3], "bounds": (0.0, 1.0)}
        for i, name in enumerate(METHODS):
            values = rng.uniform(0.4, 0.6, (60, len(at))) - 0.02 * i
            found.append(curve_of(values, name, control=name == "random", **how))
    return found


def facts():
    command = f"efface all {'runs/a_long_folder_of_a_study/' * 4}study.yml"
    return facts_of(origin=Origin("2026-11-30", "abc1234", command, 0, 3), network="n" * 70, data="d" * 70)


def gallery():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    maps = {name: rng.normal(size=(2, 8, 8)).astype(np.float32) for name in METHODS}
    labels = ("1, explained as 1", "Anthropomorphous tabulatures of the Carboniferous, explained as another class")
    why = tuple(f"worst case of the methods on {metric}" for metric in METRICS[1:3])
    return Gallery(images, labels, maps, dict.fromkeys(METHODS, images), 0.3, why=why)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Pages of four and of 24 metrics."""
    return {
        count: page.write(
            tmp_path_factory.mktemp("long"), curves(METRICS[:count]), gallery(), facts(), references=["random"]
        )
        for count in (4, 24)
    }


CUT = """() => {
  const wrong = [];
  for (const part of document.querySelectorAll("body *")) {
    if (!part.checkVisibility() || part.closest("svg, select")) continue;
    const style = getComputedStyle(part);
    const name = `${part.tagName}.${part.className}: ${part.textContent.trim().slice(0, 40)}`;
    const cuts = ["hidden", "clip"].includes(style.overflowX);
    if (cuts && part.scrollWidth > part.clientWidth + 1) wrong.push(`cut ${name}`);
    if (style.textOverflow === "ellipsis") wrong.push(`ellipsis ${name}`);
    const sides = part.closest(".scroll:not(.fits), pre");
    const box = part.getBoundingClientRect();
    if (!sides && (box.right > innerWidth + 1 || box.left < -1)) wrong.push(`outside ${name}`);
  }
  for (const text of document.querySelectorAll("svg text")) {
    const [own, whole] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
    if (own.width && (own.left < whole.left - 1 || own.right > whole.right + 1)) wrong.push(`svg ${text.textContent}`);
  }
  for (const region of document.querySelectorAll(".fits")) {
    if (region.scrollWidth > region.clientWidth + 1) wrong.push("the table of all methods is wider than its place");
  }
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the window");
  return wrong;
}"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("count", "width"), first_short(3, [(4, 390), (24, 1280), (4, 768), (4, 1280), (24, 390), (24, 768)])
)
def test_long_names_are_whole_at_any_width(written, look, count, width):
    seen = look(written[count], viewport={"width": width, "height": 800})
    seen.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert seen.evaluate(CUT) == []
    shown = seen.locator("body").inner_text()
    for name in (*METHODS, *METRICS[:count]):
        assert name in shown
    figures = "".join(seen.locator(".metric svg").evaluate_all("s => s.map(x => x.textContent)"))
    assert "…" not in figures, "labels of dots are whole"
    assert all(name in figures for name in METHODS)


@pytest.mark.parametrize("count", [4, pytest.param(24, marks=pytest.mark.long)])
def test_everything_is_on_paper_and_nothing_is_wider_than_it(written, look, count):
    seen = look(written[count], viewport={"width": PAPER, "height": 1000})
    seen.emulate_media(media="print")
    assert [each for each in seen.evaluate(CUT) if not each.startswith("svg")] == []
    for hidden in ("nav", ".choose", "#tip", ".scripted"):
        assert not seen.locator(hidden).first.is_visible(), hidden
    beside = seen.locator(".metric .split").evaluate_all(
        "s => s.map(x => [...x.children].map(y => y.getBoundingClientRect()))"
        ".map(([a, b]) => [a.right <= b.left, a.width])"
    )
    assert all(apart and wide > PAPER / 2 for apart, wide in beside), "a curve has its words beside it"
    regions = seen.locator(".scroll").evaluate_all(
        "r => r.filter(x => x.getClientRects().length && x.scrollWidth > x.clientWidth + 1).map(x => x.ariaLabel)"
    )
    assert regions == [], "no column is cut off"
    cells = seen.locator("td[data-verdict]")
    assert cells.evaluate_all("c => c.every(x => x.getClientRects().length)")
    assert seen.pdf(format="A4", prefer_css_page_size=True)[:4] == b"%PDF"


BROKEN = """() => {
  const broken = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const around = text.parentElement;
    if (!around.checkVisibility() || around.closest("svg, script, style, pre")) continue;
    for (const word of text.data.matchAll(/[^\\s_/-]+/g)) {
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      const lines = [...range.getClientRects()].filter(each => each.width > 0);
      if (word[0].length <= 20 && lines.length > 1) broken.push(word[0]);
    }
  }
  return broken;
}"""


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    """A page of forty methods and five metrics."""
    names = ["random", *(f"smooth_grad_{i}_samples_sigma_0.{i}" for i in range(39))]
    metrics = ("robust_accuracy", "random_logit", "efficient_randomisation", "imputation_detectability", "roar")
    found = [
        curve_of(np.full((4, 1), 0.3 + i / 100), name, metric=metric, at=(0.0,), control=name == "random")
        for metric in metrics
        for i, name in enumerate(names)
    ]
    return page.write(tmp_path_factory.mktemp("forty"), found, None, facts(), references=["random"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("width", "media"), first_short(2, [(1280, "screen"), (PAPER, "print"), (390, "screen"), (768, "screen")])
)
def test_a_line_never_breaks_within_a_word(forty, look, width, media):
    seen = look(forty, viewport={"width": width, "height": 800})
    seen.emulate_media(media=media)
    if media == "screen":
        seen.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert seen.evaluate(CUT) == []
    assert seen.evaluate(BROKEN) == []
    seen.evaluate("document.querySelector('#answer h2').style.width = '1ch'")
    assert seen.evaluate(BROKEN) == ["The", "answer"], "words that break are found"


def test_every_colour_of_the_styles_is_defined():
    used = set(re.findall(r"var\((--[\w-]+)\)", CSS)) - {"--share"}  # which each cell gives
    assert used <= set(re.findall(r"(--[\w-]+):", CSS))


def colours(part):
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", part))


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one, other):
    """WCAG 2.2, contrast ratio of two colours."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def blended(one, other, share):
    pairs = ((int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


TEXTS = [(text, ground) for text in ("ink", "soft", "accent", "bad") for ground in ("paper", "card", "note")]
TEXTS += [("paper", "ink")]  # of the tip
TEXTS += [("ink", "good-cell"), ("ink", "bad-cell")]
TEXTS += [(text, ground) for text in ("ink", "soft", "good") for ground in ("good-tint",)]
TEXTS += [(text, ground) for text in ("ink", "soft", "bad") for ground in ("bad-tint",)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(scheme):
    light, dark = CSS.partition("@media (prefers-color-scheme: dark)")[::2]
    named = colours(light) | (colours(dark.partition("\n}")[0]) if scheme == "dark" else {})
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for mixed in ("good", "bad"):  # the colour of a cell of the table of agreement, at its strongest
        named[f"{mixed}-cell"] = blended(named[mixed], named["card"], 0.45)
    low = {(text, ground): round(contrast(named[text], named[ground]), 2) for text, ground in TEXTS}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}
    assert set(re.findall(r"[^-]color: ([^;]+);", CSS)) <= {"inherit", "var(--ink)", "var(--soft)", "var(--accent)"} | {
        "var(--good)",
        "var(--bad)",
        "var(--paper)",
    }, "every text has one of the colours above"


FOCUSED = """() => {
  const part = document.activeElement;
  const box = part.getBoundingClientRect();
  const style = getComputedStyle(part);
  return [part.tagName, part.innerText.trim().slice(0, 60) || part.ariaLabel || part.getAttribute("aria-label") || "",
          box.top + scrollY, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1];
}"""


@pytest.mark.long
def test_every_control_is_reached_by_tab_in_the_order_of_the_page_and_shows_its_focus(written, look):
    seen = look(written[4], viewport={"width": 1280, "height": 800})
    seen.locator(".choose").evaluate("d => d.open = true")
    reached = []
    for _ in range(300):
        seen.keyboard.press("Tab")
        if seen.evaluate("document.activeElement === document.body"):
            break
        reached.append(seen.evaluate(FOCUSED))
    else:
        pytest.fail("the tab key does not leave the page")
    kinds = "a[href], button, input, select, summary, [tabindex='0']"
    whole = seen.locator(kinds).evaluate_all("p => p.filter(x => x.checkVisibility()).length")
    assert len(reached) == whole
    assert all(focus for *_, focus in reached), [each for each in reached if not each[-1]]
    order = [name for tag, name, *_ in reached if tag in ("SUMMARY", "INPUT", "BUTTON", "A")]
    assert order.index("Answer") < order.index("Choose methods and metrics")


def test_the_keyboard_alone_sorts_and_hides(written, look):
    seen = look(written[4], viewport={"width": 1280, "height": 800})
    head = seen.locator('th[data-column="roar"]')
    head.locator("button").focus()
    seen.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    seen.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    seen.locator(".choose summary").focus()
    seen.keyboard.press("Enter")
    first = seen.locator('[data-choose="method"] input').first
    method = first.get_attribute("value")
    first.focus()
    seen.keyboard.press("Space")
    assert not seen.locator(f'tr[data-row="{method}"]').is_visible()
    stops = seen.locator("table.verdict td[tabindex='0']")
    assert stops.count() == 1
    assert stops.is_visible(), "the table can be reached although its first row is hidden"


NAMELESS = """() => {
  const named = (part) => (part.innerText || part.textContent || "").trim() || part.ariaLabel || part.alt
    || (part.labels && part.labels.length) || part.getAttribute("aria-labelledby") || part.id === "tip";
  const parts = document.querySelectorAll("a, button, input, select, summary, [role], [tabindex='0'], svg, img");
  return [...parts].filter((part) => !part.closest("[aria-hidden], dialog") && !named(part))
    .map((part) => part.outerHTML.slice(0, 90));
}"""


def test_every_control_and_picture_has_a_name(written, look):
    assert look(written[4]).evaluate(NAMELESS) == []
