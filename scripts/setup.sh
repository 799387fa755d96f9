#!/bin/sh
# Makes this checkout ready on a fresh Debian or Ubuntu machine: system packages, a virtual
# environment with pinned dependencies, the corral command. Quick when everything is there.
set -eu
cd "$(dirname "$0")/.."

PACKAGES="crun runc conmon nftables iproute2 skopeo buildah openssh-server openssh-client
 docker-registry mmdebstrap debian-archive-keyring busybox-static procps kmod python3 python3-venv strace conntrack
 ca-certificates util-linux tini curl sudo iptables iputils-ping netcat-openbsd ethtool wrk"

missing=""
for package in $PACKAGES; do
  dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
  echo "setup: installing Debian packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  # A package's own service (sshd, the registry) must not start on this machine by being installed.
  policy=/usr/sbin/policy-rc.d
  made=""
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod +x "$policy"; made=1; }
  trap '[ -z "$made" ] || rm -f "$policy"' EXIT
  apt-get update -qq
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

stamp=".venv/.installed"
want="$(cat constraints.txt pyproject.toml | sha256sum | cut -d' ' -f1) $(pwd)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  python="$(scripts/python.sh)"
  echo "setup: making .venv with $("$python" -V) and $(grep -c == constraints.txt) pinned packages"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' 2>&1 | grep -v '^WARNING: Location' || true
  test -x .venv/bin/corral
  echo "$want" > "$stamp"
fi
# Lab hosts see this checkout read-only: what is not compiled is compiled at every start there.
.venv/bin/python -m compileall -q specs scheduler orchestrator agent tests scripts
