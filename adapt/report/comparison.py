"""The page of `wam compare`: two tables, laid out by a template."""

from collections.abc import Sequence
from pathlib import Path

from adapt.report.styles import css_variables

Told = tuple[list[str], list[list[str]]]  # header and rows


def render_comparison(tables: tuple[Told, Told], notes: Sequence[str]) -> str:
    """The whole page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("comparison.html.jinja")
    return page.render(tables=tables, notes=notes, colours=css_variables())
