"""The page of `roundtrip report` in a browser: on a desk, on a phone, in the dark and on paper.

Skipped where there is no Chromium on the path; Debian has it as the package chromium.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.report import report
from tests.browser import Browser, chromium
from tests.test_report import NOW, filled

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="no chromium on the path: the page is not looked at"
)

SHOWN_DRAWINGS = "[...document.querySelectorAll('svg')].filter(each => each.checkVisibility()).length"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = filled(tmp_path_factory.mktemp("browser"))
    return report(project, out=project.root / "page.html", now=NOW).path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.mark.parametrize("width_px", [1280, 768, 360])
def test_the_page_asks_for_nothing_complains_of_nothing_and_fits(
    browser: Browser, page: Path, width_px: int
) -> None:
    browser.open(page, width_px=width_px)
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.ask(WIDER) == 0
    assert browser.ask("innerWidth") == width_px


def test_each_chart_is_shown_once_whatever_the_screen(browser: Browser, page: Path) -> None:
    shown = []
    for width_px in (1280, 360):
        browser.open(page, width_px=width_px)
        shown.append(browser.ask(SHOWN_DRAWINGS))
    assert shown == [browser.ask("document.querySelectorAll('figure').length")] * 2
    assert shown[0] > 0


@pytest.mark.parametrize("width_px", [1280, 820, 360])
def test_letters_of_a_chart_are_shrunk_on_no_screen(browser: Browser, page: Path, width_px: int) -> None:
    browser.open(page, width_px=width_px)
    heights = browser.ask(
        "[...document.querySelectorAll('svg text')].map(each => each.getBoundingClientRect().height)"
    )
    assert min(height for height in heights if height) >= 11


def test_the_page_turns_dark_with_its_reader(browser: Browser, page: Path) -> None:
    colors = []
    for scheme in ("light", "dark"):
        browser.open(page, scheme=scheme)
        colors.append(browser.ask(BACKGROUND))
    assert colors == ["rgb(245, 246, 248)", "rgb(17, 21, 27)"]


def test_what_is_folded_on_the_screen_is_printed(browser: Browser, page: Path) -> None:
    browser.open(page)
    visible = "document.querySelector('details table').checkVisibility()"
    assert browser.ask(visible) is False
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.ask(visible) is True
    assert browser.printed().startswith(b"%PDF")
    browser.call("Emulation.setEmulatedMedia", media="")


def test_a_script_that_slipped_into_the_page_would_not_run(browser: Browser, page: Path) -> None:
    spoilt = page.with_name("spoilt.html")
    text = page.read_text(encoding="utf-8")
    spoilt.write_text(
        text.replace("</body>", "<script>document.title = 'taken'</script></body>"), encoding="utf-8"
    )
    browser.open(spoilt)
    assert browser.ask("document.title") == "CRM report"
    assert len(browser.complaints()) == 1
