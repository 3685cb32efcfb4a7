"""The page of `tea spool report` in a real browser: it opens, filters, sorts, shows a job.

With keys, in the dark, on a phone, with 10,000 jobs, and with data that try to become something else than text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, Page, program
from tests.support import cannot, wait_until
from tests.tools.kit import run, verb, write_workflow
from tests.tools.test_report import EVIL, hostile_run
from tests.tools.test_reporting import made_up
from tools.reporting.data import Limits, make
from tools.reporting.page import page as page_of


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = program()
    if path is None:
        cannot("there is no chromium")
    with Browser(path) as running:
        yield running


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of 12 jobs, 3 of which failed, after a retry each."""
    here = tmp_path_factory.mktemp("small")
    write_workflow(here, retries=1)
    run(here, items=12, bad=(1, 5, 7))
    verb(here, "report")
    return here / "report.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 10,000 jobs, every 50th of which failed."""
    path = tmp_path_factory.mktemp("large") / "report.html"
    path.write_bytes(page_of(make(made_up(10_000, failed=tuple(range(0, 10_000, 50))), Limits(details=10))))
    return path


@pytest.fixture
def tab(browser: Browser, small: Path) -> Iterator[Page]:
    opened = browser.page(small)
    yield opened
    assert opened.complaints() == []
    assert opened.requests() == []
    opened.close()


def names(page: Page) -> list[str]:
    """The jobs in the table, by their number."""
    found: list[str] = page.js(
        "[...document.querySelectorAll('#table tbody th')].map(e => e.textContent.slice(10, 14))"
    )
    return found


def is_open(page: Page) -> bool:
    """Whether the panel with a job is open; it follows the address, which a click changes, a moment later."""
    found: bool = page.js("document.querySelector('#detail').open")
    return found


def open_job(page: Page, selector: str) -> None:
    page.click(selector)
    wait_until(lambda: is_open(page))


def focus(page: Page) -> str:
    """What has the focus: its id, or its text."""
    found: str = page.js("document.activeElement.id || document.activeElement.textContent")
    return found


# -- the table --------------------------------------------------------------------------------------------------


def test_search_and_filters(tab: Page) -> None:
    assert len(names(tab)) == 12
    tab.click("#search")
    tab.type("item 5")
    assert names(tab) == ["0005"]
    assert tab.text("#found") == "1 of 12 jobs"
    tab.click("#filters [type=reset]")
    assert len(names(tab)) == 12
    tab.click("#filters [value=failed]")
    assert names(tab) == ["0001", "0005", "0007"]
    tab.click("#filters [value=succeeded]")
    assert len(names(tab)) == 12
    tab.click("#filters [value=failed]")
    assert len(names(tab)) == 9
    tab.click("#search")
    tab.type("nothing like that")
    assert (names(tab), tab.text("#page-number")) == ([], "none fits")


def test_figures_and_bars_filter_the_table(tab: Page) -> None:
    tab.click(".figures [data-state=failed]")
    assert names(tab) == ["0001", "0005", "0007"]
    tab.click("#filters [type=reset]")
    counted = tab.js("""(() => {
        const slots = [...document.querySelectorAll('.histogram .slot')];
        const full = slots.find(e => !e.querySelector('title').textContent.includes('no jobs'));
        full.id = 'full';
        const parts = full.querySelector('title').textContent.split(': ')[1].split(', ');
        return parts.reduce((sum, part) => sum + parseInt(part), 0);
    })()""")
    tab.click("#full .ground")
    assert len(names(tab)) == counted > 0
    assert not tab.js("document.querySelector('#by-range').hidden")
    tab.click("#by-range")
    assert len(names(tab)) == 12


def test_sorting_tells_itself(tab: Page) -> None:
    tab.click("#table [data-sort=tries]")
    assert names(tab)[:3] == ["0001", "0005", "0007"]
    assert tab.js("document.querySelector('.c-tries').getAttribute('aria-sort')") == "descending"
    assert tab.js("document.querySelectorAll('#table [aria-sort=none]').length") == 6
    tab.click("#table [data-sort=tries]")
    assert names(tab)[-3:] == ["0001", "0005", "0007"]
    tab.click("#table [data-sort=length]")
    places = tab.js("""(() => {
        const data = JSON.parse(document.querySelector('#data').textContent);
        let first = 0;
        return data.jobs.tries.map((count, job) => [data.tries.length[first += count, first - 1], job])
            .sort((a, b) => b[0] - a[0] || a[1] - b[1]).map(([, job]) => job);
    })()""")
    assert names(tab) == [f"{place:04d}" for place in places]
    tab.click("#table [data-sort=name]")
    assert names(tab) == [f"{n:04d}" for n in range(12)]
    tab.click("#table [data-sort=name]")
    assert names(tab)[0] == "0011"


# -- a job ------------------------------------------------------------------------------------------------------


def test_a_job_and_back(tab: Page) -> None:
    open_job(tab, "#table tbody tr:nth-child(6) a")
    told = tab.text("#detail")
    for text in (
        "001-split/0005-split",
        "ValueError: bad item 5",
        '"item": 5',
        "about to 5",
        "careful",
        "tea spool explain",
    ):
        assert text in told
    assert tab.js("document.querySelectorAll('#detail table tbody .badge').length") == 2
    assert tab.js("location.hash") == "#job=001-split%2F0005-split"
    tab.click("#detail [aria-label='Next job']")
    wait_until(lambda: "001-split/0006-split" in tab.text("#detail h2"))
    tab.key("Escape")
    wait_until(lambda: not is_open(tab) and tab.js("location.hash") == "")
    assert focus(tab) == "001-split/0005-split"  # back where one came from


def test_a_link_to_a_job(browser: Browser, small: Path) -> None:
    page = browser.page(small)
    page.js("location.hash = 'job=001-split%2F0003-split'")
    wait_until(lambda: is_open(page))
    assert '"value": 6' in page.text("#detail")
    page.js("location.hash = 'job=nothing'")
    wait_until(lambda: not is_open(page))
    page.close()


def test_with_keys_alone(tab: Page) -> None:
    tab.key("Tab")
    assert focus(tab) == "Skip to the table of jobs"
    tab.key("Enter")
    assert focus(tab) == "jobs"
    tab.key("Tab")
    assert focus(tab) == "search"
    tab.type("0007")
    for _ in range(40):
        tab.key("Tab")
        if focus(tab) == "001-split/0007-split":
            break
    assert tab.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.key("Enter")
    wait_until(lambda: is_open(tab))
    assert tab.js("document.querySelector('#detail').contains(document.activeElement)")


# -- the timeline -----------------------------------------------------------------------------------------------


def painted(page: Page) -> int:
    """How many points of the timeline have the colour of a success."""
    found: int = page.js("""(() => {
        const canvas = document.querySelector('#chart canvas');
        const probe = document.createElement('canvas').getContext('2d');
        probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--succeeded');
        probe.fillRect(0, 0, 1, 1);
        const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
        const all = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let count = 0;
        for (let i = 0; i < all.length; i += 4) count += all[i] === r && all[i + 1] === g && all[i + 2] === b;
        return count;
    })()""")
    return found


def test_zoom_move_and_the_whole_run(browser: Browser, large: Path) -> None:
    page = browser.page(large)
    whole = page.text("#range")
    assert painted(page) > 300
    page.js("document.querySelector('#chart').focus()")
    page.key("+")
    near = page.text("#range")
    assert near != whole
    page.key("ArrowRight")
    assert page.text("#range") not in (near, whole)
    page.key("0")
    assert page.text("#range") == whole
    page.click("#zoom-in")
    assert page.text("#range") == near or page.text("#range") != whole
    page.click("#zoom-fit")
    left, top, width = page.js(
        "(r => [r.left, r.top, r.width])(document.querySelector('#overview').getBoundingClientRect())"
    )
    page.drag((left + width * 0.5, top + 20), (left + width * 0.6, top + 20))
    chosen = page.text("#range")
    assert chosen != whole
    for mode in ("host", "fanout", "worker"):
        page.js(
            f"rows = document.querySelector('#rows'); rows.value = '{mode}'; rows.dispatchEvent(new Event('change'))"
        )
        page.settle()
        assert painted(page) > 300
    page.close()


def test_a_click_on_a_bar_opens_its_job(tab: Page) -> None:
    tab.js("document.querySelector('#chart').scrollIntoView()")
    place = tab.js("""(() => {
        const canvas = document.querySelector('#chart canvas'), box = canvas.getBoundingClientRect();
        const scale = canvas.width / box.width, context = canvas.getContext('2d');
        const left = Math.round(130 * scale), top = Math.round(30 * scale);
        const all = context.getImageData(left, top, canvas.width - left, canvas.height - top);
        for (let y = 3; y < all.height; y += 2) for (let x = 0; x < all.width - 2; x++) {
            const at = (n) => (y * all.width + x + n) * 4;
            const rich = (n) => {
                const [r, g, b, alpha] = all.data.slice(at(n), at(n) + 4);
                return Math.max(r, g, b) - Math.min(r, g, b) > 60 && alpha === 255;
            };
            // Whole numbers: a click has no others, and shall hit the same as the pointer that hovers.
            const place = [box.left + (left + x + 1) / scale, box.top + (top + y) / scale];
            if (rich(0) && rich(1)) return place.map(Math.round);
        }
        return null;
    })()""")
    assert place is not None
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    tab.settle()
    assert "attempt" in tab.text("#tip")
    tab.click_at(*place)
    wait_until(lambda: is_open(tab))
    assert tab.text("#tip").startswith(tab.text("#detail h2"))


# -- looks ------------------------------------------------------------------------------------------------------


def ground(page: Page) -> str:
    found: str = page.js("getComputedStyle(document.body).backgroundColor")
    return found


def test_light_and_dark(browser: Browser, small: Path) -> None:
    page = browser.page(small, dark=True)
    dark = ground(page)
    assert painted(page) > 0
    page.click("#theme")
    assert (page.text("#theme"), ground(page)) == ("Theme: light", "rgb(255, 255, 255)")
    assert painted(page) > 0
    page.click("#theme")
    assert (page.text("#theme"), ground(page)) == ("Theme: dark", dark)
    page.look(1280, 900, dark=False)
    page.click("#theme")
    assert (page.text("#theme"), ground(page)) == ("Theme: auto", "rgb(255, 255, 255)")
    page.close()


CONTRAST = """(() => {
    const probe = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = (colour) => {
        probe.clearRect(0, 0, 1, 1); probe.fillStyle = colour; probe.fillRect(0, 0, 1, 1);
        return [...probe.getImageData(0, 0, 1, 1).data];
    };
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = (colour) => colour.slice(0, 3).map(v => linear(v / 255))
        .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const colour = rgb(getComputedStyle(e).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
    };
    const poor = new Set();
    for (const e of document.querySelectorAll('body *')) {
        if (e.closest('script, style, noscript, svg, option') || !e.checkVisibility() || e.disabled) continue;
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
        const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) poor.add(`${e.localName}.${e.className}: ${contrast.toFixed(2)}`);
    }
    return [...poor];
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(browser: Browser, small: Path, dark: bool) -> None:
    """Contrast as of WCAG 2, level AA."""
    page = browser.page(small, dark=dark)
    assert page.js(CONTRAST) == []
    open_job(page, "#table tbody tr:nth-child(2) a")
    assert page.js(CONTRAST) == []
    page.close()


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, small: Path) -> None:
    page = browser.page(small, 360, 740, touch=True)
    assert page.js("document.documentElement.scrollWidth") == 360
    open_job(page, "#table tbody tr:nth-child(2) a")
    assert page.js("(e => e.scrollWidth <= e.clientWidth && e.clientWidth <= 360)(document.querySelector('#detail'))")
    assert page.complaints() == []
    page.close()


def test_names_and_roles(tab: Page) -> None:
    """Everything that one can do something with has a name; charts have texts instead of them."""
    nameless = tab.js("""[...document.querySelectorAll('button, a[href], input, select, [role=img], [tabindex="0"]')]
        .filter(e => e.checkVisibility() && !e.getAttribute('aria-label') && !e.textContent.trim())
        .filter(e => !e.closest('label')?.textContent.trim())
        .map(e => e.outerHTML.slice(0, 80))""")
    assert nameless == []
    assert tab.js("document.querySelectorAll('main table thead th:not([scope=col])').length") == 0
    assert tab.js("(ids => ids.length === new Set(ids).size)([...document.querySelectorAll('[id]')].map(e => e.id))")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {node.get("role", {}).get("value") for node in nodes}
    assert {"main", "navigation", "table", "columnheader", "rowheader", "search", "status", "region"} <= roles


# -- other data -------------------------------------------------------------------------------------------------


def test_ten_thousand_jobs(browser: Browser, large: Path) -> None:
    page = browser.page(large)
    assert page.text("#found") == "10,000 jobs"
    assert page.js("document.querySelectorAll('#table tbody tr').length") == 50
    page.click("#next")
    assert page.text("#page-number") == "51 to 100"
    page.click("#table [data-sort=length]")
    assert page.text("#table tbody tr:first-child th") == "001-split/09999-split"
    page.click("#filters [value=failed]")
    assert page.text("#found") == "200 of 10,000 jobs"
    page.click("#search")
    page.type("9950")
    wait_until(lambda: page.text("#found") == "1 of 10,000 jobs")
    page.click("#table tbody a")
    wait_until(lambda: "tea spool show" in page.text("#detail"))
    assert page.js("document.querySelectorAll('*').length") < 3000
    assert page.complaints() == []
    page.close()


def test_hostile_data_stay_text(browser: Browser, tmp_path: Path) -> None:
    hostile_run(tmp_path)
    verb(tmp_path, "report")
    page = browser.page(tmp_path / "report.html")
    for place in range(1, len(page.js("[...document.querySelectorAll('#table tbody tr')].map(e => 1)")) + 1):
        open_job(page, f"#table tbody tr:nth-child({place}) a")
        page.key("Escape")
        wait_until(lambda: not is_open(page))
    assert "tea report" in page.js("document.title")
    assert page.js("document.querySelectorAll('img, iframe, object, embed, link[rel=stylesheet]').length") == 0
    assert page.js("document.scripts.length") == 2
    page.js(f"document.querySelector('#search').value = {json.dumps(EVIL[2])}")
    page.js("document.querySelector('#search').dispatchEvent(new Event('input'))")
    page.settle()
    assert EVIL[2] in page.text("#table tbody")
    assert (page.complaints(), page.requests()) == ([], [])
    page.close()


def test_runs_without_jobs_open_too(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "empty.html").write_bytes(page_of(make(made_up(0), Limits())))
    page = browser.page(tmp_path / "empty.html")
    assert page.text("#found") == "0 jobs"
    assert page.complaints() == []
    page.close()
