"""Self-contained HTML pages from templates/: they fetch nothing, and say so to the browser.

A Content-Security-Policy then refuses any script but ours: names of schemes come from users.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from normbench.report.page_tables import rows

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, functions: dict[str, Any], scripts: Sequence[str], **values: Any) -> str:
    """A template with our style, our scripts and their hash in it; `functions`: what it calls filters, by name."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"prose": prose, "rows": rows, **functions}
    style, *code = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", *scripts))
    script = "".join(code)
    return environment.get_template(template).render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def data_address(png: bytes) -> str:
    """A picture as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def prose(text: str) -> Markup:
    """Words with `code` in them."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
