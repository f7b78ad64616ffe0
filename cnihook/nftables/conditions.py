# SPDX-License-Identifier: Apache-2.0
"""
The conditions of a published port (conditionsV4, conditionsV6), as text of an nft rule.

Two syntaxes are supported.  A text that begins with "-" or "!" is that of iptables; its options for source,
destination and incoming interface are translated.  Any other text is that of nft, and enters a transaction
unchanged.  So it must consist of matches only, and must not contain anything that could end the rule.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/-")
_SIGNS = frozenset(' ,!=<>&|^@*{}"')

# The keywords of nft that change something, or decide about a packet.
_STATEMENTS = frozenset(
    "accept add comment continue counter delete dnat drop dup flow fwd goto jump last limit log map"
    " masquerade meter notrack queue quota redirect reject reset return secmark set snat synproxy tproxy"
    " update vmap xt".split()
)
_LONG = {
    "--source": "-s", "--src": "-s", "--destination": "-d", "--dst": "-d", "--in-interface": "-i",
}  # fmt: skip
_INTERFACE = frozenset("\"'\\;{}#$")  # characters that cannot be in a quoted text of nft


def are_iptables(conf: NetConf, key: str) -> bool:
    words = conf.strings(key)
    return bool(words) and words[0].startswith(("-", "!"))


def read(conf: NetConf, key: str, version: int) -> str:
    """Return the conditions under `key`, for packets of one IP version; empty if there are none.

    Raises CniError for a text that cannot be a condition.
    """
    words = " ".join(conf.strings(key)).split(" ")
    if are_iptables(conf, key):
        return _translated(conf, key, [word for word in words if word], "ip" if version == 4 else "ip6")
    text = " ".join(word for word in words if word)
    _check(conf, key, text)
    return text


def _check(conf: NetConf, key: str, text: str) -> None:
    if wrong := sorted(set(text) - _LETTERS - _SIGNS):
        raise _refusal(conf, key, f"{wrong[0]!r} is not allowed in a condition")
    if text.count('"') % 2:
        raise _refusal(conf, key, "a quotation mark is not closed")
    outside = " ".join(text.split('"')[::2])
    depth = 0
    for character in outside:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth not in (0, 1):
            break
    if depth:
        raise _refusal(conf, key, "its braces are nested or unbalanced")
    for word in "".join(character if character in _LETTERS else " " for character in outside).split():
        if word.lower() in _STATEMENTS:
            raise _refusal(conf, key, f"{word!r} is not a condition")


def _refusal(conf: NetConf, key: str, problem: str) -> CniError:
    example = "ip6 saddr fd00::/8" if key.endswith("6") else "ip saddr 192.0.2.0/24"
    return conf.refuse(key, f"is wrong: {problem}", f'write only matches of nft, such as ["{example}"]')


def _translated(conf: NetConf, key: str, words: "list[str]", protocol: str) -> str:
    matches, rest = [], list(words)
    while rest:
        negated = rest[0] == "!"
        if negated:
            del rest[0]
        option = rest.pop(0) if rest else ""
        option = _LONG.get(option, option)
        if rest and rest[0] == "!":  # its position in old versions of iptables
            negated = True
            del rest[0]
        if option not in ("-s", "-d", "-i") or not rest:
            what = f"{option!r} lacks its value" if not rest else f"iptables' {option!r} is not supported"
            raise conf.refuse(
                key,
                f"is wrong: {what}",
                f"use -s, -d and -i, or write the condition for nft, such as {['tcp sport 1024-65535']}",
            )
        operator = "!= " if negated else ""
        value = rest.pop(0)
        if option == "-i":
            matches.append(f'iifname {operator}"{_interface(conf, key, value)}"')
            continue
        nets = [_net(conf, key, part, protocol) for part in value.split(",")]
        if "" not in nets:
            field = "saddr" if option == "-s" else "daddr"
            shown = nets[0] if len(nets) == 1 else f"{{ {', '.join(nets)} }}"
            matches.append(f"{protocol} {field} {operator}{shown}")
        elif negated:
            raise conf.refuse(key, f"is wrong: it excludes {value}, and so every packet")
    return " ".join(matches)


def _interface(conf: NetConf, key: str, name: str) -> str:
    """Return the name for nft, whose wildcard is `*`; that of iptables is `+`."""
    if not name or len(name) > 15 or not name.isprintable() or _INTERFACE.intersection(name) or " " in name:
        raise conf.refuse(key, f"is wrong: {name!r} is not an interface name")
    return f"{name[:-1]}*" if name.endswith("+") else name


def _net(conf: NetConf, key: str, text: str, protocol: str) -> str:
    """Return the network as text; empty for all addresses, because that is not a condition."""
    host, slash, mask = text.partition("/")
    try:
        address = Address.parse(host)
        if "." in mask:
            mask = str(_prefix(Address.parse(mask)))
        net = IPNet.parse(f"{host}/{mask}") if slash else address.host_net()
    except ValueError:
        raise conf.refuse(key, f"is wrong: {text!r} is not an IP address or network") from None
    if (address.version == 4) != (protocol == "ip"):
        raise conf.refuse(key, f"is wrong: {text} is of the other IP version")
    if net.prefix == 0:
        return ""
    return str(net.first()) if net.prefix == net.address.bits else str(net.network())


def _prefix(mask: Address) -> int:
    """Return the prefix length: 16 for 255.255.0.0.  Raises ValueError for a mask with holes."""
    bits = f"{int.from_bytes(mask, 'big'):032b}"
    if "01" in bits:
        raise ValueError
    return bits.count("1")
