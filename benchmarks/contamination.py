"""How much it costs that NG images are learnt as OK, when nobody has looked: six methods, five shares.

    python benchmarks/contamination.py DATA [--methods NAME …] [--device cuda] [--rows FILE]

DATA holds fashion-mnist/. Learnt are all training images of a class and, mixed among them without a label, images of
the nine others, drawn by the seed, until they are the stated share; judged is the whole test set. Arguments are those
for small images on a CPU, and no method is told the share. Rows of results/contamination.csv that stand there by the
present code and arguments are not measured again. Draws docs/contamination.svg, unless the rows go to another FILE.
"""

from __future__ import annotations

import argparse
import html
from pathlib import Path

import numpy as np
from measure import FIELDS, RESULTS, row
from one_class import Images, arrays, learnt, settings

from okng.benchmark.code import is_older
from okng.benchmark.reproduce import machine
from okng.benchmark.rows import read_rows, write_rows
from okng.detectors.cards import cards
from okng.metrics import auroc

PATH = RESULTS / "contamination.csv"
COLUMNS = (*FIELDS, "class", "share")
METHODS = ("ocsvm", "isolation_forest", "kde", "knn", "deep_svdd", "ssl_ad")
CLASSES = ("0",)
SHARES = (0.0, 0.01, 0.05, 0.1, 0.2)
PROTOCOL = "one-vs-rest on the native split, NG images hidden in training"
DRAWING = RESULTS.parent / "docs" / "contamination.svg"
INK, PALE, RULE = "#1f2937", "#6b7280", "#e5e7eb"
COLOURS = ("#b45309", "#1d4ed8", "#047857", "#be185d", "#6d28d9", "#0f172a")
LEFT, TOP, WIDTH, HEIGHT = 60, 70, 460, 300  # pixels: the corner and the sides of the plot
LOWEST = 0.6  # AUROC at its lower edge, below all that was measured


def measured(method: str, train: Images, test: Images, kind: str, share: float, seed: int, device: str) -> dict:
    """One fit of the class `kind` with that share of others, and the whole test set."""
    ok, others = train[0][train[1] == kind], train[0][train[1] != kind]
    count = round(len(ok) * share / (1 - share))
    drawn = np.random.default_rng(seed).permutation(len(others))[:count]  # a larger share holds the smaller ones
    scores, seconds = learnt(method, settings(method), [*ok, *others[drawn]], [], test[0], seed, device)
    on = f" --device {device}" * (device != "cpu")
    more = {
        "arguments": settings(method), "seed": seed, "seconds": f"{seconds:.1f}", "class": kind, "share": share,
        "machine": machine(device), "command": f"python benchmarks/contamination.py DATA --methods {method}{on}",
    }  # fmt: skip
    place = (f"contamination {method}", method, f"Fashion-MNIST {kind}", f"{PROTOCOL}: {share:.0%}")
    return row(*place, "image_auroc", auroc(test[1] != kind, scores), **more)


def main() -> None:
    """Measure what is missing, and print the means over classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=Path, default=PATH)
    asked = parser.parse_args()
    train, test = arrays(asked.data.expanduser() / "fashion-mnist")
    for method, kind, share in [(m, k, s) for m in asked.methods for k in CLASSES for s in SHARES]:
        rows = read_rows(asked.rows)
        place = (method, kind, str(share))
        own = [r for r in rows if (r["detector"], r["class"], r["share"]) == place]
        if own and not any(is_older(r) or r["arguments"] != str(settings(method)) for r in own):
            continue
        new = measured(method, train, test, kind, share, 0, asked.device)
        write_rows(asked.rows, COLUMNS, [*(r for r in read_rows(asked.rows) if r not in own), new])
        print(*place, new["value"], f"{new['seconds']} s", flush=True)
    means = by_method(read_rows(asked.rows))
    for method, each in means.items():
        print(method, *(f"{each[share]:.3f}" if share in each else "–" for share in SHARES))
    if asked.rows == PATH:
        DRAWING.write_text(draw(means), encoding="utf-8")


def by_method(rows: list[dict[str, str]]) -> dict[str, dict[float, float]]:
    """The mean over the classes, of each method and share that has them all."""
    found: dict[str, dict[float, list[float]]] = {}
    for one in rows:
        found.setdefault(one["detector"], {}).setdefault(float(one["share"]), []).append(float(one["value"]))
    whole = {m: {s: v for s, v in each.items() if len(v) == len(CLASSES)} for m, each in found.items()}
    return {m: {s: float(np.mean(v)) for s, v in sorted(each.items())} for m, each in whole.items()}


def draw(means: dict[str, dict[float, float]]) -> str:
    """A line for each method: AUROC over the share of NG images among those learnt as OK."""

    def at(share: float, value: float) -> tuple[float, float]:
        x = LEFT + WIDTH * share / SHARES[-1]
        return round(x, 1), round(TOP + HEIGHT * (1 - (value - LOWEST) / (1 - LOWEST)), 1)

    names = {name: card.title for name, card in cards().items()}
    high, wide = TOP + HEIGHT + 50, LEFT + WIDTH + 230
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{wide}" height="{high}" fill="white"/>',
        '<text x="16" y="26" font-size="15">What it costs that NG images are learnt as OK</text>',
        f'<text x="16" y="46" fill="{PALE}">Fashion-MNIST, class {", ".join(map(str, CLASSES))} against the rest: '
        "image AUROC</text>",
    ]
    for value in np.arange(LOWEST, 1.01, 0.1):
        x, y = at(0, float(value))
        parts.append(f'<line x1="{x}" y1="{y}" x2="{LEFT + WIDTH}" y2="{y}" stroke="{RULE}"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" fill="{PALE}" text-anchor="end">{value:.1f}</text>')
    for share in SHARES:
        x, y = at(share, LOWEST)
        parts.append(f'<text x="{x}" y="{y + 18}" fill="{PALE}" text-anchor="middle">{share:.0%}</text>')
    parts.append(f'<text x="{LEFT}" y="{high - 10}" fill="{PALE}">share of NG images among those learnt</text>')
    lines = sorted(means.items(), key=lambda item: -next(reversed(item[1].values()), 0.0))
    below = 0.0
    for colour, (method, each) in zip(COLOURS, lines, strict=False):
        points = [at(share, value) for share, value in each.items()]
        if not points:
            continue
        path = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in points]
        below = max(points[-1][1] + 4, below + 15)  # names keep apart
        parts.append(f'<text x="{LEFT + WIDTH + 10}" y="{below}" fill="{colour}">{html.escape(names[method])}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
