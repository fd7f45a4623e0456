"""PowerPoint presentations: a section for each slide, with its tables and the speaker's notes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from retrieval.errors import DocumentTooLarge
from retrieval.parse.archive import open_archive, require_no_entities
from retrieval.parse.limits import ParseLimits
from retrieval.parse.outline import Outline
from retrieval.parse.rows import add_table

if TYPE_CHECKING:
    from pptx.slide import Slide


def read_pptx(data: bytes, outline: Outline, limits: ParseLimits) -> str:
    """Fill the outline; the return is empty. Hidden slides are left out."""
    with open_archive(data, limits) as archive:
        require_no_entities(archive)
    from pptx import Presentation

    slides = Presentation(io.BytesIO(data)).slides
    if len(slides) > limits.max_pages:
        raise DocumentTooLarge(
            f"{len(slides)} slides, above the limit of {limits.max_pages}; split it or raise the limit"
        )
    for number, slide in enumerate(slides, start=1):
        if slide.element.get("show") != "0":
            outline.page(number)
            _add_slide(slide, number, outline)
    return ""


def _add_slide(slide: Slide, number: int, outline: Outline) -> None:
    title = slide.shapes.title
    blocks = _Blocks(outline, skipped_id=title.shape_id if title is not None else None)
    named = title.text_frame.text if title is not None else ""
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    spoken = notes.text.strip() if notes is not None else ""
    outline.heading(1, named if named.strip() else f"Slide {number}")
    blocks.add(slide.shapes)
    if spoken:
        outline.block(f"Notes: {spoken}")


class _Blocks:
    """Adds the text of shapes in reading order: from the top, and from the left where they are level."""

    def __init__(self, outline: Outline, skipped_id: int | None) -> None:
        self._outline = outline
        self._skipped_id = skipped_id

    def add(self, shapes: Iterable[Any]) -> None:
        for shape in sorted(shapes, key=lambda shape: (shape.top or 0, shape.left or 0)):
            if shape.shape_id == self._skipped_id:
                continue
            if hasattr(shape, "shapes"):
                self.add(shape.shapes)
            elif getattr(shape, "has_table", False):
                rows = ([cell.text for cell in row.cells] for row in shape.table.rows)
                add_table(self._outline, rows)
            elif shape.has_text_frame:
                self._add_text(shape.text_frame)

    def _add_text(self, frame: Any) -> None:
        paragraphs = [(p.level, p.text.strip()) for p in frame.paragraphs if p.text.strip()]
        if len(paragraphs) == 1:
            self._outline.block(paragraphs[0][1])
            return
        for number, (level, text) in enumerate(paragraphs):
            self._outline.block("  " * level + f"- {text}", tight=number > 0)
