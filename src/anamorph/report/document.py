"""Self-contained pages without scripts, whose one style runs by its hash and nothing loads from anywhere; drawings."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render_document(template: str, styles: tuple[str, ...], **context: Any) -> str:
    """A page from a template that extends ``document.html.j2``; whatever a user could have named is escaped.

    Args:
        template: file name under ``templates``.
        styles: CSS files under ``templates``, joined in this order.
        context: what the template shows.
    """
    css = "\n".join((files("anamorph.report") / "templates" / name).read_text(encoding="utf-8") for name in styles)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return _environment().get_template(template).render(css=css, policy=policy, **context)


def render_figure(template: str, *, alone: bool, **context: Any) -> str:
    """A drawing as SVG: a file of its own, or for a page whose styles hold ``figure.css``.

    Args:
        template: file name under ``templates``.
        alone: whether it brings its styles along.
        context: what the template shows.
    """
    css = (files("anamorph.report") / "templates" / "figure.css").read_text(encoding="utf-8") if alone else ""
    return _environment().get_template(template).render(css=css, **context)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("anamorph.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
