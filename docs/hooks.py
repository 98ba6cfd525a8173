"""What the site takes from outside docs/: the README as its home, reports of experiments and benchmarks, and every file that a page links to.

Links are written as GitHub follows them, relative to the file in the repository. Here they are turned to where the file stands in the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
#: Pages outside docs/: path in the repository -> path in the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "NOTICE.md": "notice.md",
}
PAGES |= {
    f"experiments/{f.parent.name}/README.md": f"experiments/{f.parent.name}.md"
    for f in ROOT.glob("experiments/*/README.md")
}
PAGES["benchmarks/README.md"] = "benchmarks.md"
ORIGINS = {site: repository for repository, site in PAGES.items()}
LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")


def origin(site: str) -> str:
    """Path in the repository of a page of the site."""
    beside = site.startswith(("experiments/", "benchmarks/"))
    return ORIGINS.get(site) or (site if beside else f"docs/{site}")


def linked(page: str, target: str) -> str:
    """Path in the repository of what a page (path in the repository) links to; a folder is its README."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and the files that they and the pages of docs/ link to."""
    texts = {origin(f.src_uri): f.content_string for f in files.documentation_pages() if f.src_uri.endswith(".md")}
    waiting = list(PAGES)
    while waiting:
        path = waiting.pop()
        site = PAGES.get(path, path)
        if files.get_file_from_path(site) is None:
            files.append(File.generated(config, site, abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            texts[path] = (ROOT / path).read_text()
        if waiting:
            continue
        seen = {linked(page, m["target"]) for page, text in texts.items() for m in LINK.finditer(text)}
        waiting += [x for x in sorted(seen) if is_beside(x) and files.get_file_from_path(PAGES.get(x, x)) is None]
    return files


def is_beside(path: str) -> bool:
    """Whether a path in the repository is a file outside docs/."""
    return not path.startswith(("docs/", "../")) and (ROOT / path).is_file()


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links to where the files stand in the site."""
    here = origin(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        path = linked(here, match["target"])
        site = path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path, path)
        return posixpath.relpath(site, posixpath.dirname(page.file.src_uri) or ".") + (match["anchor"] or "")

    return LINK.sub(turned, markdown)
