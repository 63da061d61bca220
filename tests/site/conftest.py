"""What every page that is shown to people keeps."""

from __future__ import annotations

from typing import Any

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 375, "height": 740}}
# What WCAG 2.1 asks at the levels A and AA, and that a dialog has a name.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "rules": {"aria-dialog-name": {"enabled": True}}}


def faults(window: Any, axe: str) -> list[tuple[str, list[str]]]:
    """What axe finds on a page, contrast and alt texts among it, and whether the page is wider than the screen."""
    window.evaluate(axe)
    found = window.evaluate("(rules) => axe.run(rules)", RULES)["violations"]
    wide = window.evaluate("document.documentElement.scrollWidth > innerWidth")
    told = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]
    return [*told, *([("wider than the screen", [])] if wide else [])]
