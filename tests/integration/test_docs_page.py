"""`/docs` in a browser that can reach no other host."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.harness.browser import HOST, Page, page
from tests.harness.system import Api, System, until


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    return shared.api()


class Links(HTMLParser):
    """The URLs of all `src` and `href` attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.found += [value or "" for name, value in attributes if name in {"src", "href"}]


def test_page_loads_only_files_of_this_service(api: Api) -> None:
    text = api.client.get("/docs").text
    links = Links(text).found
    assert len(links) == 3
    assert [link for link in links if not link.startswith("/docs/")] == []
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", text) == []


@pytest.mark.parametrize(
    ("name", "media_type", "starts"),
    [
        ("swagger-ui.css", "text/css; charset=utf-8", b".swagger-ui"),
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8", b"/*! For license"),
        ("favicon.png", "image/png", b"\x89PNG"),
    ],
)
def test_each_file_of_the_page_is_served(api: Api, name: str, media_type: str, starts: bytes) -> None:
    response = api.client.get(f"/docs/{name}")
    assert (response.status_code, response.headers["Content-Type"]) == (200, media_type)
    assert response.content.startswith(starts)
    assert response.headers["Cache-Control"] == "max-age=3600"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Page]:
    with page(tmp_path) as opened:
        yield opened


@pytest.mark.thorough
def test_page_shows_every_call_and_contacts_no_other_host(api: Api, browser: Page, tmp_path: Path) -> None:
    address = api.url.replace("127.0.0.1", HOST)
    browser.visit(f"{address}/docs", 1280)
    until(lambda: browser.evaluate("document.querySelectorAll('.opblock').length") >= 7, what="the calls on the page")
    browser.evaluate("document.querySelectorAll('.opblock-summary-control').forEach(each => each.click())")
    until(lambda: "Visible ASCII" in browser.evaluate("document.body.innerText"), what="a parameter's description")
    browser.picture(tmp_path / "docs.png")
    assert "OAS 3.1" in browser.evaluate("document.body.innerText")
    assert browser.errors == []
    hosts = {urlsplit(url).netloc for url in browser.requests if urlsplit(url).scheme not in {"data", "blob", "about"}}
    assert hosts == {urlsplit(address).netloc}
