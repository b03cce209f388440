"""The documents: commands that exist, links that resolve, a README of one page."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
HISTORY = ("CHANGELOG.md", "docs/tried.md", "log/README.md")
"""Documents that also speak of earlier versions."""
PRESENT = ("README.md", "model/README.md", "scripts/GOPRO_dataset.md") + tuple(
    name for path in sorted(ROOT.glob("docs/*.md")) if (name := f"docs/{path.name}") not in HISTORY
)
TORCHRUN = {"--nproc_per_node", "--nnodes", "--node_rank", "--master_addr", "--master_port"}


def read(name) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [textwrap.dedent(block) for block in re.findall(rf"^ *```{language}\n(.*?)^ *```", read(name), re.M | re.S)]


def prose(name) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", read(name), flags=re.M | re.S)


def commands(name: str) -> list[list[str]]:
    """The words of each command: of the bash blocks, and of code in the text."""
    lines = [line for block in blocks(name, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:python|bash) [^`]+)`", prose(name).replace("\n", " "))
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and line[0].endswith(("python", "bash", "torchrun"))]


@cache
def known_flags(script: str) -> frozenset[str]:
    """The flags that the help of a script names; of a shell script, its text."""
    text = read(script)
    if script.endswith(".py"):
        text = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=ROOT).stdout
        assert text, f"{script} has no --help"
    return frozenset(re.findall(r"--[a-z][\w-]*", text))


COMMANDS = sorted({(name, shlex.join(line)) for name in PRESENT for line in commands(name)})


@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=lambda text: text[:60])
def test_a_command_names_a_script_and_flags_that_exist(name, line):
    words = shlex.split(line)
    script = next((word for word in words[1:] if word.endswith((".py", ".sh"))), "")
    assert (ROOT / script).is_file(), f"no script {script}"
    flags = {word.split("=")[0] for word in words[words.index(script) :] if re.match(r"--[a-z]", word)}
    assert sorted(flags - known_flags(script)) == []


@pytest.fixture(scope="module")
def every_flag() -> frozenset[str]:
    """The flags of all scripts."""
    scripts = [*ROOT.glob("*.py"), *ROOT.glob("scripts/**/*.py"), *ROOT.glob("scripts/*.sh")]
    names = [str(path.relative_to(ROOT)) for path in scripts if path.suffix == ".sh" or "__main__" in path.read_text()]
    return frozenset().union(*map(known_flags, names))


@pytest.mark.parametrize("name", PRESENT)
def test_flags_and_files_in_the_text_exist(name, every_flag):
    codes = re.findall(r"`([^`\n]+)`", prose(name))
    flags = {flag for code in codes for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
    assert sorted(flags - every_flag - TORCHRUN) == []
    files = {
        code for code in codes if re.fullmatch(r"(codes|scripts|tests|docs|imgs|log)/[\w./-]+|train_\w+\.py", code)
    }
    assert sorted(file for file in files if not (ROOT / file).exists()) == []


@cache
def anchors(name) -> frozenset[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = [title.lower() for title in re.findall(r"^#+ (.+)$", prose(name), re.M)]
    return frozenset(re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles)


@pytest.mark.parametrize("name", PRESENT + HISTORY)
def test_links_resolve(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            other = (ROOT / name).parent / file if file else ROOT / name
            assert other.exists(), f"{target}: no such file"
            assert not anchor or anchor in anchors(other.resolve()), f"{target}: no such heading"


@pytest.mark.parametrize("name", PRESENT)
def test_python_examples_import_what_is_there(name):
    for block in blocks(name, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_readme_is_one_page_that_links_every_document():
    assert len(read("README.md").encode()) <= 15_000
    assert all(f"]({name})" in read("README.md") for name in (*PRESENT[3:], "docs/tried.md", "CHANGELOG.md"))


def test_messages_name_sections_that_are_there():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("codes/**/*.py"), *ROOT.glob("scripts/**/*.*")]:
        if path.suffix in (".py", ".sh", ".yml"):
            for title in re.findall(r"README, ['\"](.+?)['\"][).,:]", path.read_text(encoding="utf-8")):
                assert f"\n## {title}\n" in read("README.md"), f"{path.name}: README has no section '{title}'"


def test_citation_names_the_paper():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["preferred-citation"]["title"] in read("README.md")
    assert "2403.09486" in citation["preferred-citation"]["url"]
