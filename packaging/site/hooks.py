"""Hooks of mkdocs, which `make docs` runs: they give it the pages of ``pages.py`` in place of the folder docs."""

from pathlib import Path

import pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ASSETS = ("assets/iframe-worker.js",)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the navigation, and the anchors of headings."""
    config.nav = pages.navigation(pages.documents())
    config.mdx_configs.setdefault("toc", {})["slugify"] = pages.slug
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs by the documents, the files to which they link, and our scripts."""

    def file(path: str, folder: Path, inclusion: InclusionLevel = InclusionLevel.UNDEFINED) -> File:
        return File(path, str(folder), config.site_dir, use_directory_urls=False, inclusion=inclusion)

    for old in [old for old in files if old.src_dir == config.docs_dir]:
        files.remove(old)
    documents = pages.documents()
    for path in documents:
        files.append(file(path, pages.ROOT))
    for path in pages.linked(documents):
        if path.endswith((".md", *pages.IMAGES)):
            files.append(file(path, pages.ROOT, InclusionLevel.NOT_IN_NAV))
        else:
            name, text = pages.source_page(path), pages.source(path)
            files.append(File.generated(config, name, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    for path in ASSETS:
        files.append(file(path, Path(__file__).parent))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return the page's text for Python-Markdown; keep the source out of the search."""
    if page.file.src_uri.startswith(pages.SOURCES):
        page.meta["search"] = {"exclude": True}
        return markdown
    return str(pages.adapted(markdown, page.file.src_uri))
