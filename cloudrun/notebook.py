"""Notebooks made short: what trainings printed is cut to the first and last epoch, and on demand more.

nbformat reads and writes, nbconvert makes HTML; both are imported on use. What is not cut stays as it was:
cells, metadata, order, the notebook's own format (only those from before nbformat 4 are converted to it).
"""

from __future__ import annotations

import copy
import json
import os
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cloudrun.epochs import Cut, cut_html, cut_texts
from cloudrun.errors import NotFound, UsageError

FORMAT = 4  # nbformat's; 4 came with IPython 3 in 2015
_HTML_IMAGE = re.compile(
    r"<img\b[^>]*>|<svg\b.*?</svg\s*>|<canvas\b.*?</canvas\s*>", re.IGNORECASE | re.DOTALL
)
_ONLY_NAME = re.compile(
    r"<[\w.]*[Ff]igure [^>]*>|<[\w.]+ at 0x[0-9a-f]+>|<IPython\.core\.display\.\w+ object>"
)

_SERVERS = (
    "require_js_url",
    "jquery_url",
    "widget_renderer_url",
    "mermaid_js_url",
    "jupyter_widgets_base_url",
)

_NO_SCRIPT = re.compile(r'<script src="">\s*</script>')

# For paper: lines wrap, nothing is cut at the edge, no cell breaks where it need not, prompts cost no room.
_PRINT_STYLE = """<style>
@page { margin: 15mm; }
body { max-width: 60rem; margin: 0 auto; }
.jp-OutputArea-output pre { white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere; }
.jp-OutputArea-output img, .jp-OutputArea-output svg { max-width: 100%; height: auto; }
@media print {
  body { max-width: none; }
  .jp-Cell, .jp-Cell-inputWrapper, .jp-OutputArea-child, tr, img, svg { break-inside: avoid; }
  h1, h2, h3, h4 { break-after: avoid; }
  pre { font-size: 82% !important; }
  .jp-InputPrompt, .jp-OutputPrompt { min-width: 5ch; font-size: 75%; }
  .jp-OutputArea-output { max-height: none; overflow: visible; }
}
</style>
"""


@dataclass(slots=True)
class Report:
    """What was cut: epochs and bar states by cell (counted from 1), and how much of the rest."""

    cells: dict[int, Cut] = field(default_factory=dict)
    images: int = 0
    tracebacks: int = 0
    counts: int = 0
    converted_from: int = 0  # the format before 4 that the notebook had, 0 for none

    @property
    def total(self) -> Cut:
        return sum(self.cells.values(), Cut())

    def __bool__(self) -> bool:
        return bool(self.cells or self.images or self.tracebacks or self.counts or self.converted_from)


def load_notebook(path: Path) -> tuple[Any, int]:
    """The notebook, and the major format that it had. Raises NotFound, and UsageError for what is none."""
    nbformat = _load("nbformat")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"no file {str(path)!r}", hint="give the path of an .ipynb file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}", hint="is it a notebook?") from error
    try:
        notebook = nbformat.reader.reads(text)
        major = int(notebook.get("nbformat", 0))
        if major < FORMAT:
            notebook = nbformat.convert(notebook, FORMAT)
        _check_shape(notebook)
    except (nbformat.reader.NotJSONError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} is no notebook: it is not JSON", hint="give an .ipynb file") from error
    except Exception as error:  # nbformat's converters assume what a broken file does not have
        raise UsageError(
            f"{path} is no notebook that can be read: {error}", hint="open it in Jupyter"
        ) from error
    return notebook, major


def trim(notebook: Any, *, images: bool = True, tracebacks: bool = True, counts: bool = True) -> Report:
    """Cut the notebook in place; False leaves out what is named. Doing it twice changes nothing more."""
    report = Report()
    for number, cell in enumerate(notebook["cells"], 1):
        if cell.get("cell_type") != "code":
            continue
        cut = _cut_streams(cell["outputs"]) + _cut_pages(cell["outputs"])
        if cut:
            report.cells[number] = cut
        if not images:
            report.images += _drop_images(cell)
        if not tracebacks:
            report.tracebacks += sum(_drop_traceback(output) for output in cell["outputs"])
        if not counts:
            report.counts += _drop_counts(cell)
    return report


def save_notebook(notebook: Any, path: Path) -> None:
    """Write it as Jupyter does: indented by 1, keys sorted. Whole or not at all; raises UsageError."""
    nbformat = _load("nbformat")
    write_whole(path, nbformat.v4.writes(copy.deepcopy(notebook)) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Put a file in place of what is there, which keeps its rights. Raises UsageError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        if path.exists():
            beside.chmod(path.stat().st_mode & 0o777)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UsageError(f"{path}: {error.strerror}", hint="choose another file") from error


def why_invalid(notebook: Any) -> str:
    """What nbformat's schema says against the notebook, "" for nothing."""
    nbformat = _load("nbformat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cell without an id is a warning there
        try:
            nbformat.validate(copy.deepcopy(notebook))
        except nbformat.ValidationError as error:
            return str(error).splitlines()[0]
    return ""


def make_html(notebook: Any, title: str) -> str:
    """One page that asks no server for anything (unless its text has formulas: MathJax) and prints well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies' deprecations
        exporter = _load("nbconvert").HTMLExporter(template_name="lab", exclude_anchor_links=True)
        for name in _SERVERS:
            if exporter.has_trait(name):
                setattr(exporter, name, "")
        if not _has_formulas(notebook):
            exporter.mathjax_url = ""
        page, _ = exporter.from_notebook_node(copy.deepcopy(notebook), {"metadata": {"name": title}})
    page = _NO_SCRIPT.sub("", str(page))
    return page.replace("</head>", f"{_PRINT_STYLE}</head>", 1)


def _load(name: Literal["nbformat", "nbconvert"]) -> Any:
    try:
        if name == "nbformat":
            import nbformat

            return nbformat
        import nbconvert

        return nbconvert
    except ImportError as error:
        raise UsageError(f"this needs {name}", hint="pip install 'cloudrun[tools]'") from error


def _check_shape(notebook: Any) -> None:
    """As much of the schema as is needed here: one that is slightly invalid is trimmed all the same."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and not all("output_type" in output for output in cell["outputs"]):
            raise ValueError("an output has no type")


def _cut_streams(outputs: list[Any]) -> Cut:
    """What was printed, stdout and stderr apart; a training may go on from one output to the next."""
    total = Cut()
    for name in ("stdout", "stderr"):
        streams = [
            output for output in outputs if output["output_type"] == "stream" and output.get("name") == name
        ]
        texts, cut = cut_texts([output["text"] for output in streams])
        for output, text in zip(streams, texts, strict=True):
            output["text"] = text
        total += cut
    if total:
        outputs[:] = [output for output in outputs if output["output_type"] != "stream" or output["text"]]
    return total


def _cut_pages(outputs: list[Any]) -> Cut:
    """HTML, and the plain text beside it, which is another form of the same."""
    total = Cut()
    for output in outputs:
        data = output.get("data", {})
        if isinstance(data.get("text/html"), str):
            data["text/html"], cut = cut_html(data["text/html"])
            total += cut
            if cut and isinstance(data.get("text/plain"), str):
                (data["text/plain"],), _ = cut_texts([data["text/plain"]])
    return total


def _drop_images(cell: Any) -> int:
    """Pictures in outputs; an output of which only the name of a figure is left goes with them."""
    dropped = 0
    kept = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        pictures = [kind for kind in data if kind.startswith("image/")]
        for kind in pictures:
            del data[kind]
        here = bool(pictures)
        if isinstance(data.get("text/html"), str):
            data["text/html"], in_page = _HTML_IMAGE.subn("", data["text/html"])
            here = here or bool(in_page)
        dropped += here
        if not (here and _says_nothing(data)):
            kept.append(output)
    cell["outputs"] = kept
    return dropped


def _says_nothing(data: Any) -> bool:
    rest = {kind: text for kind, text in data.items() if kind != "text/plain"}
    page = rest.pop("text/html", "")
    if rest or (isinstance(page, str) and re.sub(r"<[^>]*>", "", page).strip()):
        return False
    return bool(_ONLY_NAME.fullmatch(str(data.get("text/plain", "")).strip())) or "text/plain" not in data


def _drop_traceback(output: Any) -> bool:
    """The frames; what was raised stays."""
    if output["output_type"] != "error" or len(output.get("traceback", [])) <= 1:
        return False
    output["traceback"] = [f"{output.get('ename', '')}: {output.get('evalue', '')}"]
    return True


def _drop_counts(cell: Any) -> int:
    """The numbers in In [3] and Out[3]."""
    counted = [item for item in (cell, *cell["outputs"]) if item.get("execution_count") is not None]
    for item in counted:
        item["execution_count"] = None
    return len(counted)


def _has_formulas(notebook: Any) -> bool:
    texts = [str(cell.get("source", "")) for cell in notebook["cells"] if cell.get("cell_type") == "markdown"]
    kinds = Counter(
        kind
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    )
    return bool(kinds["text/latex"]) or any("$" in text or "\\begin{" in text for text in texts)
