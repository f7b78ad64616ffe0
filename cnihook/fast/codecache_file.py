# SPDX-License-Identifier: Apache-2.0
"""
The file of cnihook.codecache: which modules it has, in which segments, and how it is written.

The sources show which module imports which.  An import at the head of a module happens with it, one in a
function only if that is called.  Programs and plugins are the roots.  A segment has the modules that the
same roots need; one has all that many roots need, because a hook needs most of these.  A module that no root
needs at once has a segment of its own.
"""

import ast
import marshal
import os
from collections.abc import Iterable, Iterator

import cnihook
from cnihook import codecache
from cnihook.fast import bytecode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

# What a start of a container, of a command or of a plugin needs; nothing waits for the other commands.
_PROGRAMS = (
    *("cli.main", "hook", "container.attach", "container.detach"),
    *("cli.priv_net_run", "cli.privnet.run", "protocol.executable"),
)
_FEW, _MANY = 3, 5  # roots
# Roots that nearly always come together.
_USUAL = (
    {"cnihook.cli.main", "cnihook.hook", "cnihook.container.detach"},
    {"cnihook.plugins.bridge", "cnihook.plugins.host_local"},
)
# They run before the file is opened.
_EARLY = frozenset(("cnihook", "cnihook.codecache"))


class Module:
    """A module of cnihook: its source, and what that imports at once, and later."""

    def __init__(self, name: str, package: bool) -> None:
        self.name = name
        self.package = package
        self.source = codecache.source_of(name, package)
        self.stamp = codecache.stamp(self.source)  # from before the source is read
        self.imports: list[str] = []
        self.late: list[str] = []
        with open(self.source, "rb") as file:
            tree = ast.parse(file.read(), self.source)
        for names, is_late in _imports(tree.body, False):
            for each in names:
                to = self.late if is_late else self.imports
                if each not in to and each != name:
                    to.append(each)


def _imports(body: "Iterable[ast.AST]", is_late: bool) -> "Iterator[tuple[list[str], bool]]":
    """Yield the modules that each statement imports, and whether it runs after the import of its module."""
    for node in body:
        if isinstance(node, ast.Import):
            yield [name for alias in node.names for name in _with_packages(alias.name)], is_late
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = _with_packages(node.module)
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield names + [name for name in inner if _is_package(name) is not None], is_late
        elif isinstance(node, ast.If) and _is_for_type_checkers(node):
            yield from _imports(node.orelse, is_late)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _imports(ast.iter_child_nodes(node), True)
        else:
            yield from _imports(ast.iter_child_nodes(node), is_late)


def _is_for_type_checkers(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _with_packages(name: str) -> list[str]:
    parts = name.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return names if parts[0] == "cnihook" else []


def _is_package(name: str) -> bool | None:
    """Return True for a package, False for another module, None if there is no such module."""
    for package in (True, False):
        if os.path.exists(codecache.source_of(name, package)):
            return package
    return None


def modules() -> dict[str, Module]:
    """Return the modules that the file is for, by name."""
    by_name: dict[str, Module] = {}
    pending = [each for root in _roots() for each in _with_packages(root)]
    while pending:
        name = pending.pop()
        package = _is_package(name)
        if name in by_name or name in _EARLY or package is None:
            continue
        by_name[name] = module = Module(name, package)
        pending += [*module.imports, *module.late]
    return by_name


def _roots() -> Iterator[str]:
    for name in _PROGRAMS:
        yield f"cnihook.{name}"
    for name in sorted(os.listdir(f"{codecache.PACKAGE}/plugins")):
        if name.endswith(".py"):
            yield f"cnihook.plugins.{name.removesuffix('.py')}"


def segments(by_name: dict[str, Module]) -> list[list[str]]:
    """Return the names of the modules of each segment."""
    needed_by: dict[str, list[str]] = {name: [] for name in by_name}
    for root in _roots():
        for name in _in_order(root, by_name):
            needed_by[name].append(root)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, roots in needed_by.items():
        groups.setdefault(_key(name, roots), []).append(name)
    return list(groups.values())


def _key(name: str, roots: list[str]) -> tuple[str, ...]:
    """Return what modules of one segment have in common.  A hook with bridge and host-local reads few."""
    if len(roots) >= _MANY:
        return ("many",)
    for usual in _USUAL:
        if len(roots) <= _FEW and usual & set(roots):
            return tuple(sorted(usual))
    return tuple(roots) or (name,)


def _in_order(root: str, by_name: dict[str, Module]) -> list[str]:
    """Return a root, its packages, and what they need: each module after those that it imports."""
    order: list[str] = []
    seen: set[str] = set()

    def add(name: str) -> None:
        if name in by_name and name not in seen:
            seen.add(name)
            for each in by_name[name].imports:
                add(each)
            order.append(name)

    for name in _with_packages(root):
        add(name)
    return order


def content() -> bytes:
    """Return the whole file.  Raises OSError or SyntaxError if a source cannot be read."""
    by_name = modules()
    index: dict[str, int] = {}
    parts: list[bytes] = []
    roots = frozenset(_roots()) & by_name.keys()
    for names in segments(by_name):
        entries: codecache.Segment = {}
        for name in names:
            module = by_name[name]
            if module.stamp:
                needed = _in_order(name, by_name) if name in roots else module.imports
                imports = tuple(each for each in needed if each in by_name and each != name)
                index[name] = len(parts)
                entries[name] = (*module.stamp, module.package, imports, _compile(module))
        parts.append(marshal.dumps(entries))
    number = os.urandom(8)
    places: codecache.Places = []
    offset = 0
    for part in parts:
        places.append((offset, len(part) + len(number)))
        offset += len(part) + len(number)
    head = marshal.dumps((index, places, roots)) + number
    size = len(head).to_bytes(4, "little")
    return b"".join([codecache.MARK, size, number, head, *(part + number for part in parts)])


def _compile(module: Module) -> "CodeType":
    """Compile a module without what a start does not read, a quarter of what it has to unpack.

    That is: line numbers, docstrings, annotations of functions, imports for type checkers.  A plugin keeps
    its own docstring, which is its help.
    """
    with open(module.source, "rb") as file:
        tree = ast.parse(file.read(), module.source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
            _remove_docstring(node)
        elif isinstance(node, ast.ClassDef):
            _remove_docstring(node)
        elif isinstance(node, ast.If) and _is_for_type_checkers(node):
            node.body = [ast.copy_location(ast.Pass(), node)]
    if not module.name.startswith("cnihook.plugins."):
        _remove_docstring(tree)
    return _reduced(compile(tree, module.source, "exec", dont_inherit=True))


def _remove_docstring(node: "ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef") -> None:
    if ast.get_docstring(node, clean=False) is not None:
        node.body[0] = ast.copy_location(ast.Pass(), node.body[0])


def _reduced(code: "CodeType") -> "CodeType":
    constants = tuple(
        _reduced(constant) if hasattr(constant, "co_consts") else constant for constant in code.co_consts
    )
    return code.replace(co_linetable=b"", co_consts=constants)


def write() -> None:
    """Write the file whole or not at all.  Raises OSError."""
    for folder in cnihook.unsafe_caches():
        bytecode.discard(folder)
    data = content()
    os.makedirs(os.path.dirname(codecache.PATH), mode=0o755, exist_ok=True)
    draft = f"{codecache.PATH}.{os.urandom(6).hex()}"  # two PID namespaces may have one PID
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # after a crash of the machine, it is the old file or the new one
        os.rename(draft, codecache.PATH)
    except BaseException:
        try:
            os.unlink(draft)
        except OSError:
            pass
        raise


def is_current() -> bool:
    """Return True if the file exists, and each module in it is as it was when the file was written."""
    cache = codecache.CodeCache(codecache.PATH)
    return bool(cache._index) and all(cache._spec(name) for name in cache._index)


def remove() -> None:
    """Remove the files of all versions of Python, and drafts of killed processes.

    Earlier versions of cnihook called them codecache.cpython-* and onefile.cpython-*.
    """
    folder = os.path.dirname(codecache.PATH)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if name.startswith(("modules.", "codecache.", "onefile.")) and not name.endswith(".pyc"):
            os.unlink(f"{folder}/{name}")
