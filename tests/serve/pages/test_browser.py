"""The pages in a real browser: what they do, in both languages, at a phone's width, without a fault of access."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from servers import Server, encoded, serving, wait_for
from tests.contract.conftest import pictures

from okng.serve.pages.estimates import Stratum, rates
from okng.serve.pages.words import words
from okng.store import Store
from okng.store.records import Filter

if TYPE_CHECKING:
    from servers import Shop

PAGES = ("live", "review", "review?view=group", "learn", "threshold", "rules", "drift", "results", "results/1")
OK, NG = 36, 12  # images that are inspected


@pytest.fixture(scope="module")
def line(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has inspected OK images, some of them called NG, and NG ones."""
    folder = tmp_path_factory.mktemp("line")
    store = Store.open(folder / "okng.sqlite")
    with serving(store, {"parts": shop.okng}, folder / "models", keep="all", folders=(shop.images,)) as running:
        for i, pixels in enumerate([*pictures(OK, seed=5), *pictures(NG, seed=6, defect=True)]):
            inspected(running, np.asarray(pixels), f"{'ok' if i < OK else 'ng'}-{i}.png")
        yield running
    store.close()


class Window:
    """A browser's window on the server; what goes wrong in it fails the test."""

    def __init__(self, browser: Any, line: Server, **how: Any):
        self.context = browser.new_context(base_url=line.url, **{"locale": "en-GB", **how})
        self.context.set_default_timeout(10_000)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", lambda one: None if one.url.startswith(line.url) else self.faults.append(one.url))

    def _heard(self, said: Any) -> None:
        expected = ("ERR_FAILED", "400 (Bad Request)")  # what a test broke, and forms that it filled in wrongly
        if said.type == "error" and not any(one in said.text for one in expected):
            self.faults.append(said.text)

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.context.close()
        assert kind is not None or self.faults == []


@pytest.fixture
def page(browser: Any, line: Server) -> Iterator[Any]:
    """A window of a desk's size, and afterwards a line without reviews, at its first version."""
    try:
        with Window(browser, line) as shown:
            yield shown
    finally:
        while last := line.store.reviews.last("local user"):
            line.store.reviews.undo(last, "local user")
        line.parts.shelf.take("parts", 1, "test", "after a test")


def inspected(line: Server, pixels: np.ndarray, name: str) -> int:
    answer = line.client.post("/api/inspect", files={"image": (name, encoded(pixels))})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


def truth(record: Any) -> str:
    return str(record.path[:2]).upper()


def said_of(line: Server, record: int) -> str | None:
    found = line.store.records.get(record)
    assert found is not None
    return found.review


def false_alarms(line: Server) -> list[int]:
    """Of the OK images those that are called NG; there are some, as is promised."""
    found = [record.id for record in line.store.records.each(Filter(verdict="NG")) if truth(record) == "OK"]
    assert len(found) >= 3
    return found


def test_one_key_for_each_answer_the_oddest_first_and_undo(page: Any, line: Server) -> None:
    order = [record.id for record in line.store.records.page(Filter(), "oddest", 4)[0]]
    page.goto("/review")
    for key, record, answer in zip("ond", order, ("OK", "NG", "unknown"), strict=False):
        assert page.locator("#answer input[name=image]").input_value() == str(record)
        with page.expect_navigation():
            page.keyboard.press(key)
        assert said_of(line, record) == answer
    assert str(order[2]) in page.get_by_role("status").first.inner_text()
    with page.expect_navigation():
        page.keyboard.press("u")
    assert [said_of(line, record) for record in order] == ["OK", "NG", None, None]
    with page.expect_navigation():  # a Korean keyboard writes ㅐ where O is
        page.evaluate(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'ㅐ', code: 'KeyO', bubbles: true}))"
        )
    assert said_of(line, order[2]) == "OK"
    page.locator("details summary").click()
    page.get_by_label("Images to look at").press("n")  # a letter in a field is no answer
    assert page.locator("#answer input[name=image]").input_value() == str(order[3])
    page.goto("/review?order=border")
    nearest = line.store.records.page(Filter(review="none"), "borderline", 1)[0][0]
    assert page.locator("#answer input[name=image]").input_value() == str(nearest.id)


def test_a_group_is_answered_at_once_and_taken_back_at_once(page: Any, line: Server) -> None:
    page.goto("/review?view=group")
    shown = [int(one.input_value()) for one in page.locator("input[name=image]").all()]
    assert len(shown) == 12
    page.locator(f"input[name=answer-{shown[1]}][value=unsure]").check()
    page.locator(f"input[name=answer-{shown[2]}][value=ok]").check()
    page.get_by_role("button", name="All others are NG").click()
    page.wait_for_url("**said=review.saved_group**")
    assert [said_of(line, one) for one in shown[:4]] == ["NG", "unknown", "OK", "NG"]
    page.get_by_role("button", name="Undo").click()
    page.wait_for_url("**said=review.undone**")
    assert {said_of(line, one) for one in shown} == {None}


def test_a_random_sample_gives_rates_that_what_was_looked_at_for_being_odd_does_not_move(
    page: Any, line: Server
) -> None:
    for record in line.store.records.page(Filter(), "oddest", 5)[0]:
        line.store.reviews.add([record.id], truth(record), "local user")
    page.goto("/review?order=sample")
    assert "tell no rate" in page.locator("#rates").inner_text()
    page.get_by_label("Images to look at").fill("12")
    page.get_by_role("button", name="Draw a random sample").click()
    page.wait_for_url("**order=sample**")
    sample = line.store.samples.last("parts", 1)
    assert sample is not None and len(sample.drawn["NG"]) == len(sample.drawn["OK"]) == 6
    while page.locator("#answer input[name=image]").count():
        record = line.store.records.get(int(page.locator("#answer input[name=image]").input_value()))
        assert record is not None
        with page.expect_navigation():
            page.keyboard.press({"OK": "o", "NG": "n"}[truth(record)])
    wrong = {
        verdict: sum(truth(one) != verdict for one in line.store.records.several(ids).values())
        for verdict, ids in sample.drawn.items()
    }
    expected = rates(*(Stratum(sample.totals[one], 6, wrong[one], 0) for one in ("NG", "OK")))
    tile = page.locator(".tile.rate").first.inner_text()
    assert expected.false_alarms.share is not None and f"{expected.false_alarms.share:.1%}" in tile
    assert f"{expected.false_alarms.low:.1%}" in tile and f"{expected.false_alarms.high:.1%}" in tile


def test_learn_false_alarms_compare_take_and_go_back(page: Any, line: Server) -> None:
    chosen = false_alarms(line)[:3]
    line.store.reviews.add(chosen, "OK", "local user")
    found = [record.id for record in line.store.records.each(Filter(verdict="NG")) if truth(record) == "NG"]
    line.store.reviews.add(found[:4], "NG", "local user")
    page.goto("/learn")
    for record in chosen[:2]:
        page.get_by_label(f"Learn image {record}", exact=True).check()
    assert "2" in page.locator("#chosen-count").inner_text()
    page.get_by_role("button", name="Learn the chosen images").click()
    page.get_by_role("progressbar").wait_for()
    page.get_by_role("button", name=re.compile("^Take version")).wait_for(timeout=240_000)
    versions = line.store.models.versions("parts")
    new = versions[-1].version
    assert line.store.models.active("parts") == 1  # nothing has changed yet
    told = line.parts.workshop.comparison("parts", new, 1)
    assert told is not None and told["images"] == 7
    rows = page.locator("table.compared tbody tr")
    assert rows.nth(1).locator("td").first.inner_text() == "2"  # learnt: both were false alarms
    assert rows.nth(0).locator("td").first.inner_text() == "1"  # the other one
    page.get_by_role("button", name=f"Take version {new}").click()
    page.wait_for_url("**said=learn.taken**")
    assert line.store.models.active("parts") == new
    page.get_by_role("button", name="Use this version: version 1").click()
    page.wait_for_url("**n=1")
    assert line.store.models.active("parts") == 1
    assert page.get_by_text("already learnt").count() == 2


def test_the_threshold_is_moved_by_key_and_by_mouse_and_says_what_would_change(page: Any, line: Server) -> None:
    wrong = false_alarms(line)
    line.store.reviews.add(wrong, "OK", "local user")
    calibration = line.parts.shelf.get("parts").inspector.calibration
    page.goto("/threshold")
    slider = page.get_by_role("slider", name="Threshold")
    before = page.locator("#promise").inner_text()
    row = page.locator("#effects tbody tr").first.locator("td")
    assert [row.nth(i).inner_text() for i in (0, 1)] == [f"{len(wrong)} / {len(wrong)}"] * 2
    slider.focus()
    page.keyboard.press("End")
    assert row.nth(1).inner_text() == f"0 / {len(wrong)}"
    page.wait_for_function("text => document.getElementById('promise').textContent !== text", arg=before)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    value = float(slider.get_attribute("aria-valuenow"))
    assert float(slider.get_attribute("aria-valuemin")) < value < calibration.threshold
    called = page.locator("#effects tbody tr").nth(2).locator("td").nth(1).inner_text()
    scores = [record.score for record in line.store.records.each()]
    assert called == f"{sum(score > value for score in scores)} / {len(scores)}"
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 150, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert float(slider.get_attribute("aria-valuenow")) > value
    value = float(page.get_by_label("Threshold", exact=True).last.input_value())
    page.get_by_role("button", name="Use this threshold").first.click()
    page.wait_for_url("**said=threshold.saved**")
    now = line.parts.shelf.get("parts").inspector.calibration
    assert now.basis == "manual" and now.threshold == pytest.approx(value)
    assert "Nothing more is promised" in page.locator(".promise").first.inner_text()
    assert page.locator("#effects tbody tr").nth(2).locator("td").first.inner_text().endswith(f"/ {len(scores)}")
    page.get_by_label("Or the false-alarm rate").fill("20")
    page.get_by_role("button", name="Use this threshold").last.click()
    page.wait_for_url("**said=threshold.saved**")
    assert line.parts.shelf.get("parts").inspector.calibration.false_alarm_rate == pytest.approx(0.2)


def test_zones_are_drawn_and_edited_as_numbers_and_rules_beside_them(page: Any, line: Server) -> None:
    page.set_viewport_size({"width": 1280, "height": 1500})
    page.goto("/rules")
    page.get_by_role("button", name="Draw: ignore here").click()
    box = page.locator("#canvas svg").bounding_box()
    for x, y in ((0.1, 0.1), (0.5, 0.1), (0.5, 0.6), (0.1, 0.1)):  # the last one closes it
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    assert page.locator("#zones fieldset").count() == 1
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.6 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.7 * box["height"], steps=3)
    page.mouse.up()
    page.get_by_label("Zone 1, corner 1: x in percent").fill("20")
    page.locator("#zones [data-of=name]").fill("Label")
    page.get_by_role("button", name="Add a rule").click()
    page.locator("#list [data-of=name]").fill("Large")
    page.locator("#list [data-of=zone]").select_option("Label")
    page.locator("#list [data-of=min_area]").fill("30")
    page.get_by_role("button", name="What would change?").click()
    page.get_by_text("verdicts that change").wait_for()
    page.get_by_role("button", name="Save as a new version").click()
    page.wait_for_url("**said=rules.saved**")
    kept = line.parts.shelf.get("parts").inspector.rules
    assert [(zone.name, zone.kind) for zone in kept.zones] == [("Label", "ignore")]
    assert np.allclose(kept.zones[0].points, [(0.2, 0.1), (0.5, 0.1), (0.4, 0.7)], atol=0.02)
    assert [(rule.name, rule.verdict, rule.min_area, rule.zone) for rule in kept.rules] == [
        ("Large", "NG", 30, "Label")
    ]
    page.locator("#zones summary").click()
    for corner in (1, 2, 3):  # by keyboard alone, and onto one line
        page.get_by_label(f"Label, corner {corner}: y in percent").fill("10")
    page.get_by_role("button", name="Save as a new version").click()
    assert "no area" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Label, corner 3: y in percent").input_value() == "10"  # what was drawn is still there


def test_zones_are_drawn_with_a_finger(browser: Any, line: Server) -> None:
    with Window(browser, line, has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740}) as phone:
        phone.goto("/rules")
        phone.get_by_role("button", name="Draw: inspect here").tap()
        canvas = phone.locator("#canvas")
        canvas.scroll_into_view_if_needed()
        size = canvas.bounding_box()
        for x, y in ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8)):
            canvas.tap(position={"x": x * size["width"], "y": y * size["height"]})
        phone.get_by_role("button", name="Close the zone").tap()
        assert phone.locator("#zones fieldset").count() == 1


def test_live_shows_what_comes_and_survives_that_the_server_is_away(page: Any, line: Server) -> None:
    page.goto("/live")
    page.route("**/live/now*", lambda route: route.abort())
    page.get_by_text("No connection to the server").wait_for()
    number = inspected(line, np.asarray(pictures(1, seed=9)[0]), "ok-new.png")
    page.unroute("**/live/now*")
    page.get_by_text("ok-new.png").first.wait_for()
    assert page.locator("#connection").inner_text() == ""
    assert page.locator(f"img[src^='/pictures/{number}/heat?']").evaluate("image => image.naturalWidth") > 0
    assert page.locator(".tile b").first.inner_text() == str(line.count())


@pytest.fixture
def quiet_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a refused request is the point: the browser's console tells of it."""
    monkeypatch.setattr(Window, "__exit__", lambda self, *_: self.context.close())


def test_the_language_is_the_browsers_until_another_is_chosen(browser: Any, line: Server) -> None:
    with Window(browser, line, locale="ko-KR") as window:
        window.goto("/learn")
        assert window.locator("h1").inner_text() == words("ko")["learn.title"]
        window.get_by_role("link", name="English").click()
        assert window.locator("h1").inner_text() == "Learn"
        window.goto("/threshold")  # it is remembered
        assert window.locator("html").get_attribute("lang") == "en"
        assert window.locator("h1").inner_text() == "Threshold"


@pytest.mark.parametrize(("look", "language"), [("desk", "ko"), ("phone", "en")])
def test_every_page_is_for_everybody(browser: Any, line: Server, axe: str, look: str, language: str) -> None:
    """axe finds no fault at a desk in the light nor on a phone in the dark, where nothing is wider than the screen."""
    line.store.reviews.add(false_alarms(line)[:2], "OK", "axe")
    line.store.samples.draw(Filter(model="parts"), 1, 10, "axe")
    how: dict[str, Any] = {"locale": language, "color_scheme": "light", "viewport": {"width": 1280, "height": 900}}
    if look == "phone":
        how |= {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    with Window(browser, line, **how) as window:
        for name in (*PAGES, "login"):
            window.goto(f"/{name}")
            assert window.locator("html").get_attribute("lang") == language
            if name == "rules":
                window.locator("#box").click()
                window.locator("#add-rule").click()
            assert not re.search(r"\{\w+\}", window.locator("body").inner_text()), name
            window.evaluate(axe)
            found = window.evaluate("axe.run({resultTypes: ['violations']})")
            faults = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
            assert faults == [], (name, json.dumps(faults, indent=1))
            if look == "phone":
                assert window.evaluate("document.documentElement.scrollWidth") <= 360, name
                window.goto(f"/{name}{'&' if '?' in name else '?'}lang=ko")
                assert window.evaluate("document.documentElement.scrollWidth") <= 360, f"{name} in Korean"
                window.context.clear_cookies()
    line.store.reviews.undo(line.store.reviews.last("axe"), "axe")


def test_who_is_not_signed_in_sees_the_way_in_alone(
    browser: Any, shop: Shop, tmp_path: Path, quiet_faults: None
) -> None:
    store = Store.open(tmp_path / "okng.sqlite")
    tokens = {role: store.accounts.add(role, role, "test") for role in ("review", "admin")}
    with serving(store, {"parts": shop.onnx}, tmp_path / "models") as server:
        with Window(browser, server) as window:
            window.goto("/threshold")
            assert "/login" in window.url and "parts" not in window.content()
            window.get_by_label("Token").fill("okng_wrong")
            window.get_by_role("button", name="Sign in").click()
            assert "not known" in window.get_by_role("alert").inner_text()
            window.get_by_label("Token").fill(tokens["review"])
            window.get_by_role("button", name="Sign in").click()
            window.wait_for_url("**/threshold")
            assert window.get_by_role("button", name="Use this threshold").first.is_disabled()
            cookies = {one["name"]: one["value"] for one in window.context.cookies()}
            window.get_by_role("button", name="Sign out").click()
            window.wait_for_url("**/login")
            window.goto("/live")
            assert "/login" in window.url
        with httpx.Client(base_url=server.url) as client:
            gone = client.get("/live", cookies=cookies, headers={"Accept": "application/json"})
            assert gone.status_code in (200, 401)  # remembered for a second at most
            signed = client.post("/login", data={"token": tokens["admin"], "next": "//evil.example/"})
            assert signed.status_code == 303 and signed.headers["location"] == "/live"
            refused = client.post("/threshold", data={"threshold": "1"})  # with the cookie, without the page's token
            assert refused.status_code == 403 and store.models.active("parts") == 1
            assert client.get("/rules").status_code == 200
        wait_for(lambda: httpx.get(f"{server.url}/live", cookies=cookies).status_code != 200, 5)
    store.close()


def test_a_record_says_why_it_is_ng(line: Server) -> None:
    record = next(iter(line.store.records.each(Filter(verdict="NG"))))
    (why,) = record.details["reasons"]
    for language, said in (
        ("en", f"<p>{why}.</p>"),
        ("ko", f"<p>점수 {why.split()[1]}, 임계값 {why.split()[-1]} 초과.</p>"),
    ):
        html = line.client.get(
            f"/results/{record.id}", headers={"Accept": "text/html", "Accept-Language": language}
        ).text
        assert said in html


def test_a_mistake_in_an_address_is_a_page_with_a_line(page: Any, line: Server) -> None:
    answer = line.client.get("/results/999999", headers={"Accept": "text/html"})
    assert answer.status_code == 404 and "no record 999999" in answer.text and "<h1>" in answer.text
    assert line.client.get("/results/999999").headers["content-type"] == "application/json"
    korean = {"Accept": "text/html", "Accept-Language": "ko"}
    assert "기록 999999이(가) 없습니다." in line.client.get("/results/999999", headers=korean).text
    assert "/nowhere에는 아무것도 없습니다." in line.client.get("/nowhere", headers=korean).text
    refused = line.client.delete("/threshold", headers=korean)
    assert (
        refused.status_code == 405 and "주소 /threshold은(는) GET, POST만 받습니다. 보낸 방식: DELETE" in refused.text
    )
    long = line.client.get("/live?model=" + "%20takes%20,%20not%20" * 500, headers=korean)
    assert long.status_code == 404 and long.elapsed.total_seconds() < 2
    answer = line.client.get("/live?model=<b>", headers={"Accept": "text/html"})
    assert answer.status_code == 404 and "<b>" not in answer.text
    assert line.client.get("/static/../words.py").status_code == 404
    assert "alert(1)" not in line.client.get("/review?said=review.saved&id=<script>alert(1)</script>&answer=ok").text


def test_a_thousand_images_an_hour_are_thinned_not_dropped_when_ng(line: Server) -> None:
    from okng.serve.pages.views import MARKS, hour

    calibration = line.parts.shelf.get("parts").inspector.calibration
    now = time.time()
    rows = [
        (i, now - i, calibration.threshold + (1 if i % 20 == 0 else -0.1), 0.5, "NG" if i % 20 == 0 else "OK")
        for i in range(3000)
    ]
    shown = hour(rows, calibration, now)
    assert shown.total == 3000 and shown.ng == 150 and len(shown.points) == MARKS
    assert sum(ng for _, _, ng in shown.points) == 150
    assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y, _ in shown.points)
