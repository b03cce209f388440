"""The page of a result: its data, and what it does in a real browser."""

import json
import re
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from codes.report.page import TEMPLATE, Layer, Page, Samples, Section, View, capture_view, of_views, read_page
from codes.report.plots import Line, Panel
from codes.report.table import Table
from tests.browser import browser, complaints, fetched
from tests.conftest import ROOT, call, paths_of

INSTANTS = (20, 68, 116)
SOON = 8000
"""Milliseconds: four times what a page of 1,000 samples may take on a quiet machine, as tests rarely have one."""


def data_of(path) -> dict:
    """The data that a page was given."""
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.S)[1])


def make_view(folder, name="car", shift=0):
    """A capture of 32x48 pixels: grey frames of a known error against their sharp ones."""
    folder.mkdir(parents=True)
    blur = np.full((32, 48, 3), 128, np.uint8)
    sharp = {}
    for number, instant in enumerate(INSTANTS):
        cv2.imwrite(str(folder / f"{instant:03}.png"), np.full((32, 48, 3), 100 + number + shift, np.uint8))
        cv2.imwrite(str(folder / f"true{instant}.png"), np.full((32, 48, 3), 90, np.uint8))
        sharp[instant] = folder / f"true{instant}.png"
    spike = (np.arange(137)[:, None, None] % 4 == 0) * np.ones((1, 8, 12), np.uint8)
    return capture_view(folder, blur, spike, INSTANTS, "Student", sharp, name)


def make_page(folder, count=3) -> Path:
    """A page with a table, samples with and without pictures, and a plot."""
    views = [make_view(folder / f"c{number}", f"scene/{number}", shift=5 * number) for number in range(count)]
    table = Table("methods", "Means", {"Method": "", "PSNR": ".2f"}, [["Blur", 16.5], ["Student", None]], ["split"])
    values = {"Blur": {"psnr": [20.0, 30.0, 25.0, 10.0]}, "Student": {"psnr": [22.0, 31.0, 24.0, 15.0]}}
    names = ["scene/0", "scene/1", "scene/2", "</script><b>x"]
    samples = Samples(names, values, [*views, None])
    lines = [Line("a", np.array([1.0, 10, 100]), np.array([1.0, 2, 3])), Line("b", np.array([1.0]), np.array([2.0]))]
    plots = [Panel("loss", "Loss", "steps", "loss", lines, "x")]
    page = Page("Everything", [Section("Means", table), Section("Samples", samples=samples, plots=plots)])
    page.about = {"Weights": "model/x.pth", "Nothing": ""}
    return page.write(folder / "index.html")


def test_the_data_of_a_capture(tmp_path):
    view = make_view(tmp_path / "a b" / "ä")
    page = data_of(Page("x", views=[view]).write(tmp_path / "index.html"))
    (shown,) = page["views"]
    assert shown["times"] == list(INSTANTS) and shown["size"] == [32, 48]
    blur, student, sharp, spikes = shown["layers"]
    assert [layer["name"] for layer in shown["layers"]][:3] == ["Blurry input", "Student", "Sharp"]
    assert student["images"] == [f"a%20b/%C3%A4/{instant:03}.png" for instant in INSTANTS]
    for number, value in enumerate(student["psnr"]):
        pair = (np.full((8, 8, 3), 90, np.uint8), np.full((8, 8, 3), 100 + number, np.uint8))
        assert value == pytest.approx(peak_signal_noise_ratio(*pair, data_range=255), abs=1e-3)
    assert len(blur["images"]) == 1 and len(blur["psnr"]) == 3 and len(sharp["images"]) == len(spikes["images"]) == 3
    # a pixel that fires in 5 or 6 of 21 frames; the brightest picture is white
    lights = [cv2.imread(str(tmp_path / "a b" / "ä" / "spikes" / f"{t:03}.png"))[0, 0, 0] for t in INSTANTS]
    counts = [(np.abs(np.arange(t - 10, t + 11)) % 4 == 0).sum() for t in INSTANTS]
    assert lights == [round(255 * count / max(counts)) for count in counts]


def test_psnr_only_where_a_sharp_frame_exists(tmp_path):
    folder = tmp_path / "c"
    make_view(folder)
    sharp = {68: folder / "true68.png", 70: folder / "true20.png"}
    view = capture_view(folder, np.zeros((32, 48, 3), np.uint8), np.ones((137, 8, 12)), INSTANTS, "x", sharp)
    assert [layer.name for layer in view.layers][-2:] == ["x", "Spikes (TFP, 21 frames)"]
    assert [value is None for value in view.layers[1].psnr] == [True, False, True]
    assert of_views([view]).values["x"]["psnr"] == [view.layers[1].psnr[1]]


def test_names_cannot_leave_the_data(tmp_path):
    text = make_page(tmp_path).read_text()
    assert text.count("</script>") == TEMPLATE.read_text().count("</script>") and "<b>x" not in text
    assert data_of(tmp_path / "index.html")["sections"][1]["samples"]["names"][3] == "</script><b>x"


def test_a_page_read_back_is_the_page(tmp_path):
    """With names that an address, JSON or UTF-8 does not hold as they are."""
    files = [tmp_path / "a" / name for name in ("1 %.png", "ä#?.png", "\udcff.png", "</script>.png")]
    layers = [Layer("Blurry <b>", files[:1], [21.5]), Layer("é", files, [None, 1.25, 30.0, 0.1])]
    view = View("a/1", (48, 64), [20, 44, 68, 92], layers, {"left": 1}, ["a note"])
    page = Page("title", views=[view], about={"Command": "x --y"}, notes=["below"], fps=5)
    page.write(tmp_path / "a" / "index.html")
    assert read_page(tmp_path / "a" / "index.html") == page
    text = (tmp_path / "a" / "index.html").read_text()
    (tmp_path / "b.html").write_text(text[: text.index('"fps"')])
    assert read_page(tmp_path / "b.html") is None and read_page(tmp_path / "none.html") is None


def test_a_page_asks_for_nothing_from_elsewhere():
    text = TEMPLATE.read_text()
    assert "default-src 'none'" in text and not re.search(r"(src|href)=[\"']?(https?:)?//", text)
    assert len(text.splitlines()) <= 600


def wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


def contrast(*colours) -> float:
    """The contrast ratio of two colours, #rgb or #rrggbb, as WCAG 2 defines it."""
    lights = []
    for colour in colours:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        coded = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        light = np.where(coded <= 0.03928, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
        lights.append(light @ [0.2126, 0.7152, 0.0722])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path):
    make_page(tmp_path / "made")
    moved = shutil.move(tmp_path / "made", tmp_path / "elsewhere")  # as scp brings it
    with browser(tmp_path) as driver:
        find = lambda css: driver.find_elements("css selector", css)  # noqa: E731
        one = lambda css: find(css)[0]  # noqa: E731
        run = driver.execute_script
        driver.get((moved / "index.html").as_uri())

        # sorting
        column = lambda n: [row.text for row in find(f".samples tbody tr > :nth-child({n})")]  # noqa: E731
        assert column(3) == ["22.00", "31.00", "24.00", "15.00"]
        find(".samples thead button")[2].click()
        assert column(3) == ["31.00", "24.00", "22.00", "15.00"]
        assert find(".samples thead th")[2].get_attribute("aria-sort") == "descending"
        find(".samples thead button")[2].click()
        assert column(3) == ["15.00", "22.00", "24.00", "31.00"]
        find(".samples select")[-1].send_keys("gain")
        next(node for node in find(".samples button") if node.text == "Worst first").click()
        assert column(2) == ["-1.00", "1.00", "2.00", "5.00"]
        assert column(1) == ["scene/2", "scene/1", "scene/0", "</script><b>x"]
        one("input[type=search]").send_keys("scene")
        assert len(column(1)) == 3

        # a sample opens the viewer
        assert not one("#viewer").is_displayed()
        next(node for node in find(".samples tbody button") if node.text == "scene/1").click()
        assert one("#viewer").is_displayed() and one("#viewer h2").text == "scene/1"
        source = lambda n: find(".pane img")[n].get_attribute("src").split("/elsewhere/")[1]  # noqa: E731
        wait(lambda: all(run("return [...document.querySelectorAll('.pane img')].map(i => i.naturalWidth > 0)")))

        # the slider moves frames, and so do keys
        run("const s = document.getElementById('time'); s.value = 0; s.dispatchEvent(new Event('input'))")
        assert (source(0), source(1), source(2)) == ("c1/blur.png", "c1/020.png", "c1/spikes/020.png")
        body = one("body")
        body.send_keys("\ue014")  # arrow right
        assert source(1) == "c1/068.png" and "t = 68, 2 of 3" in one("#clock").text
        body.send_keys("\ue010")  # end
        assert source(1) == "c1/116.png" and source(2) == "c1/spikes/116.png"
        body.send_keys("\ue012")  # arrow left
        expected = peak_signal_noise_ratio(
            np.full((8, 8, 3), 90, np.uint8), np.full((8, 8, 3), 106, np.uint8), data_range=255
        )
        assert find(".tag")[1].text == f"Student {expected:.2f} dB"
        one("#play").click()
        wait(lambda: source(1) != "c1/068.png")
        one("#play").click()

        # the wipe
        run("const s = document.getElementById('wipe'); s.value = 25; s.dispatchEvent(new Event('input'))")
        assert find(".pane img")[1].value_of_css_property("clip-path") == "inset(0px 0px 0px 25%)"
        from selenium.webdriver import ActionChains

        width = one(".pane").size["width"]
        ActionChains(driver).click_and_hold(one(".handle")).move_by_offset(round(width * 0.5), 0).release().perform()
        assert run("return viewer.wipe") == pytest.approx(0.75, abs=0.02)

        # zoom is shared by all pictures, also side by side
        shown = source(1)
        body.send_keys("+")
        one("#beside").click()
        transforms = {node.get_attribute("style") for node in find(".pane img")}
        assert len(find(".pane")) == 3 and len(transforms) == 1 and "scale(1.5)" in transforms.pop()
        ActionChains(driver).key_down("\ue008").send_keys("\ue014").key_up("\ue008").perform()  # shift, arrow right
        assert run("return viewer.x") == pytest.approx(-0.25 - 0.1) and source(1) == shown
        body.send_keys("0")
        assert "scale(1)" in find(".pane img")[0].get_attribute("style")
        ActionChains(driver).scroll_to_element(one(".pane")).perform()

        # plots: a line goes and comes back; names of all controls; colours
        legend = find(".plots .legend button")[0]
        before = len(find(".plots svg path"))
        legend.click()
        assert len(find(".plots svg path")) == before - 1 and legend.get_attribute("aria-pressed") == "false"
        plot = one(".plots svg")
        plot.send_keys("\ue010")  # end: the last point; the viewer does not move
        assert one(".plots .say").text == "b · steps 1 · loss 2" and source(1) == shown
        plot.send_keys("\ue012")
        assert one(".plots .say").text == "b · steps 1 · loss 2"
        controls = "[...document.querySelectorAll('button,select,input')]"
        named = "n.getAttribute('aria-label') || n.labels?.[0]?.textContent"
        assert run(f"return {controls}.filter(n => !({named})).length") == 0
        dark = lambda: run("return getComputedStyle(document.body).backgroundColor")  # noqa: E731
        first = dark()
        one("#theme").click()
        assert dark() != first
        media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        driver.refresh()
        assert dark() == "rgb(20, 23, 27)"  # as the system wants it
        pairs = [("--ink", "--paper"), ("--soft", "--paper"), ("--accent", "--paper"), ("--on-accent", "--accent")]
        for theme in ("dark", "light"):
            run("document.documentElement.dataset.theme = arguments[0]", theme)
            style = "getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
            for pair in pairs:
                assert contrast(*(run(f"return {style}", name) for name in pair)) >= 4.5, (theme, pair)

        # a phone's width
        phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        assert run("return innerWidth") == 360
        next(node for node in find(".samples tbody button") if node.text == "scene/1").click()
        assert run("return document.documentElement.scrollWidth <= innerWidth")
        assert complaints(driver) == [] and fetched(driver) == {"file", "data"}


@pytest.mark.slow
def test_a_thousand_samples(tmp_path):
    """Three rows, two metrics, a picture of each sample: it opens and sorts at once."""
    rows = ("Blur", "x", "y")
    values = {
        row: {metric: [20 + (7 * i % 1000) / 100 + n for i in range(1000)] for metric in ("psnr", "ssim")}
        for n, row in enumerate(rows)
    }
    views = [View(f"s/{i}", (4, 4), [68], [Layer("x", [tmp_path / f"{i}.png"])]) for i in range(1000)]
    samples = Samples([f"s/{i:04}" for i in range(1000)], values, list(views))
    page = Page("Many", [Section("Samples", samples=samples)]).write(tmp_path / "index.html")
    assert page.stat().st_size < 5e6
    cv2.imwrite(str(tmp_path / "857.png"), np.zeros((4, 4), np.uint8))
    with browser(tmp_path) as driver:
        find = lambda css: driver.find_elements("css selector", css)  # noqa: E731
        driver.get(page.as_uri())
        took = driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
        script = "const t = performance.now(); arguments[0].click(); document.body.offsetHeight; "
        took = [took, driver.execute_script(script + "return performance.now() - t", find("thead button")[2])]
        print(f"{took} ms to open and to sort")
        assert max(took) < SOON
        assert find(".samples tbody tr")[0].text == "s/0857 29.99 30.99 31.99"
        find(".samples tbody button")[0].click()
        assert find(".pane img")[0].get_attribute("src").endswith("/857.png") and complaints(driver) == []


@pytest.fixture(scope="module")
def written(tiny, checkpoints, tmp_path_factory):
    """The folder with what every script writes that has a page."""
    out = tmp_path_factory.mktemp("written")
    common = ["--base_folder", tiny, "--device", "cpu"]
    paths = paths_of(checkpoints)
    call("scripts/deblur.py", *common, "--out", out / "d", "--frames", 3)
    words = ["--methods", "blur", "sdm21", "--metrics", "psnr", "--workers", 0, "--eval_images", 1]
    call("scripts/tables.py", *common, "--out", out / "t", *words)
    for count, script in enumerate(("bsn", "sr", "deblur"), 1):
        words = ["--test_mode", "--workers", 0, "--save_folder", out / script, *paths[: 2 * count]]
        call(f"train_{script}.py", *common, *words)
    few = ["--vth", 1, 8, "--motion", "--shift", "--ratio", "--noise", "--size", "64x96", "--samples", 1]
    call("scripts/robustness.py", "--out", out / "r", "--methods", "blur", "sdm21", *few)
    call("scripts/plot_runs.py", ROOT / "log" / "photo" / "Deblur", "--out", out / "curves.html")
    return out


@pytest.mark.slow
def test_what_scripts_write(written):
    found = data_of(written / "d" / "index.html")
    assert len(found["views"]) == 2 and found["sections"][0]["samples"]["rows"][0] == "Blurry input"
    assert found["sections"][0]["samples"]["rows"][1:] == ["Student SDMNet, joined along the motion"]
    for page in (written / "d").rglob("index.html"):
        assert all(len(view["times"]) == 3 for view in data_of(page)["views"])
    found = data_of(written / "t" / "index.html")
    samples = found["sections"][1]["samples"]
    table = json.loads((written / "t" / "methods.json").read_text())
    assert samples["views"] == [0, None] and samples["rows"] == [row["Method"] for row in table["rows"]]
    assert np.mean(samples["values"]["psnr"][1]) == pytest.approx(table["rows"][1]["PSNR, Vth 1"])
    names = [layer["name"] for layer in found["views"][0]["layers"]]
    assert names == [*samples["rows"], "Sharp", "Spikes (TFP, 21 frames)"]
    about = dict(data_of(written / "deblur" / "test" / "test_mode" / "index.html")["about"])
    assert "DeblurNet_100.pth" in about["Weights"] and {"Data", "Device", "Command", "Versions"} <= set(about)


@pytest.mark.slow
def test_what_scripts_write_opens(written, tmp_path):
    pages = sorted(written.rglob("*.html"))
    assert len(pages) == 9  # two captures and both, the tables, three stages, robustness, curves
    with browser(tmp_path) as driver:
        count = "return document.querySelectorAll('.plots svg').length"
        for page in pages:
            driver.get(page.as_uri())
            data = data_of(page)
            plots = sum(len(section["plots"]) for section in data["sections"])
            assert driver.execute_script(count) == plots
            for number in range(len(data["views"])):
                driver.execute_script("viewer.open(arguments[0])", number)
                wait(lambda: driver.execute_script("return viewer.images.every(n => n.complete && n.naturalWidth)"))
            assert complaints(driver) == [], page
        assert fetched(driver) <= {"file", "data"}


def test_layers_of_one_picture_serve_all_instants(tmp_path):
    view = View("x", (4, 4), [1, 2], [Layer("a", [tmp_path / "a.png"])])
    assert data_of(Page("x", views=[view]).write(tmp_path / "index.html"))["views"][0]["layers"][0]["images"] == [
        "a.png"
    ]
