"""A page as one file: templates in which every value is text, and a policy that loads nothing."""

from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from federated.report.drawing import clean, swatch
from federated.report.values import count_of

TEMPLATES, STYLE = "templates", "style.css"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("federated.report", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = _shown
    environment.globals |= {"swatch": swatch, "count_of": count_of}
    return environment


def _shown(value: object) -> Markup | str:
    """A text of a site or of data, made harmless; what is markup already stays as it is."""
    return value if isinstance(value, Markup) else clean(value)


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def render(template: str, script: str | None = None, **values: Any) -> str:
    """A page of a template, with its style sheet and, if it has one, its script inside.

    Its policy lets a browser load nothing from anywhere, and run and apply nothing but these two,
    which it knows by their hashes; so markup that got into the page by mistake would do nothing.

    Args:
        template: the template's name.
        script: the name of the script.
        values: what the template is made of.
    """
    environment = _environment()
    style = _digest(environment.get_template(STYLE).render())
    code = _digest(environment.get_template(script).render()) if script else "'none'"
    policy = (
        f"default-src 'none'; style-src {style}; script-src {code}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = environment.get_template(template)
    return page.render(policy=policy, style=STYLE, script=script, **values)
