"""The report in a real browser: nothing fails, nothing leaves the page, and no mouse or eye is needed."""

import json
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from time import perf_counter

import pytest

from inscl.report.instruction_map import InstructionMap, MappedInstruction, MappedTask, Move
from inscl.report.page import write_plan_report, write_run_report, write_stage_report
from report_runs import made_run
from test_report_stage import three_months

webdriver = pytest.importorskip("selenium.webdriver", reason="the browser tests need selenium")
axe = pytest.importorskip("axe_core_python", reason="the browser tests need axe-core-python")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
HOSTILE = "<script>alert(1)</script>"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no Chromium with its chromedriver")


class Browser:
    """A page seen at a size and in a scheme."""

    def __init__(self, driver, width: int, height: int, scheme: str) -> None:
        self.driver = driver
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)  # fmt: skip
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def cdp(self, command: str, **arguments: object):
        return self.driver.execute_cdp_cmd(command, arguments)

    def open(self, page: Path) -> None:
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(page.as_uri())

    def js(self, script: str):
        return self.driver.execute_script(script)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:")]

    def press(self, *keys: str) -> None:
        for key in keys:
            for kind in ("rawKeyDown", "keyUp"):
                self.cdp("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])


KEYS = {"Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "Escape": 27}


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Iterator[object]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Reports of a run with hostile names and answers: the page, one of answers, and one of a plan."""
    folder = tmp_path_factory.mktemp("reports")
    tasks = (HOSTILE, "b & c", "汉字任务", "x" * 190, "rhymes")
    run = made_run(folder / "run", tasks=tasks, seeds=(0, 1, 2), joint=True, answer=f"{HOSTILE}<b>bold</b>")
    page = write_run_report([run], folder / "report", figures=())
    plan = next((run / "stages").glob("inscl-*-05-*/plan.json"))
    return {
        "run": page,
        "answers": page.with_name("answers-01.html"),
        "plan": write_plan_report(plan, folder / "plan", figures=(), instruction_map=mapped()),
        "stage": write_stage_report(three_months(folder)[-1].folder, folder / "stage", figures=()),
    }


def mapped() -> InstructionMap:
    """Three instructions with a hostile text in each of three tasks, and what moves between them."""
    moves = tuple(Move(start=i, end=2 - i, share=1 / 3) for i in range(3))
    new, *earlier = (
        MappedTask(
            name=f"{HOSTILE}{k}",
            instructions=tuple(
                MappedInstruction(text=f"{HOSTILE} {i}", x=i, y=k + i % 2 / 2, rows=3, chosen=i % 2) for i in range(3)
            ),
            all_instructions=9,
            distance=0.5,
            moves=moves,
        )
        for k in range(3)
    )
    return InstructionMap(new=new, earlier=tuple(earlier), left_out=2, spread=0.4)


def test_who_points_at_a_task_of_the_map_sees_what_it_would_move(driver, pages):
    browser = Browser(driver, *SIZES["desktop"], "light")
    browser.open(pages["plan"])
    shown = "return [...document.querySelectorAll('#map .moved')].map((e) => getComputedStyle(e).visibility)"
    assert browser.js(shown) == ["hidden"] * 6
    mark = driver.find_elements("css selector", "#map .moving .m")[0]
    webdriver.ActionChains(driver).move_to_element(mark).perform()
    assert browser.js(shown) == ["visible"] * 3 + ["hidden"] * 3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "answers", "plan", "stage"])
def test_a_page_is_quiet_and_accessible_and_fits(driver, pages, name, size, scheme):
    browser = Browser(driver, *SIZES[size], scheme)
    browser.open(pages[name])
    driver.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; });")
    assert browser.complaints() == []
    assert browser.requests() == [pages[name].as_uri()]
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")  # never sideways
    assert browser.js("return document.querySelectorAll('main script, main b > b, main img').length") == 0
    assert "alert(1)" in browser.js("return document.body.innerText")
    background = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 29)")
    assert serious(driver) == []


def serious(driver) -> list[str]:
    """What axe calls moderate or worse, with where it is; best practices included."""
    driver.execute_script((files(axe) / "axe.min.js").read_text(encoding="utf-8"))
    found = driver.execute_async_script("axe.run().then(arguments[0])")["violations"]
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical", "moderate")
    ]


def test_figures_answer_to_mouse_and_keyboard(driver, pages):
    browser = Browser(driver, *SIZES["desktop"], "light")
    browser.open(pages["run"])
    cell = "document.querySelector('#scores .m')"
    browser.js(f"{cell}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    x, y = browser.js(f"const b = {cell}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]")
    browser.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tip = "const t = document.getElementById('tip'); return t.hidden ? null : t.textContent"
    assert browser.js(tip).startswith(f"untrained model: {HOSTILE}: ")
    assert browser.js("return document.querySelectorAll('svg title').length") == 0  # no second tip from the browser
    browser.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert browser.js(tip) is None
    browser.js("document.querySelector('#gain .fit').focus()")
    browser.press("ArrowRight", "ArrowRight")
    assert browser.js(tip).startswith("none, stage 3: ")
    browser.press("ArrowLeft")
    assert browser.js(tip).startswith("none, stage 2: ")
    browser.press("Escape")
    assert browser.js(tip) is None


def test_the_page_can_be_walked_by_tab_and_starts_with_a_way_to_the_content(driver, pages):
    browser = Browser(driver, *SIZES["desktop"], "light")
    browser.open(pages["run"])
    seen = []
    for _ in range(30):
        browser.press("Tab")
        seen.append(browser.js("const e = document.activeElement; return e.className || e.id || e.tagName"))
        assert browser.js(
            "const b = document.activeElement.getBoundingClientRect(); return b.width > 0 && b.height > 0"
        )
    assert seen[:2] == ["skip", "scheme"]
    assert "scroll fit" in seen
    assert "choose-scores" in seen


def test_answers_are_filtered_by_what_became_of_them_and_by_words(driver, pages):
    browser = Browser(driver, *SIZES["desktop"], "light")
    browser.open(pages["answers"])
    choose = "const f = document.getElementById('filter'); f.fate.value = '{}'; f.words.value = '{}'; "
    choose += "f.dispatchEvent(new Event('input'))"
    shown = "return [...document.querySelectorAll('tr[data-fate]')].filter((r) => r.offsetHeight > 0).{}"
    fates = browser.js("return [...document.querySelectorAll('tr[data-fate]')].map((r) => r.dataset.fate)")
    assert 0 < fates.count("lost") < len(fates)
    browser.js(choose.format("lost", ""))
    assert browser.js(shown.format("map((r) => r.dataset.fate)")) == ["lost"] * fates.count("lost")
    assert browser.js("return document.querySelector('#filter output').textContent").startswith(
        f"{fates.count('lost')} "
    )
    texts = browser.js("return [...document.querySelectorAll('tr[data-fate]')].map((r) => r.textContent.toLowerCase())")
    wanted = [text for text in texts if "wording" in text and "2" in text]
    browser.js(choose.format("", "WORDING 2"))
    assert browser.js(shown.format("map((r) => r.textContent.toLowerCase())")) == wanted
    assert 0 < len(wanted) < len(texts)
    browser.js(choose.format("", "no such words"))
    assert browser.js(shown.format("length")) == 0
    assert browser.complaints() == []


def test_another_stream_and_another_scheme_can_be_chosen(driver, pages):
    browser = Browser(driver, *SIZES["desktop"], "light")
    browser.open(pages["run"])
    choose = "const s = document.getElementById('choose-scores'); s.value = '{}'; s.dispatchEvent(new Event('change'))"
    caption = "return document.querySelector('#panel-scores figcaption').textContent"
    first = browser.js(caption)
    assert "mean of 3 streams" in first
    browser.js(choose.format(1))
    assert "seed 0" in browser.js(caption)
    browser.js(choose.format(0))
    assert browser.js(caption) == first
    assert browser.js("return document.querySelectorAll('#panel-scores .m[data-tip]').length") > 0
    browser.js("document.getElementById('scheme').click()")
    assert browser.js("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert browser.js("return document.getElementById('scheme').textContent") == "Light"
    assert browser.complaints() == []


def test_the_largest_run_stays_small_and_opens_soon(driver, tmp_path):
    """16 stages x 8 strategies x 9 streams; what it weighs, and how soon it is there."""
    run = made_run(
        tmp_path / "run",
        tasks=[f"task number {i}" for i in range(16)],
        strategies=("none", "random", "inscl", "dynamic", "insinfo", "prototype-data", "prototype-instruction",
                    "diverse-instruction"),
        orders=("given", "reverse", "random:1"),
        seeds=(0, 1, 2),
        rows=4,
        joint=True,
    )  # fmt: skip
    page = write_run_report([run], tmp_path / "report", figures=())
    assert page.stat().st_size < 10e6
    assert all(path.stat().st_size < 10e6 for path in page.parent.glob("*.html"))
    browser = Browser(driver, *SIZES["desktop"], "light")
    spent = []
    for _ in range(3):
        begun = perf_counter()
        browser.open(page)
        spent.append(perf_counter() - begun)
    assert min(spent) < 2
