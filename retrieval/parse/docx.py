"""Word documents, through the HTML that says the same: headings, lists and tables keep their structure."""

from __future__ import annotations

import io

from retrieval.errors import UnreadableDocument
from retrieval.parse.archive import open_archive, require_no_entities
from retrieval.parse.html import read_html
from retrieval.parse.limits import ParseLimits
from retrieval.parse.outline import Outline

_STYLES = "\n".join(
    ["p[style-name='Title'] => h1:fresh"]
    + [f"p[style-name='Heading {level}'] => h{min(level + 1, 6)}:fresh" for level in range(1, 7)]
)
"""The document's title stands above its headings."""


def read_docx(data: bytes, outline: Outline, limits: ParseLimits) -> str:
    """Fill the outline; the return is empty, for the title in a file's properties is often its template's."""
    with open_archive(data, limits) as archive:
        if not any(name.startswith("word/") for name in archive.namelist()):
            raise UnreadableDocument("holds no Word document; save it anew as .docx")
        require_no_entities(archive)
    import mammoth

    result = mammoth.convert_to_html(
        io.BytesIO(data),
        style_map=_STYLES,
        include_embedded_style_map=False,
        external_file_access=False,
        # The pictures' bytes would only be thrown away; what they show may be said in words.
        convert_image=mammoth.images.img_element(lambda image: {}),
    )
    return read_html(result.value, outline)
