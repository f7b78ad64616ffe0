# SPDX-License-Identifier: Apache-2.0
"""cnihook network: ls, inspect, rm, prune and edit."""

import json
from typing import Any

from tests.support.commands.listings import attach, on_screen, plain
from tests.support.commands.networks import create, network, refused
from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, NET_D, NETWORKS, RESULTS, Runtime, bridge, configure, leases


def listed(host: Host, *words: str) -> list[str]:
    return network(host, "ls", *words).stdout.splitlines()


def test_networks_are_listed_and_inspected(host: Host) -> None:
    """Networks of other programs are shown as well; podman 4 keeps labels at another place."""
    assert listed(host, "--format", "{{.Name}} {{.Subnets}}") == ["cnihook 10.88.64.0/20"]
    back = bridge("back", "10.31.0.0/24", isGateway=False) | {"args": {"podman_labels": {"tier": "db"}}}
    configure(host, back)
    create(host, "front", "--ipv6", "--subnet", "10.30.0.0/24", "--label", "tier=web", "--label", "x")
    web = attach(host, "web", "front", "back")

    head, *lines = listed(host)
    assert head.split() == ["NETWORK", "ID", "NAME", "DRIVER", "SUBNETS", "CONTAINERS"]
    assert [line.split()[1:] for line in lines][0] == ["back", "bridge", "10.31.0.0/24", "1"]
    assert max(map(len, plain(on_screen(host, 80, "network", "ls")).splitlines())) <= 80
    (first, second) = map(json.loads, listed(host, "--format", "json"))
    assert second["Labels"] == "tier=web,x=" and second["IPv6"] == "true" and second["Containers"] == "web"
    assert (first["Internal"], first["Scope"], first["CreatedAt"]) == ("true", "local", "")
    ids = listed(host, "-q")
    assert [len(each) for each in (*ids, *listed(host, "-q", "--no-trunc"))] == [12, 12, 64, 64]
    assert listed(host, "--format", "table {{.Name}}\\t{{.Driver}}")[1].split() == ["back", "bridge"]
    for words, names in (
        (["name=ron"], ["front"]),
        (["label=tier=db"], ["back"]),
        (["label!=tier=db"], ["front"]),
        (["label=tier", "label=x"], ["front"]),
        (["driver=bridge"], ["back", "front"]),
        (["dangling=true"], []),
        ([f"id={ids[0][:5]}"], ["back"]),
    ):
        filters = [word for each in words for word in ("--filter", each)]
        assert listed(host, *filters, "--format", "{{.Name}}") == names, words
    assert "KEY of name, id" in refused(host, "ls", "--filter", "colour=red")
    assert "no {{.Nam}}; did you mean Name?" in refused(host, "ls", "--format", "{{.Nam}}")

    (details,) = json.loads(network(host, "inspect", "front").stdout)
    endpoint = details["Containers"]["web"]
    assert (
        endpoint["IPv4Address"] == "10.30.0.2/24" and endpoint["MacAddress"] == web.link("eth0")["address"]
    )
    assert details["IPAM"]["Config"][0] == {"Subnet": "10.30.0.0/24", "Gateway": "10.30.0.1"}
    assert details["Labels"] == {"tier": "web", "x": ""} and details["CNI"]["name"] == "front"
    template = "{{.Name}} {{.IPAM.Driver}} {{json .Labels}}"
    assert (
        network(host, "inspect", ids[0], "--format", template).stdout == 'back host-local {"tier": "db"}\n'
    )
    process = network(host, "inspect", "none", "front", "-f", "{{.Id}}", status=1)
    assert "no network 'none' in /etc/cni/net.d; there are: back, front" in process.stderr
    assert process.stdout == f"{details['Id']}\n"

    host.run(CNIHOOK, "detach", "web")
    configure(host, **{"20-cut.conflist": "{"})
    assert "20-cut.conflist" in network(host, "ls", status=1).stderr


def test_network_in_use_is_removed_with_force_only(host: Host) -> None:
    """Containers on several networks, also one with a namespace that has no name, are detached at once."""
    for name in ("one", "two", "three"):
        create(host, name)
    web = attach(host, "web", "one", "two")
    attach(host, "db", "one", "three")
    named = host.container("named")
    host.run(CNIHOOK, "add", "two", named.path)
    bridges = host.links()

    problem = refused(host, "rm", "one")
    hint = "`cnihook network rm --force one` detaches them first"
    assert problem == f"rm: network one is in use by 2 containers: db, web; {hint}"
    process = network(host, "rm", "none", "two", status=1)
    assert (
        "no network 'none'" in process.stderr and "network two is in use by 2 containers" in process.stderr
    )
    assert host.links() == bridges

    assert network(host, "rm", "--force", "one", "none", "two").stdout == "one\ntwo\n"
    assert web.links() == {"lo"} and named.links() == {"lo"}
    assert {link for link in host.links() if link.startswith("br-")} == {"br-three"}
    assert host.listdir(RESULTS) == ["three-db-eth1"] and host.listdir(NETWORKS) == ["three"]
    assert host.listdir(NET_D) == ["90-three.conflist"]
    problem = refused(host, "rm", "three")
    assert problem.endswith("1 container: db; `cnihook network rm --force three` detaches it first")
    host.run(CNIHOOK, "detach", "db")
    network(host, "rm", "three")


def test_containers_that_are_gone_do_not_count(host: Host, runtime: Runtime) -> None:
    """A lease without a record is removed, unless a process has the address."""
    other = host.container("other", process=True)
    other.run("ip", "address", "add", "10.22.0.9/24", "dev", "lo")
    host.save_state()
    create(host, "mynet")
    runtime.run("c1", annotations={"cnihook.networks": "mynet"}).kill()
    host.write(f"{NETWORKS}/mynet/10.22.0.8", "gone\r\neth0")
    host.write(f"{NETWORKS}/mynet/10.22.0.9", "there\r\neth0")

    assert "mynet eth0 of container there is in use: process" in refused(host, "rm", "mynet")
    other.destroy()
    assert network(host, "rm", "mynet").stdout == "mynet\n"

    assert host.listdir(NETWORKS) == [] and host.listdir(RESULTS) == []


def test_prune_removes_what_create_made_and_nothing_uses(host: Host) -> None:
    configure(host, bridge("foreign", "10.31.0.0/24"))
    for name in ("used", "old", "kept"):
        create(host, name, "--label", f"name={name}")
    attach(host, "web", "used")
    files = host.listdir(NET_D)

    for answer in ("", "n\n"):
        process = network(host, "prune", input=answer, status=1)
        assert "Are you sure you want to continue? [y/N]" in process.stdout
        assert "nothing is removed; --force does not ask" in process.stderr
    assert network(host, "prune", "--force", "--filter", "until=1h").stdout == ""
    assert host.listdir(NET_D) == files
    process = network(host, "prune", "--filter", "label!=name=kept", input="y\n")
    assert process.stdout.endswith("[y/N] \nDeleted Networks:\nold\n".replace("\nD", "D"))
    assert network(host, "prune", "--force").stdout == "Deleted Networks:\nkept\n"
    assert host.listdir(NET_D) == ["10-net.conflist", "90-used.conflist"]

    network(host, "rm", "-f", "used")


def editing(script: str) -> str:
    """Return an EDITOR that runs sed."""
    return f"sed -i -e '{script}'"


def content(host: Host) -> Any:
    return json.loads(host.read(f"{NET_D}/90-mynet.conflist"))


def test_edit_replaces_the_file_whole_or_not_at_all(host: Host) -> None:
    before = create(host, "mynet")
    host.leaves("file /tmp/*")

    assert network(host, "edit", "mynet", EDITOR="true").stdout == "mynet: not changed\n"
    for script, problem in (
        ("s/ipMasq/ipMask/", '"ipMask" is a key that is not read; write "ipMasq"'),
        ("s/br-mynet/a-name-that-is-too-long/", "is too long"),
        ("1s/{/[/", "error parsing configuration"),
        ('s/"name": "mynet"/"name": "other"/', "the name is 'other' instead of 'mynet'"),
    ):
        process = network(host, "edit", "mynet", EDITOR=editing(script), status=1)
        assert (
            problem in process.stderr and "/tmp/cnihook-mynet-" not in process.stderr.partition(problem)[0]
        )
        copy = process.stderr.strip().partition("stays as it is; the copy is ")[2]
        assert host.read(copy) != json.dumps(before)
        host.run("rm", copy)
    for editor, problem in (("false", "ended with exit code 1"), ("/none", "cannot be started")):
        process = network(host, "edit", "mynet", EDITOR=editor, status=1)
        assert problem in process.stderr and process.stderr.endswith("stays as it is\n")
    assert content(host) == before

    attach(host, "web", "mynet")
    process = network(host, "edit", "mynet", VISUAL=editing("s/10.22.0.0/10.99.0.0/"))
    assert (process.stdout, process.stderr) == ("mynet\n", "")  # a range is for new containers only
    process = network(host, "edit", "mynet", VISUAL=editing('s/"ipMasq": true/"ipMasq": false/'))
    commands = "`cnihook diff mynet`, `cnihook apply mynet`"
    assert process.stderr == f"cnihook: network edit: these keep the old network: web; {commands}\n"
    assert content(host)["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.99.0.0/24"}]]
    assert leases(host) == ["10.22.0.2"] and host.listdir(NET_D) == ["90-mynet.conflist"]
    host.run(CNIHOOK, "detach", "web")
