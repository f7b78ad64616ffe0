# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# Functions for the run scripts of all examples.  An example is a folder with
#
#   config.json              of the container; /CHECKOUT in it stands for the path of this checkout
#   net.d/10-NAME.conflist   its networks; NAME is the name of the network and of its bridge
#   run                      the command
#
# It starts its containers from a temporary bundle: this config.json, and a root file system made of busybox.

PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
examples=$(dirname "$here")
checkout=$(dirname "$examples")
runtime=${RUNTIME:-runc}
missing=

fail() {
  echo "$(basename "$here"): $*" >&2
  exit 1
}

# need PROGRAM PACKAGE
need() {
  command -v "$1" > /dev/null || missing="$missing $2"
}

networks() {
  for file in "$here"/net.d/10-*.conflist; do
    basename "${file#*/net.d/10-}" .conflist
  done
}

# make_bundle CONTAINER...: make a bundle in $bundle.  These containers are deleted when the script ends.
make_bundle() {
  containers=$*
  [ "$(id -u)" = 0 ] || fail "only root can give a container a network; try: sudo $0"
  need "$runtime" "$runtime"
  need busybox busybox-static
  need /usr/bin/python3 python3
  need ip iproute2
  need nft nftables
  [ -z "$missing" ] || fail "something is missing; as root: apt-get install$missing"

  for network in $(networks); do
    [ ! -e "/sys/class/net/$network" ] ||
      fail "there is a link $network already; if a killed run left it: $runtime delete --force $*; ip link delete $network"
  done

  forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
  bundle=$(mktemp -d /tmp/cnihook-example.XXXXXX)
  trap clean_up EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  "$examples/rootfs" "$bundle/rootfs"
  sed "s|/CHECKOUT|$(printf '%s' "$checkout" | sed 's/[\\&|]/\\&/g')|" "$here/config.json" > "$bundle/config.json"
}

# show COMMAND...: print the command as the user would type it, and run it.
show() {
  echo "\$ $*"
  "$@"
}

clean_up() {
  trap '' HUP INT TERM
  for container in $containers; do
    "$runtime" delete --force "$container" || :
  done
  # Three things stay after a network's containers by design: its last address, forwarding, and the reference
  # plugin's bridge.  Remove them, because these networks end here.
  for network in $(networks); do
    leases=/var/lib/cni/networks/$network
    rm -f "$leases/lock" "$leases"/last_reserved_ip.*
    [ ! -d "$leases" ] || rmdir "$leases"
    ip link delete "$network" 2> /dev/null || :
  done
  [ "$forwarding" = 1 ] || echo 0 > /proc/sys/net/ipv4/ip_forward
  rm -rf "$bundle"
}
