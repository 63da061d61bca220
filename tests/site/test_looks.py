"""The built site in Chromium, from a folder: at a desk and on a phone, in the light and in the dark, by keys alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.site.conftest import DESK, PHONE, faults

ROOT = Path(__file__).parents[2]
PAGES = (
    "index", "start", "walk", "guides/first-inspection", "methods/index", "methods/padim", "benchmarks",
    "reference/cli", "ko/start",
)  # fmt: skip
# What the keyboard should come to, and whether a person sees where it is.
REACHABLE = """() => [...document.querySelectorAll("a[href], button, input, textarea, [tabindex='0']")].filter(
  (one) => one.tabIndex >= 0 && !one.disabled && one.type !== "hidden" && one.getClientRects().length
    && one.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && one.type !== "radio"
).map((one, i) => one.dataset.reach = String(i))"""
FOCUSED = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const seen = (style.outlineStyle !== "none" && style.outlineWidth !== "0px") || one.matches("input");
  return [one.dataset.reach ?? "", seen, one.outerHTML.slice(0, 120)];
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as `make docs` builds it."""
    pytest.importorskip("material", reason="the site needs '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder]
    told = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=told, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def shown(browser: Any, page: Path, **how: Any) -> Iterator[Any]:
    """A window on a page; an error in it, or a request to elsewhere, fails the test."""
    context, errors = browser.new_context(**how), []
    window = context.new_page()
    window.on("pageerror", lambda error: errors.append(str(error)))
    window.on(
        "request", lambda one: None if one.url.startswith(("file:", "data:", "blob:")) else errors.append(one.url)
    )
    window.goto(page.as_uri())
    yield window
    context.close()
    assert errors == [], page


@pytest.mark.slow
def test_it_is_built_strictly_and_reads_nothing_from_elsewhere(site: Path) -> None:
    loaded = [
        (page.name, address)
        for page in site.rglob("*.html")
        for address in re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]*)"', page.read_text())
        if "canonical" not in address
    ]
    assert loaded == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("look", [DESK, PHONE], ids=["desk", "phone"])
def test_it_is_for_everybody(browser: Any, site: Path, axe: str, look: dict[str, Any], scheme: str) -> None:
    """Contrast, alt texts, names and language by axe; a title of its own; no page wider than the screen."""
    titles = set()
    for name in PAGES:
        with shown(browser, site / f"{name}.html", color_scheme=scheme, **look) as window:
            titles.add(window.title())
            assert window.locator("html").get_attribute("lang") == ("ko" if name.startswith("ko/") else "en")
            assert faults(window, axe) == [], name
    assert len(titles) == len(PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["start", "methods/padim"])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Any, site: Path, name: str) -> None:
    with shown(browser, site / f"{name}.html", **DESK) as window:
        missing = set(window.evaluate(REACHABLE))
        assert len(missing) > 20
        for _ in range(2 * len(missing)):
            window.keyboard.press("Tab")
            reached, seen, what = window.evaluate(FOCUSED)
            if not missing or (reached and reached not in missing):
                break
            assert seen or not reached, what
            missing.discard(reached)
        left = [window.locator(f"[data-reach='{one}']").evaluate("(one) => one.outerHTML") for one in missing]
        assert left == []
