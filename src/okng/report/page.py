"""From a template to a self-contained HTML page."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from okng.inspection.inspector import Inspector
from okng.inspection.overlay import HEAT
from okng.report.language import line_of, translator, words
from okng.report.promise import promise
from okng.report.settings import asked, method, metric, number, share
from okng.report.sizes import from_size


def page(template: str, title: str, inspector: Inspector | None, language: str = "en", **content: Any) -> bytes:
    """The page that `template`, a file of templates/, makes of `content` and what all pages say of a model, if any.

    The catalogue's words may have marks of HTML; what is filled into them is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    t, known = translator(language), words(language)

    environment = Environment(
        loader=PackageLoader("okng.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, share=share, asked=asked, metric=metric, capital=capital)
    environment.filters["from_size"] = partial(from_size, t=t)
    environment.filters["reason"] = lambda line: line_of("reason", line, t)
    environment.globals["t"] = lambda key, **figures: Markup(known[key]).format(**figures)
    environment.globals["spoken"] = {key: said for key, said in known.items() if key.startswith("table.")}
    common = {
        "language": language,
        "title": title,
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "method": "" if inspector is None else method(inspector),
        "calibration": None if inspector is None else inspector.calibration,
        "promise": "" if inspector is None else inspector.promise() if language == "en" else promise(inspector, t),
        "heat_colours": HEAT,
    }
    html = environment.get_template(template).render(**common, **content)
    return html.encode("utf-8", "replace")  # file names need not be valid Unicode


def capital(text: str) -> str:
    """`text` with a capital first."""
    return text[:1].upper() + text[1:]
