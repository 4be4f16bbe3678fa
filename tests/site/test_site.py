"""The web site of `make docs` in a headless Chromium, opened as files and by HTTP, and what fails its build."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support.browser import chromium, requested, show
from support.cli import CHECKOUT, run
from support.waiting import SLOWNESS, wait_until

MKDOCS = CHECKOUT / "build/mkdocs"
SHOTS = CHECKOUT / "build/page"
WIDE, NARROW = (1280, 900), (360, 740)
READABLE = 4.5  # contrast of text, https://www.w3.org/TR/WCAG22/#contrast-minimum
BUILD_SECONDS = 120 * SLOWNESS
KINDS = ["Home", "Tutorial", "How-to guides", "Reference", "Explanation"]
# The path of a page, and its heading: the home page, a how-to, a manual page.
PAGES = {
    "index.html": "binfmtd",
    "docs/build-hosts.html": "On a build host",
    "docs/man/binfmtd.8.html": "binfmtd(8)",
}
WORD, FOUND = "hidepid", "docs/hosts.html"  # a word, and a page that has it
# A script, a style, an image or a frame of another host; a link that a reader may follow is none.
FOREIGN = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|url\(["']?(?:https?:)?//|@import"""
)
# The contrast of each text of the article with the page, by the formula of that page; text may be translucent.
CONTRASTS = """
const channels = text => text.match(/[0-9.]+/g).map(Number);
const light = colour => colour.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
const page = channels(getComputedStyle(document.body).backgroundColor);
return [...document.querySelectorAll("article :is(h1, h2, h3, p, li, td, a:not(.headerlink))")].map(each => {
    const [red, green, blue, alpha = 1] = channels(getComputedStyle(each).color);
    const seen = [red, green, blue].map((c, place) => alpha * c + (1 - alpha) * page[place]);
    const [dark, bright] = [light(seen), light(page)].sort((one, two) => one - two);
    return (bright + 0.05) / (dark + 0.05);
});
"""
BACKGROUND = "return getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number)"


@pytest.fixture(scope="module")
def site() -> Path:
    """Build the site, and return its folder."""
    if not (MKDOCS / ".stamp").exists():
        pytest.skip("takes mkdocs in build/mkdocs, which `make docs` installs by pip")
    done = run(["make", "-C", str(CHECKOUT), "docs"], timeout=BUILD_SECONDS)
    assert done.status == 0, (done.stdout, done.stderr)
    return CHECKOUT / "build/site"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield Chromium."""
    with chromium(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome


class Handler(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine alone; yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=["file", "http"])
def address(request: pytest.FixtureRequest, site: Path, browser: Any) -> Iterator[str]:
    """Yield the address of the site: a file: URL, and that of a server; the browser has a wide, light window."""
    show(browser, "light", WIDE)
    requested(browser)
    if request.param == "file":
        yield site.as_uri()
    else:
        with serving(site) as served:
            yield served


def outside(browser: Any, address: str) -> list[str]:
    """Return what pages have requested from elsewhere; they must have requested anything at all."""
    requests = requested(browser)
    assert requests
    return [each for each in requests if not each.startswith((f"{address}/", "data:", "blob:", "about:"))]


def texts(browser: Any, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


def test_pages(browser: Any, address: str) -> None:
    """The home page, a how-to and a manual page have their headings and the four kinds, and nothing from elsewhere."""
    for path, heading in PAGES.items():
        browser.get(f"{address}/{path}")
        assert [text.removesuffix("¶").strip() for text in texts(browser, "article h1")] == [heading]
        assert texts(browser, ".md-tabs__link") == KINDS
    assert outside(browser, address) == []


def test_search(browser: Any, address: str) -> None:
    """A search finds a word without a network; a click on the result leads to its page, with the word marked."""
    browser.get(f"{address}/index.html")
    browser.find_element("css selector", "input.md-search__input").send_keys(WORD)

    def result() -> Any:
        links = browser.find_elements("css selector", "a.md-search-result__link")
        return next((link for link in links if f"{FOUND}?h={WORD}" in str(link.get_attribute("href"))), None)

    wait_until(result, 20, f"a section of {FOUND} among the results").click()
    wait_until(lambda: FOUND in browser.current_url, 10, "the page of the result")
    wait_until(lambda: any(WORD in text for text in texts(browser, "article mark")), 10, "the word marked")
    assert outside(browser, address) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_can_be_read(browser: Any, site: Path, scheme: str, size: tuple[int, int]) -> None:
    """Each text has enough contrast on a page of the preferred scheme, and no page is wider than the window."""
    show(browser, scheme, size)
    SHOTS.mkdir(parents=True, exist_ok=True)
    for path in PAGES:
        browser.get(f"{site.as_uri()}/{path}")
        assert (max(browser.execute_script(BACKGROUND)[:3]) < 128) == (scheme == "dark")
        contrasts = browser.execute_script(CONTRASTS)
        assert len(contrasts) > 20
        assert min(contrasts) >= READABLE
        assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
        assert browser.save_screenshot(str(SHOTS / f"site-{Path(path).stem}-{scheme}-{size[0]}.png"))


def test_a_request_to_another_host_is_seen(browser: Any, tmp_path: Path) -> None:
    """An image of another host, which cannot be reached here, is among the requests from elsewhere."""
    requested(browser)
    (tmp_path / "page.html").write_text('<img src="http://outside.invalid/image.png">')
    browser.get(f"{tmp_path.as_uri()}/page.html")
    assert outside(browser, tmp_path.as_uri()) == ["http://outside.invalid/image.png"]


def test_nothing_comes_from_another_host(site: Path) -> None:
    """No page and no style sheet names a script, style, font, image or frame of another host."""
    files = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(files) > len(PAGES)
    found = [(path, match[0]) for path in files for match in FOREIGN.finditer(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        '<script async src="https://cdn.invalid/a.js">',
        '<link rel="stylesheet" href="//fonts.invalid/b">',
        "src: url(https://fonts.invalid/c.woff2)",
        '@import "d.css"',
    ],
)
def test_another_host_is_found(text: str) -> None:
    """The pattern of the test above finds each kind."""
    assert FOREIGN.search(text)


def test_each_warning_fails_the_build(site: Path, tmp_path: Path) -> None:
    """A link to no page, a link to no heading, and a page of no kind each fail the build, with their names."""
    del site  # skips if there is no mkdocs
    copy = tmp_path / "copy"
    shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns("build", ".*_cache", ".venv", ".git", "__pycache__"))
    with (copy / "docs/ci.md").open("a", encoding="utf-8") as page:
        page.write("\n[one](gone.md) [two](systemd.md#no-such-heading)\n")
    (copy / "docs/stray.md").write_text("# A page of no kind\n")
    command = [str(MKDOCS / "bin/mkdocs"), "build", "--config-file", str(copy / "packaging/site/mkdocs.yml")]
    done = run(command, timeout=BUILD_SECONDS)
    assert (done.status, done.stdout.strip()) == (1, "Aborted with 3 warnings in strict mode!")
    for named in ("docs/gone.md", "#no-such-heading", "docs/stray.md"):
        assert named in done.stderr
