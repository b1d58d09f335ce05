"""Adds pages of the root directory to the book, makes links between them and docs/ work there as on GitHub, and
rejects links to anchors that do not exist (MkDocs checks only files)."""

import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# Files outside docs/, and their names in the book.
ADDED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
    "LICENSE-MIT": "LICENSE-MIT.txt",
    "LICENSE-APACHE": "LICENSE-APACHE.txt",
    "xtask/book/book.css": "book.css",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)((?:#[^)\s]*)?)\)")

# Code within a line, and its words.
CODE = re.compile(r"(?<!<pre>)<code>([^<]*)</code>")
WORD = re.compile(r"\S+")


def unbroken(word):
    """Keeps a short word in one line: a browser would break `--mem` after its hyphens. A long one breaks anywhere."""
    return f'<span class="{"short" if len(word.group()) <= 20 else "long"}">{word.group()}</span>'


def on_files(files, config):
    for source, name in ADDED.items():
        file = File(name, str(ROOT), config["site_dir"], config["use_directory_urls"])
        file.abs_src_path = str(ROOT / source)
        files.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    source = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()
    here = posixpath.dirname(page.file.src_uri)

    def in_book(link):
        text, target, anchor = link.groups()
        if ":" in target:
            return link.group(0)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        name = ADDED.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if name is None:
            raise PluginError(f"{source}: '{target}' is not in the book")
        if (ROOT / path).is_dir():
            name = posixpath.join(name, "README.md")
        return f"[{text}]({posixpath.relpath(name, here or '.')}{anchor})"

    return LINK.sub(in_book, markdown)


def on_page_content(html, page, config, files):
    # GitHub removes the backslash of `a\|b` in a table, Python-Markdown keeps it.
    html = html.replace("\\|", "|")
    html = CODE.sub(lambda code: f"<code>{WORD.sub(unbroken, code.group(1))}</code>", html)
    # A wide table scrolls, and does not widen its page.
    return html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


class Anchors(HTMLParser):
    """The anchors of a page, and the addresses that it links to."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])


def on_post_build(config):
    site = Path(config["site_dir"])
    pages = {path.resolve(): Anchors(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            if ":" in target or path.name == "404.html":
                continue
            file = (path.parent / unquote(target)).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            known = file in pages and (not anchor or unquote(anchor) in pages[file].ids) or file.exists() and not anchor
            if not known:
                broken.append(f"{path.relative_to(site)}: {link}")
    if broken:
        raise PluginError("links to nowhere:\n" + "\n".join(broken))
