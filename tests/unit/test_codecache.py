# SPDX-License-Identifier: Apache-2.0
"""fast.codecache: modules from one file, tested with a small package in separate processes."""

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cnihook
from cnihook.fast import codecache
from cnihook.process import signals

MAIN = """\
import sys
sys.path.insert(0, sys.argv[1])
from cnihook.fast import codecache
codecache.install_finder(sys.argv[2])
from cnihook.words import first, second
if "small" not in sys.argv:
    import cnihook.words.third
third = sys.modules.get("cnihook.words.third")
print(first.VALUE, second.VALUE, third and third.__file__.removeprefix(sys.argv[1]))
print(*sorted(n for n, m in sys.modules.items() if type(m.__loader__).__name__ == "CodeCache"))
codecache.save()
"""
ALL = "cnihook.words cnihook.words.first cnihook.words.second cnihook.words.third"
SAID = "1 2 /cnihook/words/third.py"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a package whose modules are imported by MAIN."""
    fast, process, words = (tmp_path / "cnihook" / name for name in ("fast", "process", "words"))
    for folder in (fast, process, words):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    shutil.copy(cnihook.__file__, tmp_path / "cnihook")
    for name in ("bytecode.py", "codecache.py"):
        shutil.copy(Path(codecache.__file__).with_name(name), fast)
    shutil.copy(signals.__file__, process)
    (words / "first.py").write_text('"""A module."""\nVALUE = 1\n')
    (words / "second.py").write_text("from cnihook.words.first import VALUE\nVALUE += 1\n")
    (words / "third.py").write_text("")
    (tmp_path / "main").write_text(MAIN)
    return tmp_path


def command(tree: Path, *words: str) -> list[str]:
    return [sys.executable, "-IS", str(tree / "main"), str(tree), *(words or ("kind",))]


def run(tree: Path, *words: str, **environment: str) -> list[str]:
    """Return what the package prints, and the modules that came from the one file."""
    process = subprocess.run(
        command(tree, *words), env=environment, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout.splitlines()


def kept(tree: Path) -> Path:
    return tree / f"cnihook/__pycache__/codecache.kind.{sys.implementation.cache_tag}"


def test_second_process_loads_all_modules_from_the_file(tree: Path) -> None:
    assert run(tree) == [SAID, ""]
    assert run(tree) == [SAID, ALL]


def test_file_is_written_once(tree: Path) -> None:
    run(tree)
    before = kept(tree).stat()
    run(tree)
    assert kept(tree).stat().st_ino == before.st_ino
    assert [path.name for path in kept(tree).parent.glob("codecache*")] == [kept(tree).name]


def test_modules_that_only_some_processes_need_have_their_own_segment(tree: Path) -> None:
    small = "cnihook.words cnihook.words.first cnihook.words.second"
    assert run(tree, "kind", "small") == ["1 2 None", ""]
    assert run(tree) == [SAID, small]
    assert run(tree) == [SAID, ALL]
    assert run(tree, "kind", "small") == ["1 2 None", small]


def test_module_without_an_importer_starts_a_segment_after_a_change_too(tree: Path) -> None:
    """After a change all segments are rebuilt, in the order of the imports."""
    plugins = tree / "cnihook/plugins"
    plugins.mkdir()
    (plugins / "__init__.py").touch()
    (plugins / "one.py").write_text("import cnihook.words.second\n")
    (plugins / "two.py").touch()
    more = "import cnihook.words.third, cnihook.plugins.one, cnihook.plugins.two\n"
    (tree / "main").write_text(MAIN.replace("from cnihook.words import", f"{more}from cnihook.words import"))
    expected = {
        "cnihook.words": 0,
        "cnihook.words.third": 1,
        "cnihook.plugins": 2,
        **dict.fromkeys(["cnihook.plugins.one", "cnihook.words.second", "cnihook.words.first"], 3),
        "cnihook.plugins.two": 4,
    }
    for change in ("", "CHANGED = 1\n"):
        (tree / "cnihook/words/third.py").write_text(change)
        run(tree)
        index = codecache.CodeCache(str(kept(tree)))._index
        own = ("cnihook.fast", "cnihook.process")
        assert {n: piece for n, (_, _, _, piece, _) in index.items() if not n.startswith(own)} == expected


def test_each_kind_of_process_has_its_own_file(tree: Path) -> None:
    run(tree)
    assert run(tree, "another") == [SAID, ""]
    assert run(tree, "another") == run(tree) == [SAID, ALL]


def test_changed_source_is_read_again(tree: Path) -> None:
    run(tree)
    source = tree / "cnihook/words/first.py"
    source.write_text('"""A module."""\nVALUE = 5\n')  # the same size
    # Python's own bytecode file compares times in whole seconds.
    os.utime(source, (1, 1))
    assert run(tree) == [SAID.replace("1 2", "5 6"), ALL.replace("cnihook.words.first ", "")]
    assert run(tree) == [SAID.replace("1 2", "5 6"), ALL]


def test_module_that_became_a_package_is_found(tree: Path) -> None:
    run(tree)
    words = tree / "cnihook/words"
    (words / "third").mkdir()
    (words / "third.py").rename(words / "third/__init__.py")
    for _time in range(2):
        (printed, _modules) = run(tree)
        assert printed == "1 2 /cnihook/words/third/__init__.py"


def test_removed_module_is_an_import_error(tree: Path) -> None:
    run(tree)
    (tree / "cnihook/words/third.py").unlink()
    process = subprocess.run(command(tree), capture_output=True, text=True, check=False)
    assert "No module named 'cnihook.words.third'" in process.stderr


@pytest.mark.parametrize("damage", ["empty", "short", "zeros", "text", "index", "form", "mixed"])
def test_damaged_file_is_replaced(tree: Path, damage: str) -> None:
    run(tree)
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
    assert run(tree) == [SAID, ALL]


def test_debug_does_not_use_the_file_without_line_numbers(tree: Path) -> None:
    run(tree)
    assert run(tree, CNIHOOK_DEBUG="1") == [SAID, ""]


def test_process_runs_if_the_folder_cannot_be_written(tree: Path) -> None:
    shutil.rmtree(tree / "cnihook/__pycache__", ignore_errors=True)
    (tree / "cnihook/__pycache__").touch()  # not by its mode: root may write into any folder
    assert run(tree) == [SAID, ""]
    assert run(tree) == [SAID, ""]


def test_twenty_processes_at_once_write_the_file_whole(tree: Path) -> None:
    running = [subprocess.Popen(command(tree), stdout=subprocess.PIPE, text=True) for _ in range(20)]
    assert {process.communicate()[0].splitlines()[0] for process in running} == {SAID}
    assert run(tree) == [SAID, ALL]
    assert len(list(kept(tree).parent.glob("codecache*"))) == 1


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
    (tree / "main").write_text(
        MAIN.replace(
            "from cnihook.words import", "import cnihook.words.fourth as it\nfrom cnihook.words import"
        )
        + "print(it.say(1), it.__doc__, sys.modules['cnihook.words'].inner.deep.third.__spec__.name)\n"
    )
    expected = (
        "1 2 cnihook.words.inner cnihook.words.inner inner/deep.py A fourth module. cnihook.words.third"
    )
    assert run(tree)[2] == expected
    _said, modules, last = run(tree)
    assert last == expected
    assert modules == " ".join(
        sorted([*ALL.split(), *(f"cnihook.words.{n}" for n in ("fourth", "inner", "inner.deep"))])
    )


def test_module_that_cannot_be_loaded_fails_as_without_the_file(tree: Path) -> None:
    run(tree)
    (tree / "cnihook/words/first.py").write_text(
        "import os\nVALUE = 1 + int(os.environ.get('WRONG', '0'))\n"
    )
    run(tree)
    assert run(tree)[1] == ALL
    failed = subprocess.run(command(tree), env={"WRONG": "x"}, capture_output=True, text=True, check=False)
    assert "ValueError: invalid literal for int() with base 10: 'x'" in failed.stderr
    assert run(tree) == [SAID, ALL]


def test_change_of_one_source_keeps_what_a_module_imports(tree: Path) -> None:
    """The others are loaded before the module imports them, so this process does not see it do so."""
    words = tree / "cnihook/words"
    (words / "fourth.py").write_text("from cnihook.words import first, second, third\n")
    (tree / "main").write_text(
        MAIN.replace("from cnihook.words import", "import cnihook.words.fourth\nfrom cnihook.words import")
    )
    expected = tuple(f"cnihook.words.{name}" for name in ("first", "second", "third"))
    for change in ("", "CHANGED = 1\n"):
        (words / "third.py").write_text(change)
        run(tree)
        imported = codecache.CodeCache(str(kept(tree)))._index["cnihook.words.fourth"][4]
        assert sorted(imported) == sorted(expected)
