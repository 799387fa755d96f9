"""What is done on a machine that joins, as shell scripts, and where things are there (pure).

Every step may be repeated. All of them are undone by one script, ``uninstall.sh``, which is put on
the machine first: a failed ``node add`` runs it, the agent runs it when the node leaves, and an
operator can run it when the cluster is gone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from orchestrator.embedded.systemd import unit_text
from orchestrator.transport.ssh import AGENT_SOCKET, LOGIN
from specs.kit.programs import SYSTEM_PATH

OPT = "/opt/corral"
STATE = "/var/lib/corral"
RUN = "/run/corral"
HOME = f"{STATE}/ssh"
CURRENT = f"{OPT}/current"  # a link to the folder of the agent that is started
UNINSTALL = f"{OPT}/uninstall"
UNIT = "/etc/systemd/system/corral-agent.service"
CHANGING = 420.0  # agent/upgrade.py: a start, a wait, and both again for the former agent


@dataclass(frozen=True)
class Installation:
    """Everything the scripts need to know."""

    cluster: str
    public_key: str
    bundle: str  # directory name under /opt/corral
    digest: str  # sha256 of the archive
    python: str  # path of the interpreter on the machine
    systemd: bool

    @property
    def program(self) -> str:
        return f"{OPT}/{self.bundle}"


@dataclass(frozen=True)
class Step:
    what: str  # shown while it runs
    script: str
    stdin: bytes | Path = b""  # a path: the file's content, as a stream
    timeout: float = 60.0


# permitopen: nothing but the agent's socket ("[path]:*" is how sshd compares unix sockets);
# permitlisten: port 1, which the user may not bind, so -R opens nothing; no terminal, no agent or
# X11 forwarding, no rc file, and every command is /bin/false.
KEY_OPTIONS = (
    f'restrict,port-forwarding,permitopen="[{AGENT_SOCKET}]:*",permitlisten="localhost:1",'
    'command="/bin/false"'
)


def locked(script: str) -> str:
    """Return the script so that no two of ours run at once on a machine."""
    return LOCKED % script


def authorized_key(public_key: str) -> str:
    """Return the line of authorized_keys that lets the controller reach the agent, only."""
    return f"{KEY_OPTIONS} {public_key.strip()}\n"


def environment() -> dict[str, str]:
    """Return the agent's environment, the same for every version of it."""
    return {
        "PATH": SYSTEM_PATH,
        "LANG": "C.UTF-8",
        "PYTHONPATH": CURRENT,
        "CORRAL_UNINSTALL": UNINSTALL,
    }


def steps(plan: Installation, archive: Path) -> list[Step]:
    """Return what makes the machine a node, in order, up to the running agent."""
    uninstall = Path(__file__).with_name("uninstall.sh").read_bytes()
    return [
        Step("preparing directories", _prepare(plan), stdin=uninstall),
        Step("making user and group corral", _USER),
        Step("sending the agent", _unpack(plan), stdin=archive, timeout=300.0),
        Step(
            "installing the cluster's key",
            _KEY,
            stdin=authorized_key(plan.public_key).encode(),
        ),
        Step("closing what sshd leaves open to it", _SSHD, stdin=SSHD.encode()),
        _start_systemd() if plan.systemd else _start_supervised(),
    ]


def shipping(plan: Installation, archive: Path) -> list[Step]:
    """Return what brings another version of the agent to a node, beside the one that runs."""
    uninstall = Path(__file__).with_name("uninstall.sh").read_bytes()
    return [
        Step("renewing what takes corral off the machine", _UNINSTALL, stdin=uninstall),
        Step(
            f"sending agent {plan.bundle}", _receive(plan, _DURABLE), stdin=archive, timeout=300.0
        ),
        Step("closing what sshd leaves open to the cluster's key", _SSHD, stdin=SSHD.encode()),
    ]


def change_over(plan: Installation, request: bytes) -> Step:
    """Return the step that starts the new agent, and the old one again when it is no good.

    ``request``: of agent/upgrade.py, which this runs from the new agent's folder.
    """
    script = (
        f"cd / && exec env -i PATH={SYSTEM_PATH} LANG=C.UTF-8 PYTHONPATH={plan.program}"
        f" {plan.program}/python -P -s -m agent.upgrade"
    )
    return Step("changing over", script, stdin=request, timeout=CHANGING)


# A step whose SSH connection was lost goes on there: whatever comes next waits for it. Daemons
# started inside must not hold the lock.
LOCKED = """exec 9>>/run/corral-install.lock
flock -w 60 9 || { echo "another corral node add or rm is at work here" >&2; exit 75; }
(
%s
) 9>&-
"""


UNDO = Step("undoing what was done", f"[ ! -x {UNINSTALL} ] || {UNINSTALL}", timeout=90.0)

LAST_WORDS = (
    f"tail -n 10 {STATE}/log/agent.log 2>/dev/null || journalctl -u corral-agent -n 10 -o cat"
)


def node_file(cluster: str, node: str = "") -> str:
    """Return what marks a machine as a member, also while its agent does not run."""
    return json.dumps({"cluster": cluster, "node": node}) + "\n"


def mark(cluster: str, node: str) -> Step:
    """Return the last step: the machine knows which node it is."""
    script = f"umask 077; cat > {STATE}/node.json.new && mv {STATE}/node.json.new {STATE}/node.json"
    return Step("marking the machine", script, stdin=node_file(cluster, node).encode())


_UNINSTALL = f"""cat > {UNINSTALL}.new
chmod 755 {UNINSTALL}.new
mv {UNINSTALL}.new {UNINSTALL}"""


def _prepare(plan: Installation) -> str:
    return f"""set -e
umask 022
mkdir -p {OPT}
touch {OPT}/made
note() {{ grep -qx "$1" {OPT}/made || echo "$1" >> {OPT}/made; }}
[ -d {STATE} ] || note state
{_UNINSTALL}
mkdir -p {STATE} {STATE}/log
chmod 750 {STATE}/log
(umask 077; echo '{node_file(plan.cluster).strip()}' > {STATE}/node.json)
"""


# "*" as password: no password fits, yet sshd does not call the account locked as it does for "!".
_USER = f"""set -e
note() {{ grep -qx "$1" {OPT}/made || echo "$1" >> {OPT}/made; }}
getent group {LOGIN} >/dev/null || {{ note group; groupadd --system {LOGIN}; }}
id -u {LOGIN} >/dev/null 2>&1 || {{
  note user
  useradd --system --gid {LOGIN} --home-dir {HOME} --no-create-home --shell /bin/sh \\
    --password '*' --comment 'corral reaches the agent' {LOGIN}
}}
"""


_DURABLE = f"sync -f {OPT}/unpacking 2>/dev/null || sync"


def _receive(plan: Installation, whole: str = ":") -> str:
    """Return what puts the archive into a folder of its own; what runs is not touched."""
    return f"""set -e
umask 022
cat > {OPT}/incoming.tar.gz
echo "{plan.digest}  {OPT}/incoming.tar.gz" | sha256sum -c --quiet -
if [ ! -e {plan.program}/bundle.json ]; then
  rm -rf {OPT}/unpacking {plan.program}
  mkdir {OPT}/unpacking
  tar -xzf {OPT}/incoming.tar.gz -C {OPT}/unpacking --no-same-owner
  {whole}
  mv {OPT}/unpacking {plan.program}
fi
rm -f {OPT}/incoming.tar.gz
ln -sfn {plan.python} {plan.program}/python
env -i PATH={SYSTEM_PATH} PYTHONPATH={plan.program} {plan.program}/python -P -s \\
  -c 'import agent, specs.wire'
"""


def _unpack(plan: Installation) -> str:
    return f"""{_receive(plan)}
ln -sfn {plan.bundle} {CURRENT}
ln -sfn {plan.python} {OPT}/python
"""


_KEY = f"""set -e
umask 022
mkdir -p {HOME}/.ssh
home=$(getent passwd {LOGIN} | cut -d: -f6)
if [ "$home" != {HOME} ]; then
  echo "there is a user {LOGIN} already, with another home: $home" >&2
  exit 1
fi
cat > {HOME}/.ssh/authorized_keys.new
chmod 644 {HOME}/.ssh/authorized_keys.new
mv {HOME}/.ssh/authorized_keys.new {HOME}/.ssh/authorized_keys
! command -v restorecon >/dev/null 2>&1 || restorecon -R {HOME}
"""


# What no option of a key can forbid: sockets that -R makes on the machine (permitlisten is about
# ports). Only where sshd reads the folder, and only while its configuration stays valid: what a
# machine's sshd is like is its owner's. check.py says where this could not be done.
SSHD_FILE = "/etc/ssh/sshd_config.d/50-corral.conf"
SSHD = f"""# Made by `corral node add`, removed by `corral node rm`: the cluster's key opens the
# agent's socket, and makes none.
Match User {LOGIN}
    AllowStreamLocalForwarding local
"""
_SSHD = f"""set -e
umask 022
note() {{ grep -qx "$1" {OPT}/made || echo "$1" >> {OPT}/made; }}
made={SSHD_FILE}
cat > {OPT}/sshd.conf
if grep -Eqi '^ *include +/etc/ssh/sshd_config[.]d/' /etc/ssh/sshd_config 2>/dev/null &&
  [ -d "${{made%/*}}" ] && ! cmp -s {OPT}/sshd.conf $made; then
  note sshd
  cp {OPT}/sshd.conf $made
  if "$(command -v sshd)" -t; then {UNINSTALL} --reload-sshd; else rm -f $made; fi
fi
rm -f {OPT}/sshd.conf
"""


# Resolved when it starts: a running agent keeps to its own folder whatever ``current`` names.
_BECOME = f"""PYTHONPATH=$(readlink -f {CURRENT}); export PYTHONPATH
exec "$PYTHONPATH/python" -P -m agent"""


def starter(*, systemd: bool) -> str:
    """Return what starts the agent: the unit, or the line of rc.local that starts a supervisor."""
    if systemd:
        return unit_text("agent", environment(), argv=("/bin/sh", "-c", _BECOME))
    settings = " ".join(f"{key}={value}" for key, value in environment().items())
    return f"env -i {settings} {_SUPERVISOR} </dev/null >/dev/null 2>&1 # corral"


_SUPERVISOR = (
    f"{CURRENT}/python -I -S {CURRENT}/supervisor.py {RUN} {STATE}/log {CURRENT}/python agent"
)


CRON = "/etc/cron.d/corral-node"
# By what stands in rc.local, which an upgrade may have changed.
CRON_LINE = """* * * * * root sh -c "$(grep "# corral$" /etc/rc.local)" """.strip()


def _start_systemd() -> Step:
    script = f"""set -e
cat > {UNIT}
systemctl daemon-reload
systemctl enable --quiet corral-agent.service
systemctl restart corral-agent.service
"""
    return Step("starting the agent (systemd)", script, stdin=starter(systemd=True).encode())


def _start_supervised() -> Step:
    """Start it under our own supervisor, now and, by rc.local, after every boot."""
    settings = " ".join(f"{key}={value}" for key, value in environment().items())
    script = f"""set -e
rc=/etc/rc.local
if [ ! -e $rc ]; then
  grep -qx rc.local {OPT}/made || echo rc.local >> {OPT}/made
  printf '#!/bin/sh\\n' > $rc
fi
grep -v -e '# corral$' $rc > $rc.corral || true
# Before a closing "exit 0", as distributions ship it.
awk -v line="$(cat)" '
  /^exit 0/ && !done {{ print line; done = 1 }}
  {{ print }}
  END {{ if (!done) print line }}' $rc.corral > $rc.new
chmod 755 $rc.new
mv $rc.new $rc
rm -f $rc.corral
# Where everything of ours is killed at once, the line is run again within a minute.
if [ -d /etc/cron.d ] && {{ command -v cron || command -v crond; }} >/dev/null; then
  printf '%s\\n' '{CRON_LINE}' > {CRON}.new
  chmod 644 {CRON}.new
  mv {CRON}.new {CRON}
fi
env -i {settings} {_SUPERVISOR} </dev/null
"""
    return Step("starting the agent (supervised)", script, stdin=starter(systemd=False).encode())
