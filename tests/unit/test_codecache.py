# SPDX-License-Identifier: Apache-2.0
"""codecache: modules from one file, tested with a small package in separate processes."""

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cnihook
from cnihook import codecache
from cnihook.fast import codecache_file

WRITE = """\
import sys
sys.path.insert(0, sys.argv[1])
from cnihook.fast import codecache_file
codecache_file.write()
"""
MAIN = """\
import sys
sys.path.insert(0, sys.argv[1])
from cnihook import codecache
codecache.install_finder()
import cnihook.hook
from cnihook.words import first, second
if "small" not in sys.argv:
    import cnihook.words.third
third = sys.modules.get("cnihook.words.third")
print(first.VALUE, second.VALUE, third and third.__file__.removeprefix(sys.argv[1]))
print(*sorted(n for n, m in sys.modules.items() if type(m.__loader__).__name__ == "CodeCache"))
"""
HOOK = """\
from cnihook.words import second
def later():
    from cnihook.words import third
"""
ALL = "cnihook.hook cnihook.words cnihook.words.first cnihook.words.second cnihook.words.third"
SAID = "1 2 /cnihook/words/third.py"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a package whose modules are imported by MAIN."""
    package = tmp_path / "cnihook"
    fast, plugins, words = (package / name for name in ("fast", "plugins", "words"))
    for folder in (fast, plugins, words):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    shutil.copy(cnihook.__file__, package)
    shutil.copy(codecache.__file__, package)
    for name in ("bytecode.py", "codecache_file.py"):
        shutil.copy(Path(codecache_file.__file__).with_name(name), fast)
    (package / "hook.py").write_text(HOOK)
    (words / "first.py").write_text('"""A module."""\nVALUE = 1\n')
    (words / "second.py").write_text("from cnihook.words.first import VALUE\nVALUE += 1\n")
    (words / "third.py").write_text("")
    (tmp_path / "main").write_text(MAIN)
    return tmp_path


def write(tree: Path) -> None:
    subprocess.run([sys.executable, "-ISc", WRITE, str(tree)], check=True)


def command(tree: Path, *words: str) -> list[str]:
    return [sys.executable, "-IS", str(tree / "main"), str(tree), *words]


def run(tree: Path, *words: str, **environment: str) -> list[str]:
    """Return what the package prints, and the modules that came from the one file."""
    process = subprocess.run(
        command(tree, *words), env=environment, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout.splitlines()


def kept(tree: Path) -> Path:
    return tree / f"cnihook/__pycache__/modules.{sys.implementation.cache_tag}"


def test_modules_come_from_the_file_once_it_is_written(tree: Path) -> None:
    assert run(tree) == [SAID, ""]
    assert not kept(tree).exists(), "a program writes no file as a side effect"
    write(tree)
    assert run(tree) == [SAID, ALL]


def test_module_that_is_imported_later_has_its_own_segment(tree: Path) -> None:
    write(tree)

    segment = codecache.CodeCache(str(kept(tree)))._index
    together = ("cnihook.hook", "cnihook.words", "cnihook.words.first", "cnihook.words.second")
    assert len({segment[name] for name in together}) == 1
    assert segment["cnihook.words.third"] != segment["cnihook.hook"]
    assert run(tree, "small") == ["1 2 None", " ".join(together)]


def test_modules_of_several_plugins_are_unpacked_with_none_of_them(tree: Path) -> None:
    for name in ("one", "two"):
        (tree / f"cnihook/plugins/{name}.py").write_text("import cnihook.words.third\n")
    write(tree)

    segment = codecache.CodeCache(str(kept(tree)))._index
    names = ("cnihook.plugins.one", "cnihook.plugins.two", "cnihook.words.third")
    assert len({segment[name] for name in names}) == 3


def test_import_for_type_checkers_is_not_one(tree: Path) -> None:
    (tree / "cnihook/words/first.py").write_text(
        "VALUE = 1\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n    from cnihook.words import third\n"
    )
    write(tree)

    assert codecache.CodeCache(str(kept(tree)))._imports("cnihook.words.first") == ()


def test_only_plugins_keep_their_docstring(tree: Path) -> None:
    """The docstring of a plugin is its help."""
    text = "class Kind:\n    'A kind.'\n"
    for name in ("plugins/one", "words/fourth"):
        (tree / f"cnihook/{name}.py").write_text(f"'Its help.'\n{text}")
    (tree / "cnihook/hook.py").write_text(f"{HOOK}from cnihook.words import fourth\n")
    (tree / "main").write_text(
        MAIN.replace("import cnihook.hook", "import cnihook.hook, cnihook.plugins.one as one")
        + "fourth = sys.modules['cnihook.words.fourth']\n"
        + "print(one.__doc__, one.Kind.__doc__, fourth.__doc__, fourth.Kind.__doc__)\n"
    )
    assert run(tree)[2] == "Its help. A kind. Its help. A kind."
    write(tree)
    assert run(tree)[2] == "Its help. None None None"


def test_functions_keep_their_qualified_names(tree: Path) -> None:
    """An error without an object names the function that made the failing call: see fast.errors_text."""
    (tree / "cnihook/words/fourth.py").write_text("class Kind:\n    def look(self) -> None:\n        pass\n")
    (tree / "cnihook/hook.py").write_text(f"{HOOK}from cnihook.words import fourth\n")
    (tree / "main").write_text(
        MAIN + "print(sys.modules['cnihook.words.fourth'].Kind.look.__code__.co_qualname)\n"
    )
    write(tree)

    assert run(tree)[2] == "Kind.look"


def test_changed_source_is_read(tree: Path) -> None:
    write(tree)
    source = tree / "cnihook/words/first.py"
    source.write_text('"""A module."""\nVALUE = 5\n')  # the same size
    # Python's own bytecode file compares times in whole seconds.
    os.utime(source, (1, 1))
    assert run(tree) == [SAID.replace("1 2", "5 6"), ALL.replace("cnihook.words.first ", "")]
    write(tree)
    assert run(tree) == [SAID.replace("1 2", "5 6"), ALL]


def test_module_that_became_a_package_is_found(tree: Path) -> None:
    write(tree)
    words = tree / "cnihook/words"
    (words / "third").mkdir()
    (words / "third.py").rename(words / "third/__init__.py")
    (printed, _modules) = run(tree)
    assert printed == "1 2 /cnihook/words/third/__init__.py"


def test_removed_module_is_an_import_error(tree: Path) -> None:
    write(tree)
    (tree / "cnihook/words/third.py").unlink()
    process = subprocess.run(command(tree), capture_output=True, text=True, check=False)
    assert "No module named 'cnihook.words.third'" in process.stderr


@pytest.mark.parametrize("damage", ["empty", "short", "zeros", "text", "index", "form", "mixed"])
def test_damaged_file_is_not_used(tree: Path, damage: str) -> None:
    write(tree)
    data = kept(tree).read_bytes()
    kept(tree).write_bytes(
        {
            "empty": b"",
            "short": data[:-200],
            "zeros": bytes(len(data)),
            "text": b"no such thing, but a text of some length\n" * 20,
            "index": data[:40],
            "form": data[:3] + b"1" + data[4:],
            # A file system with its own cache may show this: the start of one version, then another.
            "mixed": data[:700] + marshal.dumps(None) * len(data),
        }[damage]
    )
    assert run(tree)[0] == SAID
    write(tree)
    assert run(tree) == [SAID, ALL]


def test_debug_does_not_use_the_file_without_line_numbers(tree: Path) -> None:
    write(tree)
    assert run(tree, CNIHOOK_DEBUG="1") == [SAID, ""]


def test_twenty_processes_at_once_write_the_file_whole(tree: Path) -> None:
    argv = [sys.executable, "-ISc", WRITE, str(tree)]
    running = [subprocess.Popen(argv) for _ in range(20)]
    assert {process.wait() for process in running} == {0}
    assert run(tree) == [SAID, ALL]
    assert [path.name for path in kept(tree).parent.glob("modules.*")] == [kept(tree).name]


def test_failed_write_leaves_the_old_file_and_no_draft(tree: Path) -> None:
    write(tree)
    before = kept(tree).read_bytes()
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n{WRITE}"

    process = subprocess.run([sys.executable, "-ISc", limited, str(tree)], capture_output=True, check=False)

    assert process.returncode != 0 and kept(tree).read_bytes() == before
    assert len(list(kept(tree).parent.glob("modules.*"))) == 1


def test_imports_of_a_module_are_loaded_with_it(tree: Path) -> None:
    """The order is right, and each module has its package, its file and its place in that package."""
    words = tree / "cnihook/words"
    (words / "fourth.py").write_text(
        '"""A fourth module."""\n'
        "from cnihook.words import inner, second\n"
        "from cnihook.words.inner import deep\n"
        "def say(a: int) -> str:\n"
        '    """Say it."""\n'
        "    return f'{a} {second.VALUE} {inner.__package__} {deep.__package__} {deep.__file__[-13:]}'\n"
    )
    (words / "inner").mkdir()
    (words / "inner/__init__.py").write_text("PATH = __path__\n")
    (words / "inner/deep.py").write_text("from cnihook.words import third\n")
    (tree / "cnihook/hook.py").write_text(f"{HOOK}from cnihook.words import fourth\n")
    (tree / "main").write_text(
        MAIN.replace("import cnihook.hook", "import cnihook.hook, cnihook.words.fourth as it")
        + "print(it.say(1), sys.modules['cnihook.words'].inner.deep.third.__spec__.name)\n"
    )
    expected = "1 2 cnihook.words.inner cnihook.words.inner inner/deep.py cnihook.words.third"
    assert run(tree)[2] == expected
    write(tree)
    _said, modules, last = run(tree)
    assert last == expected
    assert modules == " ".join(
        sorted([*ALL.split(), *(f"cnihook.words.{n}" for n in ("fourth", "inner", "inner.deep"))])
    )
