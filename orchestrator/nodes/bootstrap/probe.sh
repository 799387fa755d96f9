# Says what this machine is, as KEY<TAB>VALUE lines; read by probe.py. Changes nothing: kernel
# features are tried in namespaces of their own, which end with the command.
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

say() { printf '%s\t%s\n' "$1" "$(printf %s "$2" | tr '\n\t' '  ')"; }
each() { while read -r line; do say "$1" "$line"; done; }
try() {
  name=$1
  shift
  said=$("$@" 2>&1) || say cannot "$name: $said"
}

say system "$(uname -s)"
say kernel "$(uname -r)"
say arch "$(uname -m)"
say hostname "$(uname -n)"
say clock "$(date +%s)"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
(
  # shellcheck disable=SC1091
  [ -r /etc/os-release ] && . /etc/os-release
  say os "${ID:-}"
  say like "${ID_LIKE:-}"
)
[ -d /run/systemd/system ] && say systemd yes

for tool in "$@"; do
  command -v "$tool" >/dev/null 2>&1 && say tool "$tool"
done

about='import sys
said = "%d.%d.%d %s" % (sys.version_info[:3] + (sys.implementation.name,))
try:
    import asyncio, ctypes, json, sqlite3, ssl, zlib
except ImportError as error:
    said += " lacks " + str(error).split()[-1]
print(said)'
seen=:
IFS=:
for dir in $PATH; do
  for python in "$dir"/python3 "$dir"/python3.[0-9] "$dir"/python3.[0-9][0-9]; do
    [ -x "$python" ] || continue
    real=$(readlink -f "$python")
    case "$seen" in *":$real:"*) continue ;; esac
    seen=$seen$real:
    version=$("$python" -I -c "$about" 2>/dev/null) && say python "$python $version"
  done
done
unset IFS

try "network namespaces" unshare -n true
try "veth devices" unshare -n ip link add cr0 type veth peer name cr1
try "VXLAN devices" unshare -n ip link add cr0 type vxlan id 1 dstport 4789 nolearning
try "nftables NAT" unshare -n nft "
  add table inet t
  add chain inet t c { type nat hook prerouting priority -100; }
  add rule inet t c ip daddr 192.0.2.1 dnat ip to numgen random mod 2 map { 0: 192.0.2.2, 1: 192.0.2.3 }"
scratch=$(mktemp -d)
# shellcheck disable=SC2016
try "overlayfs" unshare -m sh -ec '
  mount -t tmpfs none "$1"
  cd "$1"
  mkdir lower upper work merged
  mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work merged' sh "$scratch"
rmdir "$scratch"

ip -o -4 addr 2>/dev/null | while read -r _ dev _ address _; do say address "$dev $address"; done
ip -o -6 addr show scope global 2>/dev/null |
  while read -r _ dev _ address _; do say address "$dev $address"; done
ip -o -4 route show table all 2>/dev/null | each route
ip -o -d link show type vxlan 2>/dev/null | each vxlan
nft list ruleset 2>/dev/null | grep -E '^table|hook (forward|input)' | each nft
command -v ufw >/dev/null 2>&1 && ufw status 2>/dev/null | grep -q '^Status: active' &&
  say firewall ufw
command -v firewall-cmd >/dev/null 2>&1 && firewall-cmd --state >/dev/null 2>&1 &&
  say firewall firewalld
[ -S /var/run/docker.sock ] && say firewall docker

for place in /var/lib/corral /var/lib; do # the first may be a disk of its own
  [ -d "$place" ] || continue
  df -Pk "$place" 2>/dev/null | tail -1 | while read -r _ _ _ free _; do say disk "$free"; done
  break
done
sshd=$(command -v sshd) &&
  "$sshd" -T -C user=corral,host=localhost,addr=127.0.0.1 2>/dev/null |
  grep -E '^(allow|deny|disableforwarding|authorizedkeysfile|pubkeyauthentication)' | each sshd

[ -e /var/lib/corral/node.json ] && say member "$(cat /var/lib/corral/node.json)"
[ -e /var/lib/corral/controller/state.db ] && say controller yes
[ -e /opt/corral ] && say installed yes
# Containers of ours outlive an agent: each has its monitor. Those of machines made out of
# namespaces on this one have process numbers of their own.
for proc in /proc/[0-9]*; do
  read -r name 2>/dev/null <"$proc/comm" && [ "$name" = conmon ] || continue
  [ "$(readlink "$proc/ns/pid")" = "$(readlink /proc/self/ns/pid)" ] || continue
  tr '\0' '\n' 2>/dev/null <"$proc/cmdline" | sed -n '/^--bundle$/{n;s|^/run/corral/.*/||p;}'
done | each running
say end end
