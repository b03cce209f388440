"""The rooms of the house: which may import which, and what stays importable by its name."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = {"errors", "files", "cache", "random"}
FLOORS = {"ground": 0, "model": 1, "paper": 2, "baselines": 3, "fast": 4, "engine": 5}
FLOORS |= {"inference": 6, "making": 6, "report": 6, "scripts": 7}


def room(module: str) -> str:
    """The room of 'codes.x.y' or 'scripts.x'."""
    parts = module.split(".")
    if parts[0] == "scripts":
        return "scripts"
    if len(parts) < 2 or parts[1] in GROUND:
        return "ground"
    return parts[1] if parts[1] in FLOORS else "paper"


def imports(path: Path) -> set[str]:
    """Modules of this project that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if (ROOT / Path(*name.split("."))).with_suffix(".py").is_file()}


@pytest.mark.parametrize("path", sorted((ROOT / "codes").rglob("*.py")), ids=lambda path: path.stem)
def test_no_import_runs_upwards_or_sideways(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    own = room(module)
    for other in imports(path):
        assert room(other) == own or FLOORS[room(other)] < FLOORS[own], f"{module} ({own}) imports {other}"


OFFICIAL = "dataset.SpikeData metrics.compute_img_metric model.bsn_model.BSN model.edsr_model.EDSR "
OFFICIAL += "model.ldn_model.Deblur_Net inference.Deblurrer"


@pytest.mark.parametrize("name", OFFICIAL.split())
def test_official_names_stay_importable(name):
    module, attribute = f"codes.{name}".rsplit(".", 1)
    assert callable(getattr(importlib.import_module(module), attribute))
