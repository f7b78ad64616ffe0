# SPDX-License-Identifier: Apache-2.0
"""The house rules that a program can check: allowed imports, style, types, licence, size."""

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from tests.support.skip import need

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "cnihook"
SPDX = "# SPDX-License-Identifier: Apache-2.0"

# From the top down.  A part may import itself and the parts on the lines below it.  No part imports a
# plugin: plugins are loaded by name, when they are called.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"doctor", "hook"},
    {"cluster", "container"},
    {"names"},
    {"request"},
    {"policy"},
    {"mdns", "resolver"},
    {"plugins", "runtime"},
    {"sdk"},
    {"nftables"},
    {"links"},
    {"conformance", "dhcp", "ipam", "oci"},
    {"keeper"},
    {"protocol"},
    {"linux", "log", "types"},
    {"fast"},
    {"codecache", "process"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
DEPENDENCIES = {"psutil", "pyroute2"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def scripts() -> Iterator[Path]:
    """Yield every program of the checkout that is not a Python module."""
    for folder in ("scripts", ".ci", "oci-examples", "tests"):
        for path in sorted((CHECKOUT / folder).rglob("*")):
            if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
                with path.open("rb") as file:
                    if path.suffix == ".sh" or file.read(2) == b"#!":
                        yield path


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def imports(path: Path, text: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield line and full name of each import of a file, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(text or path.read_text(), name(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = path.relative_to(CHECKOUT).with_suffix("").parts[: -node.level]
                module = ".".join([*package, *filter(None, [module])])
            if module == "cnihook":  # from cnihook import log
                for alias in node.names:
                    yield node.lineno, f"cnihook.{alias.name}"
            else:
                yield node.lineno, module


def part_of(path: Path) -> str:
    """Return `runtime` for cnihook/runtime/chain.py, `hook` for cnihook/hook.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def may_import(part: str, other: str) -> bool:
    if other in ("", "__version__"):  # the package itself
        return True
    if "plugins" in (other, part) and part == other:
        return False
    return other != "plugins" and (part == other or LEVEL[part] < LEVEL[other])


def test_every_part_has_a_level() -> None:
    """Add a new folder or module at the top to LAYERS; without a level, its imports are not checked."""
    parts = {part_of(path) for path in sources()} - {"__init__"}

    assert parts <= set(LEVEL)


@pytest.mark.parametrize("path", sources(), ids=name)
def test_imports_point_down(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        loaded = {"os", "sys"}  # loaded by Python's own start
        # What it imports of cnihook is for type checkers; tests/unit/test_library.py holds that.
        other = {module for _line, module in imports(path) if not module.startswith("cnihook.")}
        assert other <= loaded, "each start would pay for it"
        return

    wrong = []
    for line, module in imports(path):
        top, _, rest = module.partition(".")
        if top == "cnihook":
            if not may_import(part_of(path), rest.partition(".")[0]):
                wrong.append(f"{name(path)}:{line}: {part_of(path)} may not import {module}")
        elif top == "pytest" and path.name.startswith("test_"):
            pass  # the template of a plugin
        elif top not in sys.stdlib_module_names | DEPENDENCIES | {"_typeshed"}:
            wrong.append(
                f"{name(path)}:{line}: {module} is neither a part of cnihook nor of Python nor a dependency"
            )
    assert not wrong


# Few operations load lease_index.  Its readers of a lease would be one more module of each ADD.
CIRCLE = ("cnihook.ipam.lease_index", "cnihook.ipam.leases")


def test_modules_form_no_circle() -> None:
    """Imports in functions and for type checking count, too: a module can be read after those it uses."""
    modules = {
        name(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
        for path in sources()
    }
    uses = {module: used_modules(path, modules.keys()) - {module} for module, path in modules.items()}
    uses[CIRCLE[0]].discard(CIRCLE[1])
    while leaves := [module for module, others in uses.items() if not others & uses.keys()]:
        for module in leaves:
            del uses[module]

    assert uses == {}


def used_modules(path: Path, modules: Collection[str]) -> set[str]:
    """Return those of `modules` that a file imports, without the packages that they are in."""
    used: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            used.update(each if each in modules else node.module or "" for each in names)
        elif isinstance(node, ast.Import):
            used.update(alias.name for alias in node.names)
    return (used & set(modules)) - {"cnihook"}


def test_plugin_types_are_listed_nowhere() -> None:
    """A new plugin is one file, so what distinguishes plugins is in their TRAITS and FIELDS.

    The conformance suite is for the plugins of others, too, and cannot ask them.
    """
    types = {path.stem.replace("_", "-") for path in (PACKAGE / "plugins").glob("*.py")}
    lists = []
    for path in sources():
        if part_of(path) not in ("plugins", "conformance"):
            for node in ast.walk(ast.parse(path.read_text())):
                items = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.Constant)]
                names = {item.value for item in items} & types
                if len(names) > 1:
                    lists.append((name(path), sorted(map(str, names))))

    assert lists == []


PROGRAMS = {
    "bench",
    "deb",
    "debian",
    "demo",
    "docs",
    "first-packets",
    "fuzz",
    "soak",
    "test",
    "test-on",
}  # for developers of cnihook, not part of it


@pytest.mark.parametrize(
    "path", [p for p in sorted((CHECKOUT / "scripts").iterdir()) if p.name not in PROGRAMS], ids=name
)
def test_launchers_only_launch(path: Path) -> None:
    """A checkout runs the same code as an installation by pip, so a launcher has no code of its own."""
    if "python" not in path.read_text().partition("\n")[0]:
        return

    parts = [module.split(".")[1] for _, module in imports(path) if module.startswith("cnihook.")]
    assert set(parts) <= {"cli", "hook", "codecache"} and len(parts) <= 2


def test_every_form_of_import_is_seen() -> None:
    """This checks the reader itself, on which the rules above depend."""
    path = PACKAGE / "runtime" / "imaginary.py"
    text = """\
import os, cnihook.cli
from cnihook import log
from cnihook.plugins.bridge import add
from . import chain
from .chain import add
from .. import hook
def later():
    from ..oci import state
"""
    expected = [
        (1, "os"),
        (1, "cnihook.cli"),
        (2, "cnihook.log"),
        (3, "cnihook.plugins.bridge"),
        (4, "cnihook.runtime"),
        (5, "cnihook.runtime.chain"),
        (6, "cnihook.hook"),
        (8, "cnihook.oci"),
    ]

    assert list(imports(path, text)) == expected


def run(*argv: str) -> None:
    process = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=600)
    if process.returncode != 0:
        pytest.fail(f"{' '.join(argv)}\n{process.stdout}{process.stderr}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    run(sys.executable, "-m", "ruff", "check", "--quiet", ".")


def test_ruff_would_reformat_nothing() -> None:
    """The format needs no discussion, and no change hides among reformatted lines."""
    run(sys.executable, "-m", "ruff", "format", "--check", "--quiet", "--diff", ".")


@pytest.mark.long
def test_types_are_complete_and_right() -> None:
    run(sys.executable, "-m", "mypy")


@pytest.mark.long
@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_types_of_the_package_are_right_for_newer_python(version: str) -> None:
    """Each takes 4.5 s of processor time.  With the tests, which are checked above for 3.11, it is 9 s."""
    run(sys.executable, "-m", "mypy", "--python-version", version, "cnihook")


def test_shellcheck_finds_nothing() -> None:
    need("shellcheck")
    first_lines = {path: path.read_text().partition("\n")[0] for path in scripts()}
    shell = [name(path) for path, line in first_lines.items() if "python" not in line and "make" not in line]

    run("shellcheck", *shell)


def test_every_source_names_its_licence() -> None:
    files = [*sources(), *(CHECKOUT / "tests").rglob("*.py"), *scripts(), CHECKOUT / "pyproject.toml"]

    assert [name(path) for path in files if SPDX not in path.read_text().splitlines()[:2]] == []


def test_no_file_is_longer_than_400_lines() -> None:
    files = [*sources(), *(CHECKOUT / "tests").rglob("*.py"), *scripts()]

    too_long = {name(path): len(path.read_text().splitlines()) for path in files}
    assert {path: lines for path, lines in too_long.items() if lines > 400} == {}
