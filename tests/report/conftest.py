"""Pages in Chromium, without a network. No script may fail, and no page may ask for anything that is not beside it."""

import pytest


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(browser):
    """A function that opens a page with options of the browser, such as its viewport."""
    contexts, wrong = [], []

    def look(path, **options):
        contexts.append(browser.new_context(offline=True, **options))
        seen = contexts[-1].new_page()
        seen.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        seen.on("pageerror", lambda error: wrong.append(str(error)))
        seen.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
        seen.goto(path.as_uri())
        return seen

    yield look
    for context in contexts:
        context.close()
    assert wrong == []


look = pytest.fixture(opened)
look_for_long = pytest.fixture(opened, scope="module")
