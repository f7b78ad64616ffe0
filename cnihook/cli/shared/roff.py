# SPDX-License-Identifier: Apache-2.0
"""Manual pages in the language of man(7), made from the text of --help or from a Markdown file."""

import re
from collections.abc import Iterator

MARK = '.\\" A page of cnihook; `cnihook man --remove` takes it away.'
# An option or the like, and its purpose.  Two spaces after a full stop are prose.
_ENTRY = re.compile(r"( +)(\S.*?(?:[^\s.,;:]|\.\.\.))(?: {2,}(\S.*))?")
_HAND_WRAPPED = 88  # columns; if the next word had room on the line, the break is intended
_INLINE = re.compile(r"`([^`]+)`")
_BAR = re.compile(r"(?<!\\)\|")  # between two cells of a table
_LINK = re.compile(r"!?\[([^]]+)\]\([^)]+\)")
_STRONG = re.compile(r"\*\*([^*]+)\*\*")
_SPACE, _BREAK = "\0", "\1"  # a space that is kept, a place where a long word may be broken
_SPECIAL = {
    "\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti",
    _SPACE: "\\ ", _BREAK: "\\:",
}  # fmt: skip


def page(name: str, section: int, version: str, purpose: str, body: str, see_also: str) -> str:
    return (
        f"{MARK}\n"
        f'.TH "{escaped(name.upper())}" {section} "" "cnihook {version}" "cnihook"\n'
        ".nh\n.ad l\n"  # commands are copied from here, so no hyphens and no wide gaps
        f".SH NAME\n{escaped(name)} \\- {_prose(purpose)}\n"
        f"{body}"
        f".SH SEE ALSO\n{_prose(see_also)}\n"
    )


def escaped(text: str) -> str:
    """Return text that roff prints as it is."""
    text = re.sub(r"\S{25,}", lambda match: re.sub(r"(?<=[/,|:])(?=[\w\[])", _BREAK, match[0]), text)
    result = "".join(_SPECIAL.get(c, c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)
    return f"\\&{result}" if result.startswith(".") else result


def _prose(text: str) -> str:
    """Return text with backquoted parts in bold, and one space instead of two after a full stop."""
    text = re.sub(r"(?<=[.;:]) {2,}", " ", _STRONG.sub(r"\1", _LINK.sub(r"\1", text)))
    parts = []
    for number, part in enumerate(_INLINE.split(text)):
        parts.append(f"\\fB{escaped(part)}\\fR" if number % 2 else escaped(part))
    return "".join(parts)


# From --help


def from_help(text: str) -> str:
    blocks = [block.rstrip().split("\n") for block in re.split(r"\n\s*\n", text.strip("\n"))]
    lines = [".SH SYNOPSIS", *_synopsis(blocks[0])]
    if len(blocks) > 1 and not _is_heading(blocks[1]):
        lines.append(".SH DESCRIPTION")
    for block in blocks[1:]:
        if _is_heading(block):
            lines.append(f".SH {_heading(block.pop(0).rstrip(':'))}")
        elif not lines[-1].startswith(".SH"):
            lines.append(".PP")
        lines += _block(block)
    return "\n".join(lines) + "\n"


def _is_heading(block: list[str]) -> bool:
    first = block[0]
    return not first.startswith(" ") and first.endswith(":") and len(block) > 1 and block[1].startswith(" ")


def _heading(text: str) -> str:
    return escaped(text.upper() if len(text.split()) <= 2 else text[0].upper() + text[1:])


def _synopsis(block: list[str]) -> Iterator[str]:
    usage = " ".join(" ".join(block).removeprefix("usage:").split())
    name = usage.partition(" ")[0]
    for number, words in enumerate(re.split(rf" (?={re.escape(name)} )", usage)):
        if number:
            yield ".br"
        first, _, rest = words.partition(" ")
        yield f"\\fB{escaped(first)}\\fR {escaped(rest)}"


def _block(block: list[str]) -> Iterator[str]:
    """Yield the lines of a block: paragraphs, lists of options, and indented lines as examples."""
    pending = block[::-1]
    while pending:
        if not pending[-1].startswith(" "):
            line = pending.pop()
            yield _prose(line)
            if pending and len(f"{line} {pending[-1].split()[0]}") < _HAND_WRAPPED:
                yield ".br"
        elif (match := _ENTRY.fullmatch(pending[-1])) and (
            match[2].startswith("-") or match[3] or _is_deeper(match[1], pending[:-1])
        ):
            yield from _entry(match, pending)
        else:
            yield from _example(pending)


def _is_deeper(indent: str, pending: list[str]) -> bool:
    """Return True if the next line is indented so far that it continues the entry."""
    return bool(pending) and pending[-1].startswith(f"{indent}{' ' * 12}")


def _entry(match: "re.Match[str]", pending: list[str]) -> Iterator[str]:
    indent, name, text = match[1], match[2], match[3] or ""
    pending.pop()
    while _is_deeper(indent, pending):
        text = f"{text} {pending.pop().strip()}".strip()
    words = re.split(r"(, | )", name)
    option = name.startswith("-")
    yield ".TP"
    yield "".join(
        escaped(word) if word in (", ", " ") else
        f"\\fB{escaped(word)}\\fR" if word.startswith("-") or not option else f"\\fI{escaped(word)}\\fR"
        for word in words if word
    )  # fmt: skip
    yield _prose(text) if text else "\\&"


def _example(pending: list[str]) -> Iterator[str]:
    """Yield an example, line by line.  A line that is too long is wrapped."""
    first = len(pending[-1]) - len(pending[-1].lstrip())
    yield ".RS 2"
    count = 0
    while pending and pending[-1].startswith(" "):
        line = pending.pop()[first:].rstrip()
        indent = len(line) - len(line.lstrip())
        if count:
            yield ".br"
        yield "\\ " * indent + _prose(re.sub(r"(?<![.;:]) {2,}", _kept, line.lstrip()))
        count += 1
    yield ".RE"


def _kept(match: "re.Match[str]") -> str:
    return _SPACE * len(match[0])


# From Markdown: headings, paragraphs, lists with hyphens, tables, blocks between fences


def from_markdown(text: str) -> str:
    lines = [".SH DESCRIPTION"]
    text = re.sub(r"<!--.*?-->\n*", "", text, flags=re.S)
    fenced = False
    header: list[str] = []
    begins = True  # True if the next line begins a paragraph
    for line in text.split("\n")[1:]:
        if line.startswith("```"):
            fenced = not fenced
            lines += [".PP", ".RS 2", ".nf"] if fenced else [".fi", ".RE"]
            begins = True
        elif fenced:
            lines.append(escaped(line) or "\\&")
        elif line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in _BAR.split(line.strip("|"))]
            if begins:
                header = cells
            elif set(line) - set("|-: "):
                lines += _row(header, cells)
            begins = False
        elif line.startswith("#"):
            lines.append(f"{'.SH' if line.startswith('## ') else '.SS'} {escaped(line.lstrip('# '))}")
            begins = False
        elif not line:
            begins = True
        else:
            if line.startswith("- "):
                lines.append(".IP \\(bu 2")
                line = line[2:]
            elif begins and not lines[-1].startswith((".SH", ".SS")):
                lines.append(".PP")
            lines.append(_prose(line.strip()))
            begins = False
    return "\n".join(lines) + "\n"


def _row(header: list[str], cells: list[str]) -> Iterator[str]:
    """Yield a row of a table: its first cell, then the others, with their headings if there are several."""
    yield ".TP"
    yield _prose(cells[0])
    several = len(cells) > 2
    others = [(title, cell) for title, cell in zip(header[1:], cells[1:], strict=True) if cell]
    yield _prose("; ".join(f"{title}: {cell}" if several else cell for title, cell in others)) or "\\&"
