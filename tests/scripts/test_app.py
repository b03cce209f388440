"""scripts/app.py: what its checks say, and the app in a real browser."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from codes.dat import read_dat, write_dat
from codes.errors import InputError
from codes.inference import Deblurrer
from codes.inference.streams import other_bits
from scripts.app import AppConfig, Asked, deblur, look, remedies, sweep
from tests.browser import browser, complaints, fetched
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def capture(tiny):
    """A photo of 64x96 pixels and its stream."""
    (photo, *_), (stream, *_) = (sorted((tiny / "test" / name).rglob("*.*")) for name in ("blur_data", "spike_data"))
    return photo, stream


def asked(photo, stream, **given):
    fields = {"auto": True, "flip": "none", "bit_order": "little", "tone": "found", "exif": "yes"}
    return Asked(str(photo), str(stream), **fields | dict.fromkeys(("size", "exposure", "crop"), "") | given)


LIMITS = AppConfig(max_frames=9)


def test_a_sound_capture(capture):
    text, found = look(asked(*capture), LIMITS)
    assert text.startswith("**Image and spikes fit:** photo 64x96, 137 spike frames of 16x24") and not found


def test_each_remedy(capture):
    assert remedies("the spikes are ...; try --flip vertical", asked(*capture)) == {"flip": "vertical"}
    assert remedies("try --flip vertical", asked(*capture, flip="horizontal")) == {"flip": "both"}
    assert remedies("try --flip both", asked(*capture, flip="horizontal")) == {"flip": "vertical"}
    assert remedies("try --bit_order big", asked(*capture)) == {"bit_order": "big"}
    assert remedies("try --crop=-4,0,64,96", asked(*capture)) == {"crop": "-4,0,64,96"}
    assert remedies("try --crop=-4,0,64,96", asked(*capture, crop="0,0,8,8")) == {}
    assert remedies("try --crop=-4,0,64,96", asked(*capture, crop=None)) == {"crop": "-4,0,64,96"}  # as Gradio has it
    assert remedies("--exposure 0:138 leaves a.dat", asked(*capture)) == {}
    assert remedies("try --exposure 3:90 (it explains all but 1 %)", asked(*capture)) == {"exposure": "3:90"}
    assert remedies("cannot be told (best 3:90): --exposure START:END", asked(*capture)) == {"exposure": "3:90"}
    assert remedies("looks like srgb; try --tone gamma:1.8", asked(*capture)) == {"tone": "gamma:1.8"}
    assert remedies("by its Exif orientation 6, try --no-exif", asked(*capture)) == {"exif": "no"}
    assert remedies("a.dat may hold frames of 16x24 (9 frames), 8x48 (9 frames)", asked(*capture)) == {"size": "16x24"}


def edited(capture, folder, photo=lambda image: image, stream=lambda spike: spike):
    """The capture with other pixels."""
    files = folder / "photo.png", folder / "stream.dat"
    cv2.imwrite(str(files[0]), photo(cv2.imread(str(capture[0]))))
    write_dat(files[1], stream(read_dat(capture[1], 16, 24)))
    return files


def srgb(image):
    """Linear light to numbers as IEC 61966-2-1 defines them."""
    light = image / 255
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.uint8(np.rint(255 * coded))


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ({"photo": lambda image: image[::-1]}, {"flip": "vertical"}),
        ({"photo": lambda image: image[::-1, ::-1]}, {"flip": "both"}),
        ({"stream": other_bits}, {"bit_order": "big"}),
        ({"photo": srgb}, {"tone": "srgb"}),
        ({"photo": lambda image: np.roll(image, 8, axis=1)}, {"crop": "0,8,64,96"}),
    ],
)
def test_a_fault_is_named_and_its_remedy_mends_it(capture, tmp_path, fault, remedy):
    files = edited(capture, tmp_path, **fault)
    text, found = look(asked(*files, auto=False), LIMITS)
    assert "**Check:**" in text and found == remedy
    text, found = look(asked(*files, auto=False, **remedy), LIMITS)
    assert text.startswith("**Image and spikes fit:**") and not found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": "16 by 24"}, "spike size is '16 by 24'; expected HEIGHTxWIDTH"),
        ({"exposure": "1:"}, "expected START:END"),
        ({"crop": "99999999,0,1,1"}, "expected TOP,LEFT,HEIGHT,WIDTH"),
        ({"exposure": "0:138"}, "expected 0 <= START < END <= 137"),
    ],
)
def test_bad_fields_are_messages(capture, given, said):
    with pytest.raises(InputError, match=said):
        asked(*capture, **{"exposure": "0:137"} | given).open(LIMITS)
    text, _ = look(asked(*capture, **{"exposure": "0:137"} | given), LIMITS)
    assert text.startswith("**Cannot be used:**") and said in text


def test_limits_and_bad_files(capture, tmp_path):
    assert "more than 0.001 megapixels" in look(asked(*capture), AppConfig(max_megapixels=0.001))[0]
    (tmp_path / "bad.png").write_bytes(b"nothing")
    text, _ = look(asked(tmp_path / "bad.png", capture[1]), LIMITS)
    assert text.startswith("**Cannot be used:** bad.png is no image") and str(tmp_path) not in text
    (tmp_path / "bad.dat").write_bytes(b"odd")
    assert look(asked(capture[0], tmp_path / "bad.dat"), LIMITS)[0].startswith("**Cannot be used:** bad.dat")
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros((9_000_000,), np.uint8))
    assert os.path.getsize(tmp_path / "bomb.npz") < 1e5
    assert (
        "bomb.npz unpacks to more than 8 MB" in look(asked(capture[0], tmp_path / "bomb.npz"), AppConfig(max_mb=1))[0]
    )
    for frames, said in (("ten", "expected a number"), ("10", "the limit of this app is 9"), ("20,999", "outside")):
        with pytest.raises(InputError, match=said):
            deblur(asked(*capture), Deblurrer("tfp", device="cpu"), frames, LIMITS, tmp_path, lambda done, of: None)


def test_old_files_are_removed(tmp_path):
    for name, age in (("old", 120), ("new", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    threading.Thread(target=sweep, args=([tmp_path, tmp_path / "none"], 0.01), daemon=True).start()
    wait(lambda: not (tmp_path / "old").exists(), 5)
    assert (tmp_path / "new").is_dir()


def wait(condition, seconds=90):
    """The condition's value, when it is true; an element may be gone before it is read."""
    from selenium.common.exceptions import WebDriverException

    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(WebDriverException, IndexError, OSError):
            if found := condition():
                return found
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.2)


@contextlib.contextmanager
def running(folder):
    """The app in a process of its own: (address, folder of its temporary files)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"TMPDIR": str(folder)}
    words = [sys.executable, ROOT / "scripts/app.py", "--port", str(port), "--device", "cpu", "--max_mb", "1"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}/"
        wait(lambda: process.poll() is not None or urllib.request.urlopen(address, timeout=5).status == 200)
        assert process.poll() is None, (folder / "log").read_text()
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_the_app_in_a_browser(capture, tmp_path):
    pytest.importorskip("gradio", reason="pip install -r requirements-app.txt")
    photo, stream = capture
    (tmp_path / "bad.png").write_bytes(b"nothing")
    flipped = tmp_path / "flipped.png"
    cv2.imwrite(str(flipped), cv2.imread(str(photo))[::-1])
    home = tmp_path / "home"
    home.mkdir()
    with browser(tmp_path) as driver, running(home) as address:
        find = lambda css: driver.find_elements("css selector", css)  # noqa: E731
        text = lambda css: find(css)[0].text  # noqa: E731
        # not at its place, which a message may cover for a moment
        click = lambda css: driver.execute_script("arguments[0].click()", find(css)[0])  # noqa: E731
        driver.get(address)

        def upload(css, file):
            clear = f"{css} button[aria-label='Clear'], {css} button[aria-label='Remove this file']"
            if find(clear):
                click(clear)
            wait(lambda: find(f"{css} input[type=file]"))[0].send_keys(str(file))

        # a bad file is a message
        wait(lambda: find("#blur input[type=file]"))
        upload("#blur", tmp_path / "bad.png")
        upload("#spike", stream)
        wait(lambda: "Cannot be used: bad.png is no image" in text("#status"))

        # a flipped photo is mended; without that the check says so, and its button mends it
        upload("#blur", flipped)
        wait(lambda: "Image and spikes fit" in text("#status") and "flip" in text("#status"))
        click("#known button")
        wait(lambda: find("#auto input")[0].is_displayed())
        click("#auto input")
        wait(lambda: "Check:" in text("#status") and "flipped vertically" in text("#status"))
        wait(lambda: find("#mend_flip")[0].is_displayed())
        click("#mend_flip")
        wait(lambda: "Image and spikes fit" in text("#status"))

        # a file over the limit is a message, and so are instants that are not there
        (tmp_path / "large.png").write_bytes(bytes(1_100_000))
        upload("#blur", tmp_path / "large.png")
        wait(lambda: "maximum allowed size" in find("body")[0].text)
        upload("#blur", flipped)
        wait(lambda: "Image and spikes fit" in text("#status"))

        def instants(asked):
            field = find("#frames input, #frames textarea")[0]
            field.clear()
            field.send_keys(asked)
            wait(lambda: find("#go")[0].is_enabled())
            click("#go")

        instants("68,137")
        wait(lambda: "Cannot be used: instant 137 is outside the 137-frame stream" in text("#done"))

        # deblur, look, download
        instants("20,36,52,68,84,100,116")
        wait(lambda: "Done: 7 frames by Student" in text("#done"))
        made = wait(lambda: list(home.glob("ssdm-app-*/results/*/frames.zip")))[0]
        assert len(zipfile.ZipFile(made).namelist()) == 7 and (made.parent / "sequence.mp4").is_file()
        driver.switch_to.frame(wait(lambda: find("#page iframe"))[0])
        wait(lambda: find(".pane img")[1].get_attribute("src").endswith("/068.png"))
        wait(lambda: driver.execute_script("return document.querySelectorAll('.pane img')[1].naturalWidth") == 96)
        driver.switch_to.default_content()

        # an example is rendered; its job is cancelled, and what it made is removed
        click("#example")
        wait(lambda: "photo 256x448" in text("#status"))
        instants("97")
        wait(
            lambda: (
                list(home.glob("ssdm-app-*/results/*/020.png")) and len(list(made.parents[1].glob("*/020.png"))) == 2
            )
        )
        click("#cancel")
        wait(lambda: "Cancelled" in text("#done"))
        assert len(list(made.parents[1].glob("*/020.png"))) == 1 and not any(x.is_displayed() for x in find("#cancel"))
        assert not [line for line in complaints(driver) if "results/" in line]
        assert {host for host in fetched(driver) if "." in host} == {"127.0.0.1"}
    assert 'scripts/app.py", line' not in (home / "log").read_text(), "a traceback"
    assert not list(home.glob("ssdm-app-*")), "uploads are left"


def test_it_listens_here_alone_unless_told():
    assert AppConfig().host == "127.0.0.1" and Path(ROOT, "requirements-app.txt").is_file()
