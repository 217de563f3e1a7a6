"""A person at the console, without a browser: forms are sent as a browser would, pages are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx2 as httpx
from starlette.testclient import TestClient

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """What a page consists of: `elements` as (tag, attributes, text of all that is in it)."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, {name: value or "" for name, value in attrs}, [""])
        self.elements.append(element)
        if tag in ("td", "th"):
            self.handle_data(" ")
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, text in self._open:
            text[0] += data

    def all(self, tag: str, **attributes: str) -> list[tuple[dict[str, str], str]]:
        """Attributes and text of the elements of a tag with these attributes."""
        return [
            (given, " ".join(text[0].split()))
            for name, given, text in self.elements
            if name == tag and attributes.items() <= given.items()
        ]

    def text(self, tag: str, **attributes: str) -> str:
        ((_, text),) = self.all(tag, **attributes)
        return text

    def machines(self) -> set[str]:
        """Those that it links to."""
        links = (given.get("href", "") for given, _ in self.all("a"))
        return {m[1] for m in (re.fullmatch(r"/console/machines/(i-\w+)", h) for h in links) if m}

    def counts(self) -> dict[str, int]:
        """How many machines its tables count, by name."""
        rows = [text for _, text in self.all("tr")]
        found = (re.fullmatch(r"(\S+) (\d+)", row) for row in rows)
        return {m[1]: int(m[2]) for m in found if m}


class Person:
    """Somebody at a browser that has no scripts."""

    def __init__(self, http: TestClient) -> None:
        self.http = http
        self.origin = {"Origin": str(http.base_url).rstrip("/"), "Accept": "text/html"}

    def get(self, path: str, follow: bool = True) -> httpx.Response:
        headers = {"Accept": "text/html"}
        return self.http.get(path, headers=headers, follow_redirects=follow)

    def page(self, path: str) -> Page:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return Page(answer.text)

    def send(self, path: str, follow: bool = True, **fields: Any) -> httpx.Response:
        return self.http.post(path, data=fields, headers=self.origin, follow_redirects=follow)

    def log_in(self, token: str, **fields: str) -> httpx.Response:
        return self.send("/login", token=token, follow=False, **fields)

    def forms(self, page: Page) -> Iterator[str]:
        return (given["action"] for given, _ in page.all("form") if given.get("method") == "post")
