"""The evaluation as two files: `report.json`, and one `report.html` that needs nothing else to be read.

`figures` says what is drawn beside the numbers, `styles` how each method looks and is explained, `charts` draws,
`page` puts the page together. Nothing here decides anything: verdict and numbers come in the `Report`.
"""

from adapt.report.figures import Chunk, Example, Figures, contact_sheet
from adapt.report.page import write_report

__all__ = ["Chunk", "Example", "Figures", "contact_sheet", "write_report"]
