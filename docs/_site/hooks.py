"""Pages of the site that lie beside docs/ in the repository, and links that leave it.

On a forge the Markdown files are read where they lie. In the site CHANGELOG.md, CONTRIBUTING.md and
SECURITY.md are pages too, and a link to a file of code is its path. A link to what is not there
stays as it is, so that the build fails.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Files of the repository's root, and the pages that they are.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put all pages of a folder where the navigation names it, in the order of their names."""
    docs = Path(config.docs_dir)

    def filled(entries: list[Any]) -> list[Any]:
        result: list[Any] = []
        for entry in entries:
            if isinstance(entry, dict):
                result += [
                    {title: filled(inner) if isinstance(inner, list) else inner}
                    for title, inner in entry.items()
                ]
            elif entry.endswith("/"):
                pages = sorted((docs / entry).glob("*.md"))
                result += [f"{entry}{page.name}" for page in pages if page.name != "README.md"]
            else:
                result.append(entry)
        return result

    config.nav = filled(config.nav or [])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root."""
    for name, page in PAGES.items():
        path = _root(config) / name
        files.append(File.generated(config, page, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Lead links to where their targets are in the site."""
    root, here = _root(config), page.file.src_uri
    docs = Path(config.docs_dir).relative_to(root).as_posix()
    # Where the page's text lies in the repository, which its links start from.
    own = next((name for name, uri in PAGES.items() if uri == here), posixpath.join(docs, here))

    def lead(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(own), link["path"]))
        if target in PAGES:
            uri = PAGES[target]
        elif target.startswith(f"{docs}/"):
            uri = target.removeprefix(f"{docs}/")
        elif (root / target).exists():
            shown = link["text"]
            return shown if shown.strip("`") == target else f"{shown} (`{target}`)"
        else:
            return link[0]
        start = posixpath.relpath(uri, posixpath.dirname(here) or ".")
        return f"[{link['text']}]({start}{link['anchor'] or ''})"

    return LINK.sub(lead, markdown)


def on_post_page(output: str, **_: object) -> str:
    """Give the search a name, which the theme leaves to whoever sees it."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def _root(config: MkDocsConfig) -> Path:
    return Path(str(config.config_file_path)).parent
