"""Pictures of the pages of the site as a desktop and a phone show them, and what is wrong there.

``python -m tools.screenshots FOLDER [PAGE …]`` opens pages of ``site/`` (``make docs`` or ``make
pages`` builds it) in a headless browser without a network, saves pictures, and fails where a page
complains, has a picture that is not there, or is wider than the screen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from .browser import Browser, find_browser

SITE = Path(__file__).resolve().parents[1] / "site"
#: One page of each kind.
PAGES = ("index.html", "choose.html", "models/index.html", "models/water-small.html",
         "tutorials/water.html", "api/phicalc.html", "cli.html", "results.html")  # fmt: skip
#: Name, and width and height in pixels of CSS.
SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}
#: Pictures are of pages up to so many pixels long.
LONGEST = 6000
_SIZES = """(() => {
  const page = document.documentElement;
  const wide = [...document.querySelectorAll("article *")].filter((each) => {
    const box = each.getBoundingClientRect();
    const scrolls = each.closest(".md-typeset__scrollwrap, pre, .equation, .md-nav");
    return box.right > innerWidth + 1 && !scrolls;
  }).map((each) => each.outerHTML.slice(0, 80));
  const broken = [...document.images].filter((each) => each.complete && !each.naturalWidth)
    .map((each) => each.src);
  return {width: page.scrollWidth, height: page.scrollHeight, wide: wide.slice(0, 3), broken};
})()"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


@contextmanager
def served() -> Iterator[str]:
    """Serve the site and yield its address: from the disk its search does not work."""
    handler = partial(_Quiet, directory=str(SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def look(browser: Browser, address: str, screen: str, folder: Path) -> list[str]:
    """Save the picture of a page, and return what is wrong with it."""
    width, height = SCREENS[screen]
    page = address.split("/", 3)[3]
    browser.open(address, width=width, height=height)
    found = browser.run(_SIZES)
    whole = min(max(found["height"], height), LONGEST)
    browser.resize(width=width, height=whole)
    browser.picture(folder / f"{page.replace('/', '-').removesuffix('.html')}-{screen}.png")
    faults = [*browser.complaints, *(f"picture not there: {each}" for each in found["broken"])]
    if found["width"] > width:
        faults.append(f"{found['width']} pixels wide: {' '.join(found['wide'])}")
    return [f"{page} on a {screen}: {fault}" for fault in faults]


def main(folder: Path, pages: list[str]) -> int:
    """Look at pages and return the exit status."""
    path = find_browser()
    if path is None:
        sys.exit("no browser here: apt-get install chromium, or set PHICALC_BROWSER")
    if not (SITE / "index.html").is_file():
        sys.exit("no site here: make pages builds it")
    folder.mkdir(parents=True, exist_ok=True)
    faults = []
    with served() as address, Browser(path) as browser:
        for page in pages or PAGES:
            for screen in SCREENS:
                faults += look(browser, f"{address}/{page}", screen, folder)
                print(f"{page}, {screen}", flush=True)
    print("\n".join(faults) or "nothing wrong")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
