"""The package as pip installs it."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import numpy as np
import codes
from codes.inference import Deblurrer
random = np.random.default_rng(0)
blur, spike = random.integers(0, 256, (64, 96, 3), np.uint8), random.random((137, 16, 24)) < 0.3
print(codes.__file__, Deblurrer(device="cpu")(blur, spike, frames=2).shape)
"""


@pytest.mark.slow
def test_an_editable_install_finds_the_shipped_weights_from_any_folder(tmp_path):
    """Of a copy of what pip looks at, so that nothing is left here; into a folder that stands for an environment."""
    clone, elsewhere, site = tmp_path / "clone", tmp_path / "elsewhere", tmp_path / "site"
    elsewhere.mkdir()
    for name in ("codes", "model", "scripts", "tests/golden", "log", "imgs"):  # other folders at the top do not disturb
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", "train_bsn.py"):
        shutil.copy(ROOT / name, clone / name)
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*words, "--disable-pip-version-check", "--prefix", site, "-e", clone], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (packages,) = site.rglob("site-packages")
    metadata = next(packages.glob("s_sdm-*.dist-info/METADATA")).read_text()
    requires = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    assert "Requires-Dist: torch>=2.6" in requires and not any("pytest" in line for line in requires)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program = f"import site\nsite.addsitedir({str(packages)!r})\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=elsewhere, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{clone}/codes/__init__.py (2, 64, 96, 3)\n"
