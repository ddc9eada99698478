"""Reading a page as a program: its elements, its text, and the numbers that it shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

# Elements without an end.
VOID = {"meta", "link", "img", "br", "hr", "input", "base"}


@dataclass
class Element:
    """An element with its attributes and the text in it."""

    name: str
    attributes: Mapping[str, str | None]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """The elements of a page in order, and whether all that were opened are closed."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        opened = self.open.pop()
        assert opened.name == tag, f"</{tag}> closes <{opened.name}>"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def named(self, name: str) -> list[Element]:
        """The elements of a name, in order."""
        return [element for element in self.elements if element.name == name]

    @property
    def text(self) -> str:
        """What a person reads of it."""
        return self.named("body")[0].text


def read(html: str) -> Page:
    """A page whose elements are all closed in order."""
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open, [element.name for element in page.open]
    return page


def at(document: Any, pointer: str) -> Any:
    """The value at a JSON pointer."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list | tuple) else document[key]
    return document
