"""The site: every page is in its navigation, every link and anchor leads somewhere, and what it shows can be typed."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import okng
from okng.detectors.cards import cards

yaml = pytest.importorskip("yaml", reason="the site needs '.[docs]'")
pytest.importorskip("fastapi", reason="the page of the REST interface is read off the server")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


@pytest.fixture(scope="module")
def makers() -> Iterator[dict[str, ModuleType]]:
    """The scripts that make pages, imported as mkdocs imports them."""
    pytest.importorskip("mkdocs", reason="the site needs '.[docs]'")
    sys.path.insert(0, str(ROOT / "site_pages"))
    import hooks
    import method_pages
    import reference_pages

    yield {"hooks": hooks, "methods": method_pages, "reference": reference_pages}
    sys.path.pop(0)


@pytest.fixture(scope="module")
def pages(makers: dict[str, ModuleType]) -> dict[str, str]:
    """The text of every page by its address, of methods only two: one of each takes as long as a build."""
    written = {path.relative_to(DOCS).as_posix(): path.read_text() for path in DOCS.rglob("*.md")}
    two = {f"methods/{name}.md": makers["methods"].page(name) for name in ("padim", "cavga_w")}
    taken = {
        address: makers["hooks"].at_home((ROOT / source).read_text(), address)
        for address, source in makers["hooks"].TAKEN.items()
    }
    made = {**makers["reference"].pages(), "methods/index.md": makers["methods"].index(), **two, **taken}
    assert not made.keys() & written.keys()
    return {**written, **made}


def addresses(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for inner in entry.values():
                yield from addresses(inner if isinstance(inner, list) else [inner])


def test_the_navigation_has_every_page_once(makers: dict[str, ModuleType], pages: dict[str, str]) -> None:
    shown = [*addresses(CONFIG["nav"]), *addresses(makers["methods"].nav())]
    assert len(shown) == len(set(shown))
    assert {*shown} == {*pages} | {f"methods/{name}.md" for name in cards()}


def anchors(text: str) -> set[str]:
    """Of a page's headings, as the toc of mkdocs makes them."""
    from markdown.extensions.toc import slugify

    bare = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", bare, re.MULTILINE)
    return {slugify(re.sub(r"\]\([^)]*\)|[`\[\]*]", "", heading), "-") for heading in headings}


def test_every_link_leads_to_a_page_a_file_or_a_heading(pages: dict[str, str]) -> None:
    found, wrong = 0, []
    for address, text in pages.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
            if re.match(r"\w+:", target):
                continue
            found += 1
            file, _, anchor = target.partition("#")
            path = (DOCS / address).parent / file if file else DOCS / address
            name = Path(*path.parts).resolve().relative_to(ROOT).as_posix().removeprefix("docs/")
            known = name in pages or path.resolve().exists() or re.sub(r"methods/(\w+)\.md", r"\1", name) in cards()
            if not known or (anchor and name in pages and anchor not in anchors(pages[name])):
                wrong.append(f"{address}: {target}")
    assert found > 150 and wrong == []


def test_every_page_has_one_title_and_every_picture_words(pages: dict[str, str]) -> None:
    for address, text in pages.items():
        bare = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
        assert len(re.findall(r"^# .", bare, re.MULTILINE)) == 1, address
        for words in [*re.findall(r"!\[([^\]]*)\]", text), *re.findall(r'<img[^>]*alt="([^"]*)"', text)]:
            assert len(words) > 8, f"{address}: a picture of {words!r}"
        assert text.count("<img") == len(re.findall(r"<img[^>]*alt=", text)), address


def test_a_method_has_its_page_for_free(pages: dict[str, str]) -> None:
    padim = pages["methods/padim.md"]
    for said in ("0.953", "`dimensions`", "Deliberately otherwise", "a stream gives what one batch gives", "ms |"):
        assert said in padim
    assert "--ng parts/ng" in pages["methods/cavga_w.md"] and "--ng" not in padim


def test_a_strip_is_small_and_says_its_licence(pages: dict[str, str]) -> None:
    strips = sorted((DOCS / "images" / "methods").glob("*"))
    assert "padim.webp" in [strip.name for strip in strips]
    for strip in strips:
        assert strip.stem in cards() and cards()[strip.stem].localizes and strip.stat().st_size <= 25_000
    assert "(../images/methods/padim.webp)" in pages["methods/padim.md"]
    assert "CC BY-NC-SA" in pages["methods/padim.md"] and "CC BY-NC-SA" not in pages["methods/cavga_w.md"]


def test_the_command_line_is_there_whole(pages: dict[str, str]) -> None:
    import typer

    from okng.cli import app

    for name, verb in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        section = pages["reference/cli.md"].partition(f"## okng {name}\n")[2].partition("\n## ")[0]
        for parameter in verb.params:
            spelt = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.opts[0].upper().rstrip("_")
            assert spelt in section, f"okng {name} {spelt}"


def test_the_file_of_defaults_that_is_shown_is_taken(pages: dict[str, str], tmp_path: Path) -> None:
    import typer

    from okng.cli import app
    from okng.cli.project import defaults

    (shown,) = re.findall(r"^```toml\n(.*?)^```", pages["reference/cli.md"], re.DOTALL | re.MULTILINE)
    (tmp_path / "okng.toml").write_text(shown)
    taken = defaults(tmp_path / "okng.toml", typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert {verb: len(given) for verb, given in taken.items()} == {"train": 3, "inspect": 2}


def test_every_route_names_the_role_that_it_takes(pages: dict[str, str]) -> None:
    rest = pages["reference/rest.md"]
    assert "### POST /api/inspect" in rest and rest.count("### ") > 20
    assert "Role: `admin`" in rest.partition("### GET /api/audit")[2].partition("###")[0]


def snippets(language: str = "python") -> list[tuple[str, str]]:
    """(page, code) of every fenced example of README and docs."""
    return [
        (path.relative_to(ROOT).as_posix(), textwrap.dedent(code))
        for path in [*sorted(ROOT.glob("README*.md")), *sorted(DOCS.rglob("*.md"))]
        for code in re.findall(rf"^ *```{language}\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE)
    ]


def test_every_example_in_python_calls_what_there_is() -> None:
    examples = snippets()
    assert len(examples) > 6
    for page, code in examples:
        for node in ast.walk(ast.parse(code)):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if not isinstance(node, ast.Call) or not re.fullmatch(r"okng\.\w+", name):
                continue
            called = getattr(okng, name.removeprefix("okng."))
            try:
                inspect.signature(called).bind(*node.args, **{key.arg or "": None for key in node.keywords})
            except TypeError as error:
                pytest.fail(f"{page}: {ast.unparse(node)}: {error}")


def test_links_out_of_the_docs_lead_to_the_repository(makers: dict[str, ModuleType]) -> None:
    hooks = makers["hooks"]
    assert hooks.outwards("[a](../results/x.csv)", "serve.md") == f"[a]({hooks.CODE}results/x.csv)"
    assert hooks.outwards("[a](../serve.md)", "guides/line.md") == "[a](../serve.md)"
    assert hooks.outwards("[a](../../results)", "guides/line.md") == f"[a]({hooks.CODE}results)"
    assert hooks.at_home("[a](docs/serve.md#x) [b](#c)", "guides/y.md") == "[a](../serve.md#x) [b](#c)"
    assert hooks.at_home("[a](CHANGELOG.md)", "security.md") == "[a](changelog.md)"
