"""From a template to a self-contained HTML page."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from okng.inspection.inspector import Inspector
from okng.inspection.overlay import HEAT
from okng.report.settings import asked, method, metric, number, share


def page(template: str, title: str, inspector: Inspector | None, **content: Any) -> bytes:
    """The page that `template`, a file of templates/, makes of `content` and what all pages say of a model, if any."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("okng.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, share=share, asked=asked, metric=metric)
    common = {
        "title": title,
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "method": "" if inspector is None else method(inspector),
        "calibration": None if inspector is None else inspector.calibration,
        "promise": "" if inspector is None else inspector.promise(),
        "heat_colours": HEAT,
    }
    html = environment.get_template(template).render(**common, **content)
    return html.encode("utf-8", "replace")  # file names need not be valid Unicode
