"""The evaluation as files: `report.json`, `windows.npz`, one `report.html` that needs nothing else to be read.

`figures` says what is drawn beside the numbers, `styles` how each method looks and is explained, `charts` draws,
`page` puts the page together from `rows`; `windows` keeps each window's error. Nothing here decides anything: verdict
and numbers come in the `Report`.
"""

from adapt.report.figures import Chunk, Example, Figures, contact_sheet
from adapt.report.page import write_report
from adapt.report.windows import WINDOWS, WindowErrors

__all__ = ["WINDOWS", "Chunk", "Example", "Figures", "WindowErrors", "contact_sheet", "write_report"]
