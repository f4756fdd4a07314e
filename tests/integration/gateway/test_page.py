"""The page in a real browser against the real local stack: what a person does, sees and is told.

The browser is Chromium: Playwright's own (`playwright install chromium`) or the machine's.
"""

import base64
import io
import os
import re
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # no stubs
from PIL import Image
from playwright.sync_api import Browser, Dialog, Page, Request, expect, sync_playwright

from tests.integration.gateway.conftest import GatewayHarness
from tests.integration.gateway.test_gateway import picture

pytestmark = [pytest.mark.process, pytest.mark.browser]

SECONDS = 1000.0  # Playwright counts in milliseconds
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = str(own) if own.exists() else shutil.which("chromium")
        if found is None:
            pytest.skip("no Chromium: playwright install chromium, or apt-get install chromium")
        # Chromium's sandbox refuses to run as root, as tests do in containers.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=found, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, api: GatewayHarness) -> Iterator[Page]:
    yield from opened(browser, api)


@pytest.fixture
def phone(browser: Browser, api: GatewayHarness) -> Iterator[Page]:
    """The narrowest phone, in the dark."""
    small = {"width": 320, "height": 640}
    yield from opened(browser, api, viewport=small, color_scheme="dark", has_touch=True)


def opened(browser: Browser, api: GatewayHarness, **given: Any) -> Iterator[Page]:
    """A page of its own context; ends with a check that nothing was wrong behind the scenes."""
    context = browser.new_context(base_url=api.gateway.url, **given)
    context.set_default_timeout(20 * SECONDS)
    page = context.new_page()
    faults: list[str] = []
    foreign: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: foreign.extend(_elsewhere(request, api)))
    yield page
    context.close()
    assert faults == []
    assert foreign == []


def _elsewhere(request: Request, api: GatewayHarness) -> list[str]:
    parts = urllib.parse.urlsplit(request.url)
    known = {
        urllib.parse.urlsplit(url).netloc for url in (api.gateway.url, api.stack.s3.endpoint_url)
    }
    return [] if parts.scheme in {"data", "blob"} or parts.netloc in known else [request.url]


def heic(shade: int) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.open(io.BytesIO(picture(shade, 800)))).save(file, quality=70)
    return file.getvalue()


def photos(count: int) -> list[Any]:
    """Files as a person has them: JPEGs, and HEICs of a phone among them."""
    files = []
    for number in range(count):
        apple = number % 10 == 9
        name = f"IMG_{number:04d}.{'HEIC' if apple else 'jpg'}"
        kind = "image/heic" if apple else "image/jpeg"
        body = heic(number * 13) if apple else picture(number * 13, 800)
        files.append({"name": name, "mimeType": kind, "buffer": body})
    return files


def drop(page: Page, files: list[Any]) -> None:
    """Drop files on the page as a person would."""
    plain = [[f["name"], f["mimeType"], base64.b64encode(f["buffer"]).decode()] for f in files]
    held = page.evaluate_handle(
        """files => {
            const held = new DataTransfer();
            for (const [name, type, text] of files) {
                const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
                held.items.add(new File([bytes], name, { type }));
            }
            return held;
        }""",
        plain,
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": held})


def visit(page: Page, place: str = "/") -> None:
    page.goto(f"/#{place}")
    page.wait_for_selector("h1", state="attached")


def accessible(page: Page) -> None:
    """Fail on what axe-core finds serious."""
    found = Axe().run(page).response["violations"]
    grave = [
        (each["id"], [node["html"][:200] for node in each["nodes"]])
        for each in found
        if each["impact"] in SERIOUS
    ]
    assert grave == []


def fits(page: Page) -> None:
    """Fail where the page is wider than its window."""
    wide, window = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= window, (wide, window)


def shot(page: Page, name: str) -> None:
    """Keep a screenshot where SCREENSHOTS_DIR is given, for a person to look at."""
    folder = os.environ.get("SCREENSHOTS_DIR")
    if folder:
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def kept(alerts: list[str], dialog: Dialog) -> None:
    """Note what a dialog says, and close it."""
    alerts.append(dialog.message)
    dialog.dismiss()


def trained(page: Page, name: str, count: int = 6) -> None:
    visit(page, "/new")
    page.set_input_files("#files", photos(count))
    page.get_by_label("Name").fill(name)
    page.get_by_label("What is it?").fill("woman")
    page.get_by_role("button", name="Start the training").click()
    expect(page.get_by_role("heading", name=f"{name} is ready")).to_be_visible(
        timeout=180 * SECONDS
    )


def test_from_photos_to_pictures_to_nothing(page: Page, api: GatewayHarness) -> None:
    make_character(page)
    make_pictures_and_a_clip(page)
    roll_back(page)
    erase(page, api)


def make_character(page: Page) -> None:
    visit(page, "/new")
    files = photos(20)
    page.set_input_files("#files", files[:18])
    drop(page, files[18:])
    expect(page.locator(".photos li")).to_have_count(20)
    page.get_by_label("Name").fill("Mira Lind")
    page.get_by_label("What is it?").fill("woman")
    expect(page.get_by_text("20 photos ready.")).to_be_visible(timeout=60 * SECONDS)
    assert page.locator(".photos li[data-state=good] img").count() == 18
    assert page.locator(".photos li[data-state=unseen]").count() == 2
    accessible(page)
    shot(page, "new")
    page.get_by_role("button", name="Start the training").click()
    expect(page.locator("svg.loss .line")).to_be_visible(timeout=120 * SECONDS)
    shot(page, "training")
    page.reload()
    expect(page.get_by_role("heading", name="Mira Lind is ready")).to_be_visible(
        timeout=240 * SECONDS
    )
    expect(page.get_by_alt_text("Preview sheet")).to_be_visible()
    accessible(page)
    shot(page, "trained")


def make_pictures_and_a_clip(page: Page) -> None:
    page.get_by_role("link", name="Make pictures").click()
    expect(page.get_by_role("button", name="Mira Lind", pressed=True)).to_be_visible()
    page.get_by_label("What should the picture show?").fill("portrait of {trigger} in a garden")
    page.get_by_label("Pictures", exact=True).fill("2")
    page.get_by_label("Size").select_option("512x512")
    page.get_by_role("button", name="Make 2 pictures").click()
    tiles = page.locator(".tile:has(img)")
    expect(tiles.nth(1)).to_be_visible(timeout=60 * SECONDS)
    accessible(page)

    tiles.first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Seed")).to_be_visible()
    accessible(page)
    shot(page, "details")
    dialog.get_by_role("button", name="Make a video").click()
    dialog.get_by_label("Frames", exact=True).fill("4")
    dialog.get_by_role("button", name="Make the clip").click()
    expect(page.locator(".tile video")).to_be_visible(timeout=60 * SECONDS)
    shot(page, "studio")


def roll_back(page: Page) -> None:
    trained(page, "Mira Lind")
    page.get_by_role("link", name="The character's page").click()
    expect(page.locator(".version")).to_have_count(2)
    newer = page.locator(".version.active strong time").get_attribute("datetime")
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator(".version.active strong time")).not_to_have_attribute(
        "datetime", str(newer)
    )
    accessible(page)
    shot(page, "character")


def erase(page: Page, api: GatewayHarness) -> None:
    page.get_by_role("button", name="Erase for good").click()
    sure = page.get_by_role("button", name="Erase everything")
    expect(sure).to_be_disabled()
    page.get_by_label("Type mira-lind to confirm").fill("mira-lind")
    sure.click()
    until = time.monotonic() + 60
    while api.request("GET", "/characters/mira-lind").status_code != 404:
        assert time.monotonic() < until, "the character is still there"
        page.wait_for_timeout(200)
    visit(page, "/characters")
    expect(page.get_by_text("Mira Lind")).to_have_count(0)


def test_a_training_that_fails_says_why_and_what_to_do(page: Page) -> None:
    visit(page, "/new")
    # What no browser opens is uploaded as it is, and only the worker sees that it is no photo.
    files: list[Any] = [
        {"name": f"{n}.heic", "mimeType": "image/heic", "buffer": b"no photo" + bytes(n)}
        for n in range(6)
    ]
    page.set_input_files("#files", files)
    page.get_by_label("Name").fill("Nothing")
    page.get_by_role("button", name="Start the training").click()
    expect(page.get_by_role("heading", name="The training failed")).to_be_visible(
        timeout=60 * SECONDS
    )
    expect(page.locator(".trouble strong")).not_to_be_empty()
    expect(page.get_by_role("button", name="Train again with these photos")).to_be_visible()
    accessible(page)
    shot(page, "failed")


def test_what_is_no_photo_is_told_at_once_and_not_uploaded(page: Page) -> None:
    visit(page, "/new")
    good = picture(40, 800)
    files: list[Any] = [
        {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": good},
        {"name": "copy.jpg", "mimeType": "image/jpeg", "buffer": good},
        {"name": "small.jpg", "mimeType": "image/jpeg", "buffer": picture(1, 100)},
        {"name": "broken.png", "mimeType": "image/png", "buffer": b"not a picture"},
        {"name": "<img src=x onerror=alert(1)>.txt", "mimeType": "text/plain", "buffer": b"x"},
    ]
    page.set_input_files("#files", files)
    for state in ("good", "twice", "tiny", "broken", "type"):
        expect(page.locator(f".photos li[data-state={state}]")).to_have_count(1)
    expect(page.get_by_text("4 more photos are needed.")).to_be_visible()
    expect(page.get_by_role("button", name="Start the training")).to_be_disabled()


def test_two_tabs_show_the_same_jobs(page: Page) -> None:
    visit(page)
    other = page.context.new_page()
    visit(other)
    page.get_by_label("What should the picture show?").fill("a quiet harbour")
    page.get_by_label("Size").select_option("512x512")
    page.get_by_role("button", name="Make a picture").click()
    tile = other.get_by_role("button", name=re.compile("quiet harbour")).first
    expect(tile).to_be_visible(timeout=60 * SECONDS)


def test_on_the_narrowest_phone(phone: Page) -> None:
    for place in ("/", "/characters", "/new", "/characters/demo", "/jobs", "/nowhere"):
        visit(phone, place)
        phone.wait_for_timeout(300)
        fits(phone)
        accessible(phone)
        shot(phone, f"phone-{place.strip('/').replace('/', '-') or 'studio'}")
    visit(phone)
    phone.locator(".tile:has(img)").first.click()
    expect(phone.get_by_role("dialog")).to_be_visible()
    fits(phone)
    shot(phone, "phone-details")


def test_by_keyboard_alone(page: Page) -> None:
    visit(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("What should the picture show?")).to_be_focused()
    page.keyboard.type("by keyboard")
    page.keyboard.press("Tab")
    expect(page.locator(".chip").first).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator(".chip[aria-pressed=true]")).to_be_focused()
    page.get_by_label("Size").select_option("512x512")
    page.get_by_label("What should the picture show?").focus()
    page.keyboard.press("Control+Enter")
    tile = page.get_by_role("button", name=re.compile("by keyboard")).first
    expect(tile).to_be_visible(timeout=60 * SECONDS)
    tile.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(tile).to_be_focused()


def test_a_lost_connection_is_said_and_comes_back(page: Page) -> None:
    visit(page)
    page.context.set_offline(True)
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("alert").filter(has_text="No connection")).to_be_visible()
    shot(page, "offline")
    page.context.set_offline(False)
    expect(page.get_by_role("alert").filter(has_text="No connection")).to_be_hidden()


def test_on_a_slow_network_the_page_says_that_it_loads(page: Page) -> None:
    visit(page)
    session = page.context.new_cdp_session(page)
    session.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": 600,
            "downloadThroughput": 50_000,
            "uploadThroughput": 20_000,
        },
    )
    page.get_by_role("link", name="Characters", exact=True).last.click()
    expect(page.locator(".busy")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("Demo"))).to_be_visible()
    visit(page, "/new")
    page.set_input_files("#files", photos(1))
    share = page.locator(".photos progress")
    expect(share).to_be_visible()
    expect(page.locator(".photos li[data-state=good]")).to_have_count(1, timeout=60 * SECONDS)


def test_what_the_api_refuses_is_a_sentence(page: Page) -> None:
    visit(page)
    page.route(
        "**/generate-image",
        lambda route: route.fulfill(
            status=503,
            content_type="application/problem+json",
            body='{"detail": "The RunPod account has no credit left.", "code": "x"}',
        ),
    )
    page.get_by_label("What should the picture show?").fill("anything")
    page.get_by_role("button", name="Make a picture").click()
    expect(page.locator(".notice.bad")).to_contain_text("no credit left")


def test_words_that_look_like_markup_are_words(page: Page) -> None:
    visit(page)
    alerts: list[str] = []
    page.on("dialog", lambda dialog: kept(alerts, dialog))
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    page.get_by_label("What should the picture show?").fill(evil)
    page.get_by_label("Size").select_option("512x512")
    page.get_by_role("button", name="Make a picture").click()
    expect(page.get_by_role("button", name=re.compile("onerror")).first).to_be_visible(
        timeout=60 * SECONDS
    )
    assert alerts == []


def test_dark_and_light_are_kept(page: Page) -> None:
    visit(page)
    page.get_by_role("button", name="Dark colours").click()
    page.reload()
    expect(page.get_by_role("button", name="Light colours")).to_be_visible()
    accessible(page)
    shot(page, "dark")


def test_no_error_of_the_browser_is_hidden(page: Page) -> None:
    """Nothing that the page does is refused by its own content policy."""
    told: list[str] = []
    page.on("console", lambda line: told.append(line.text) if line.type == "error" else None)
    for place in ("/", "/characters", "/characters/demo", "/new", "/jobs"):
        visit(page, place)
        page.wait_for_timeout(200)
    assert told == []
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.head.append(script);
        }"""
    )
    assert page.evaluate("window.ran") is None
