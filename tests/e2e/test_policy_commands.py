# SPDX-License-Identifier: Apache-2.0
"""`cnihook policy` and `denied`: their lines, their exit codes, and what repair, gc, check and doctor do."""

import json
import select
from typing import Any

import pytest

from tests.support.commands.repair import cnihook
from tests.support.host.host import Host, Outside
from tests.support.policies import (
    FOLDER,
    LEAVES,
    NO_BR_NETFILTER,
    Sandbox,
    apply,
    network,
    policy,
    tcp,
)
from tests.support.runtimes.oci import CNIHOOK, call_hook, configure

WEB: dict[str, Any] = {
    "name": "web",
    "select": {"labels": {"app": "web"}},
    "egress": {"allow": [{"to": [Outside.ADDRESS], "ports": ["80/tcp"]}]},
    "tests": [
        {"from": "one", "to": f"{Outside.ADDRESS}:80/tcp", "expect": "allow"},
        {"from": "one", "to": f"{Outside.ADDRESS}:81/tcp", "expect": "deny"},
    ],
}


@pytest.fixture
def stage(host: Host) -> Host:
    host.run("sh", "-c", NO_BR_NETFILTER)
    host.leaves(*LEAVES)
    return host


def test_apply_changes_what_differs_and_says_so(stage: Host) -> None:
    """Idempotent; --dry-run changes nothing; a failing test or a malformed file changes nothing."""
    outside = stage.outside()
    configure(stage, network("ptp"))
    one = Sandbox(stage, "one", label="app=web")

    def is_open() -> bool:
        return tcp(one.space, outside, Outside.ADDRESS, 82, expected=True)

    assert apply(stage, WEB, options=("--dry-run",), status=2) == ["new policy web: label:app=web"]
    assert is_open() and policy(stage, "list") == ["NAME  SELECTS  DIRECTIONS  MODE  CONTAINERS"]
    bad = WEB | {"tests": [{"from": "one", "to": "192.0.2.1:81/tcp", "expect": "allow"}]}
    first, last = apply(stage, bad, status=1)
    assert "policy web: tests[0]: from one to 192.0.2.1:81/tcp: expected allow, but" in first
    assert last.endswith("1 tests of policies fail; nothing is changed")
    assert is_open()
    assert apply(stage, WEB) == ["new policy web: label:app=web"]
    assert not tcp(one.space, outside, Outside.ADDRESS, 82, expected=False)
    assert apply(stage, WEB) == []
    count = 'cnihook_denied_packets{container="one",direction="egress"} '
    assert count in cnihook(stage, "metrics").stdout
    with stage.popen(CNIHOOK, "denied", "one", "--follow", "--json") as following:
        assert following.stdout
        for port in range(83, 183):  # it reports what comes after its first look
            assert not tcp(one.space, outside, Outside.ADDRESS, port, expected=False)
            if select.select([following.stdout], [], [], 0.2)[0]:
                break
        assert 83 <= json.loads(following.stdout.readline())["port"] <= port
        following.kill()
    assert policy(stage, "test", "--live") == ["2 tests pass"]
    wider = WEB | {"egress": {"allow": [{"to": ["all"]}]}, "tests": []}
    assert policy(stage, "diff", text=json.dumps(wider), status=2)[0] == "changed policy web: label:app=web"
    (line,) = policy(stage, "show", "wbe", status=1)
    assert "no policy 'wbe'; there are: web" in line
    assert json.loads("\n".join(policy(stage, "show", "web"))) == WEB
    audit = WEB | {"mode": "audit", "egress": {}, "tests": []}
    apply(stage, audit)
    assert is_open()
    modes = {
        (each["port"], each["mode"])
        for each in json.loads(cnihook(stage, "denied", "one", "--json").stdout)
        if each["protocol"] == "tcp"
    }
    assert (82, "audit") in modes
    assert policy(stage, "delete", "web") == ["removed policy web"]
    (line,) = policy(stage, "delete", "web", status=1)
    assert "no policy 'web'" in line
    one.stop()


def test_folder_owns_its_policies(stage: Host) -> None:
    """A policy that has left the folder is removed; those of another origin stay."""
    other = WEB | {"name": "other", "tests": []}
    apply(stage, other)
    for name in ("a", "b"):
        stage.write(f"/run/.host/p/{name}.json", json.dumps(WEB | {"name": name, "tests": []}))

    assert policy(stage, "apply", "/run/.host/p") == [
        "new policy a: label:app=web",
        "new policy b: label:app=web",
    ]
    stage.run("rm", "/run/.host/p/a.json")
    assert policy(stage, "diff", "/run/.host/p", status=2) == ["removed policy a"]
    assert policy(stage, "apply", "/run/.host/p") == ["removed policy a"]
    assert [line.split()[0] for line in policy(stage, "list")] == ["NAME", "b", "other"]
    policy(stage, "delete", "b", "other")


def test_policies_as_toml(stage: Host) -> None:
    """Read it from a file, a folder, and the folder of policies; the next start does not import tomllib."""
    configure(stage, network("ptp"))
    outside = stage.outside()
    text = """
        name = "web"  # the shop
        select.labels = { app = "web" }
        [[egress.allow]]
        to = ["all"]
        ports = ["80/tcp"]
        """
    stage.write("/run/.host/p/web.toml", text)
    assert policy(stage, "apply", "/run/.host/p/web.toml") == ["new policy web: label:app=web"]
    assert json.loads("\n".join(policy(stage, "show", "web")))["egress"]["allow"][0]["ports"] == ["80/tcp"]
    policy(stage, "delete", "web")
    assert policy(stage, "apply", "/run/.host/p") == ["new policy web: label:app=web"]
    stage.write("/run/.host/p/web.json", json.dumps(WEB))
    assert (
        "/run/.host/p: has policy web more than once" in policy(stage, "apply", "/run/.host/p", status=1)[0]
    )
    policy(stage, "delete", "web")

    stage.write(f"{FOLDER}/web.toml", text)
    assert policy(stage, "apply") == []
    one = stage.container("one", process=True)
    state = {"ociVersion": "1.0.2", "id": "one", "pid": one.pid, "status": "creating", "bundle": "/"} | {
        "annotations": {"cnihook.label": "app=web"}
    }
    command = ("/usr/bin/python3", "-IS", "-X", "importtime", CNIHOOK, "createRuntime")
    loaded = stage.run(*command, input=json.dumps(state)).stderr
    assert "cnihook.policy" in loaded and "tomllib" not in loaded
    assert tcp(one, outside, Outside.ADDRESS, 80, expected=True)
    assert not tcp(one, outside, Outside.ADDRESS, 81, expected=False)
    stage.write(f"{FOLDER}/web.toml", text.replace("80/tcp", "81/tcp"))
    policy(stage, "apply")
    assert tcp(one, outside, Outside.ADDRESS, 81, expected=True)

    hint = "; edit that file, then `cnihook policy apply`"
    assert policy(stage, "apply", "/run/.host/p/web.toml", status=1)[0].endswith(f"web.toml{hint}")
    assert policy(stage, "diff") == []
    for wrong, why in (
        ("x", "is not TOML: "),
        ("name = 1979-05-27\n", "name: a date or a time is not a value"),
    ):
        stage.write(f"{FOLDER}/web.toml", wrong)
        assert f"{FOLDER}/web.toml: {why}" in policy(stage, "apply", status=1)[0]
        assert f"{FOLDER}/web.toml: {why}" in cnihook(stage, "validate").stdout
    stage.write(f"{FOLDER}/web.toml", text)
    stage.write(f"{FOLDER}/web.json", json.dumps(WEB))
    assert "web is in a file of each format; remove one of them" in policy(stage, "apply", status=1)[0]
    policy(stage, "delete", "web")
    assert stage.listdir(FOLDER) == []
    one.destroy()
    assert call_hook(stage, "poststop", state).returncode == 0


def test_flushed_policies_are_reported_and_restored(stage: Host) -> None:
    """Check and doctor report it, repair or the next start restores them; gc removes those of the dead."""
    configure(stage, network())
    one = Sandbox(stage, "one", egress="none")
    two = Sandbox(stage, "two")

    def is_closed() -> bool:
        return not tcp(one.space, two.space, two.v4, 9, expected=False)

    assert is_closed()
    before = stage.nft()
    stage.run("nft", "flush", "ruleset")
    check = cnihook(stage, "check", "one")
    assert check.returncode == 1
    report = cnihook(stage, "doctor").stdout
    assert "the rules that all policies share are missing" in report and "cnihook policy apply" in report
    assert "the rules that all policies share" in cnihook(stage, "repair", "--all").stdout
    assert is_closed() and policies_of(stage.nft()) == policies_of(before)
    assert cnihook(stage, "check", "--all").returncode == 0

    stage.run("nft", "delete", "table", "bridge", "cnihook-policy")
    assert cnihook(stage, "check", "one").returncode == 1
    stage.run("nft", "flush", "ruleset")
    three = Sandbox(stage, "three")
    assert is_closed() and not tcp(three.space, one.space, "10.7.0.99", 9, expected=False)
    assert cnihook(stage, "policy", "diff").returncode == 0

    stage.run("ip", "link", "add", "card", "master", "br-front", "type", "veth", "peer", "name", "far")
    report = cnihook(stage, "doctor").stdout
    assert "policy-bridge-port: bridge br-front of containers with policies has the port card" in report
    assert "ip link set card nomaster" in report
    stage.run("ip", "link", "delete", "card")
    one.space.destroy()
    two.stop()
    cnihook(stage, "gc")
    assert "policy-" not in stage.nft()
    three.stop()


def policies_of(ruleset: str) -> set[str]:
    """Return the lines of rules of policies."""
    return {line.strip() for line in ruleset.splitlines() if "policy-" in line and "denied" not in line}


def test_malformed_file_is_reported_by_every_command(stage: Host) -> None:
    stage.write(f"{FOLDER}/bad.json", '{"name": "bad", "select": {}, "egress": {"alow": []}}')

    for argv in (("list",), ("apply",), ("diff",)):
        process = cnihook(stage, "policy", *argv)
        assert process.returncode == 1
        assert (
            f'{FOLDER}/bad.json: egress: "alow" is not a key of a policy; did you mean allow?'
            in process.stderr
        )
    assert f'{FOLDER}/bad.json: egress: "alow" is not a key' in cnihook(stage, "validate").stdout
    assert "policy-malformed" in cnihook(stage, "doctor", "--json").stdout
    assert policy(stage, "delete", "bad") == []
    assert policy(stage, "list") == ["NAME  SELECTS  DIRECTIONS  MODE  CONTAINERS"]
