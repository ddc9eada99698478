"""Great Expectations' pages, whose templates a process compiles once and not for every site."""

from pathlib import Path
from types import CodeType
from typing import Any

from great_expectations.render.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2 import BytecodeCache, Environment
from jinja2.bccache import Bucket


class _Compiled(BytecodeCache):
    """The templates that this process has compiled, by their names and texts."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Give a bucket what was compiled of its template, if it was."""
        bucket.code = self._found.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled of a bucket's template."""
        if bucket.code:
            self._found[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()


def _keep_compiled(environment: Environment) -> None:
    environment.bytecode_cache = _COMPILED
    # Nobody changes a template while a process runs.
    environment.auto_reload = False


class Page(DefaultJinjaPageView):
    """A page on one suite, or on what it has found."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        _keep_compiled(self.env)


class Index(DefaultJinjaIndexPageView):
    """The page that leads to the others."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        _keep_compiled(self.env)


def site(docs: Path) -> dict[str, Any]:
    """How Great Expectations is told of pages in a folder that are made of these."""
    page = {"module_name": __name__, "class_name": Page.__name__}
    index = {"module_name": __name__, "class_name": Index.__name__}
    sections = ("expectations", "validations", "profiling")
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "view": index},
        "site_section_builders": {name: {"view": dict(page)} for name in sections},
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs.resolve()),
        },
    }
