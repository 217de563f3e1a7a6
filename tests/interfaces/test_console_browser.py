"""The console in a real browser: live, by keyboard, in the dark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.interfaces.browser import chromium, listening, visiting
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.rest import new_token
from tests.world import World

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def address(world: World) -> Iterator[str]:
    with listening(world) as address:
        yield address


def test_one_request_from_asked_to_returned(
    world: World, run: Run, browser: Browser, address: str
) -> None:
    """Nobody loads a page again: what happens comes by itself."""
    token = new_token(run, "operator")
    with visiting(browser, address) as visit:
        visit.log_in(token)
        page = visit.page
        expect(page.locator("#live")).to_have_text("Live.")
        expect(page.locator("#living")).to_have_text("0")
        request_id = world.request(2)
        expect(page.locator("#open")).to_contain_text(request_id)
        expect(page.get_by_role("status")).to_contain_text("requests open: 1")

        page.get_by_role("link", name=request_id).click()
        expect(page.locator("#state")).to_have_text("open")
        expect(page.get_by_role("button", name="Cancel the request")).to_be_visible()
        expect(page.locator("#live")).to_have_text("Live.")
        world.start_worker()
        world.run_until_final(request_id)
        expect(page.locator("#state")).to_have_text("fulfilled")
        expect(page.get_by_role("button", name="Cancel the request")).to_have_count(0)
        expect(page.locator("#story")).to_contain_text("LaunchAccepted")
        boxes = page.get_by_role("checkbox")
        expect(boxes).to_have_count(2)
        for number in range(2):
            boxes.nth(number).focus()
            page.keyboard.press("Space")
        page.locator("#return-reason").fill("run ended")
        page.keyboard.press("Enter")

        expect(page.get_by_role("heading", level=1)).to_contain_text("Return ret-")
        expect(page.locator("#story")).to_contain_text("run ended")
        return_id = page.url.rpartition("/")[2]
        expect(page.locator("#live")).to_have_text("Live.")
        done = world.run(300, lambda: world.live() == set())
        assert done
        world.run(60)
        expect(page.locator("#state")).to_have_text("completed")
        page.get_by_role("link", name="Fleet", exact=True).click()
        expect(page.locator("#final")).to_contain_text(return_id)
        expect(page.locator("#living")).to_have_text("0")
        assert visit.complaints == []


def test_the_slider_by_keyboard(world: World, run: Run, browser: Browser, address: str) -> None:
    """Arrows, ends and step buttons, each told and kept in the address."""
    token = new_token(run, "viewer")
    _, machine_ids = fulfilled(world, 2)
    ((last,),) = world.query("SELECT max(position) FROM events")
    ((launched,),) = world.query("SELECT max(position) FROM events WHERE topic = 'MachineLaunched'")
    with visiting(browser, address) as visit:
        visit.log_in(token)
        page = visit.page
        page.get_by_role("link", name="Time", exact=True).click()
        slider = page.get_by_role("slider")
        expect(slider).to_have_value(str(last))
        expect(page.locator("#living")).to_have_text("2")
        while page.evaluate("document.activeElement.id") != "moment":
            page.keyboard.press("Tab")
        assert _outline(page) != "none"
        page.keyboard.press("Home")
        _shows(page, 1, 0)
        page.keyboard.press("End")
        _shows(page, last, 2)
        for _ in range(last - launched):
            page.keyboard.press("ArrowLeft")
        _shows(page, launched, 2)
        expect(page.locator("#then")).to_contain_text("MachineLaunched of machine-")
        page.keyboard.press("ArrowLeft")
        _shows(page, launched - 1, 1)

        page.get_by_role("button", name="On 1", exact=True).focus()
        page.keyboard.press("Enter")
        _shows(page, launched, 2)
        assert page.evaluate("document.activeElement.textContent") == "On 1"
        page.reload()
        _shows(page, launched, 2)
        for machine_id in machine_ids:
            expect(page.locator("#then")).to_contain_text(machine_id)
        assert visit.complaints == []


def _shows(page: Page, position: int, living: int) -> None:
    expect(page.locator("#position")).to_have_text(str(position))
    expect(page.locator("#living")).to_have_text(str(living))
    expect(page.get_by_role("slider")).to_have_value(str(position))
    expect(page.get_by_role("slider")).to_have_attribute(
        "aria-valuetext",
        f"position {position}, {page.locator('#time-then').inner_text()}",
    )
    assert page.url.endswith("/console/past") or page.url.endswith(f"at={position}")


def _outline(page: Page) -> str:
    found: str = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    return found


CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).map((v) => v / 255).map(
      (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((e) => !e.disabled)
    .map((e) => {
      const both = [light(getComputedStyle(e).color), light(ground(e))];
      const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
      return [e.tagName, e.textContent.trim().slice(0, 40), ratio];
    });
}"""
"""Of every text that is shown: the contrast with what is behind it (WCAG 2.2, 1.4.3)."""


def test_it_can_be_read_in_the_light_and_in_the_dark(
    world: World, run: Run, browser: Browser, address: str
) -> None:
    token = new_token(run, "operator")
    request_id, _ = fulfilled(world, 1)
    world.request(1)
    grounds = {}
    for scheme in ("light", "dark"):
        with visiting(browser, address, color_scheme=scheme) as visit:
            visit.log_in(token)
            for path in ("/console", f"/console/requests/{request_id}", "/console/past"):
                visit.go(path)
                found = visit.page.evaluate(CONTRASTS)
                assert len(found) > 20
                assert [row for row in found if row[2] < 4.5] == []
            grounds[scheme] = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert visit.complaints == []
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}
