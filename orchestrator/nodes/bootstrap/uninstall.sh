#!/bin/sh
# Takes off this machine what `corral node add` put on it, except named volumes (--purge: those too).
# Run by the agent when the node leaves its cluster, by a failed `node add`, or by hand, also where
# no agent runs. It may be run again at any time, and ends with 1 where something of ours stays:
# then this script does, too. What was here before corral stays: /opt/corral/made names what was made.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
cd / || exit 1
OPT=/opt/corral STATE=/var/lib/corral RUN=/run/corral RC=/etc/rc.local
purge= later= tries=
case "${1:-}" in
  --detached) # the agent's own child: let it finish its answer first
    shift
    setsid "$0" --later "$@" </dev/null >/dev/null 2>&1 &
    exit 0
    ;;
  --reload-sshd) # what `corral node add` asks for; sessions that are open stay
    if [ -d /run/systemd/system ]; then
      systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service 2>/dev/null
    elif read -r pid 2>/dev/null </run/sshd.pid; then
      [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = sshd ] && kill -HUP "$pid"
    fi
    exit 0
    ;;
  --later)
    shift
    later=yes
    sleep 0.5
    ;;
esac
[ "${1:-}" = --purge ] && purge=yes

made() { grep -qx "$1" $OPT/made 2>/dev/null; }
# The start time makes a pid name one process for ever: proc(5), field 22.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
end() {
  pid=$1
  birth=$(started "$pid")
  [ -n "$birth" ] || return 0
  kill -TERM "$pid" 2>/dev/null
  tries=200
  while [ "$(started "$pid")" = "$birth" ] && [ $tries -gt 0 ]; do
    case "$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null)" in Z*) return 0 ;; esac
    sleep 0.1
    tries=$((tries - 1))
  done
  [ "$(started "$pid")" = "$birth" ] && kill -KILL "$pid" 2>/dev/null
  return 0
}
# Prints the processes of these files in /proc whose command line is like $1.
like() {
  line=$1
  shift
  for file; do
    pid=${file#/proc/} pid=${pid%/*}
    [ "$pid" = $$ ] && continue
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -Eq -- "$line" && echo "$pid"
  done
}
# Ours are the processes that were started with the environment of this installation.
ours() { like "$1" $(grep -lzxs "PYTHONPATH=$OPT/.*" /proc/[0-9]*/environ); }
DAEMONS='supervisor\.py|-m agent( |\.|$)'
monitors() { like "(--bundle|-b) $RUN/" $(grep -lxs conmon /proc/[0-9]*/comm); }
groups() {
  for group in /sys/fs/cgroup/corral /sys/fs/cgroup/*/corral; do
    [ -d "$group" ] && echo "$group"
  done
}
# A 0 is a process that is none of this machine's.
contained() {
  for group in $(groups); do
    find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null
  done | grep -vx 0 | sort -un
}
links() { sed -n 's/^ *\(cr-[^:]*\):.*/\1/p' /proc/net/dev; }
# The deepest first; the kernel writes a space as \040, which printf reads as \0040.
mounted() {
  sed 's/^[^ ]* \([^ ]*\) .*/\1/' /proc/mounts | grep -E "^($STATE|$RUN)/" | sort -r |
    sed 's/\\/\\0/g' | while read -r where; do printf '%b\n' "$where"; done
}
# Prints what of ours is still on the machine, one a line.
left() {
  contained | sed 's/^/process of a container: /'
  monitors | sed 's/^/monitor of a container: /'
  ours "$DAEMONS" | sed 's/^/process of corral: /'
  links | sed 's/^/link: /'
  nft list table inet corral >/dev/null 2>&1 && echo "nft table: inet corral"
  mounted | sed 's/^/mount: /'
}
# What the agent could not take away is taken by name.
sweep() {
  for pid in $(contained); do kill -KILL "$pid" 2>/dev/null; done
  for group in $(groups); do # what is frozen dies when it goes on
    find "$group" -name freezer.state -exec sh -c 'echo THAWED >"$1"' - {} \; 2>/dev/null
    find "$group" -name cgroup.freeze -exec sh -c 'echo 0 >"$1"' - {} \; 2>/dev/null
  done
  for pid in $(monitors); do kill -KILL "$pid" 2>/dev/null; done
  for link in $(links); do ip link delete "$link" 2>/dev/null; done
  nft delete table inet corral 2>/dev/null
  mounted | while IFS= read -r where; do umount -l "$where" 2>/dev/null; done
}

# An agent of before cannot do it by itself: it has to be asked while it runs.
home=$(readlink -f $OPT/current 2>/dev/null)
alone=
[ -n "$home" ] && [ -e "$home/agent/leaving.py" ] && alone=yes
if [ -z "$later$alone" ] && [ -S $RUN/agent.sock ] && [ -x $OPT/python ]; then
  $OPT/python -I - <<'END' && tries=600
import http.client, socket
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(150)
        self.sock.connect("/run/corral/agent.sock")
link = Unix("agent")
try:
    link.request("POST", "/v1/leave")
    raise SystemExit(link.getresponse().status != 200)
except OSError as error:
    raise SystemExit(f"the agent does not answer: {error}")
END
  while [ "${tries:-0}" -gt 0 ] && [ -e $OPT ]; do
    sleep 0.1
    tries=$((tries - 1))
  done
fi

if [ -e /etc/systemd/system/corral-agent.service ]; then
  systemctl disable --now corral-agent.service
  rm -f /etc/systemd/system/corral-agent.service
  systemctl daemon-reload
fi
rm -f /etc/cron.d/corral-node # before what it would start again
if [ -e $RC ] && grep -q '# corral$' $RC; then
  sed -i '/# corral$/d' $RC
  made rc.local && rm -f $RC
fi
if read -r pid birth _ 2>/dev/null <$RUN/supervisor.pid && [ "$(started "$pid")" = "$birth" ]; then
  end "$pid"
fi
rm -f $RUN/supervisor.pid # or the daemons of one that was killed start another
for kind in '-m agent\.upgrade' 'supervisor\.py' '-m agent( |$)'; do
  for pid in $(ours "$kind"); do end "$pid"; done
done

# Nobody serves any more, so nobody has anything begun again. What the agent called this script
# for, it did before.
if [ -z "$later" ] && [ -n "$alone" ] && [ -d $STATE/agent ]; then
  mkdir -p $STATE/log
  [ -z "$(left)" ] || echo "ending what corral runs here (at most 150 s)"
  env -i PATH=$PATH LANG=C.UTF-8 PYTHONPATH="$home" \
    timeout -k 5 150 "$home/python" -P -m agent.leaving </dev/null 2>>$STATE/log/agent.log ||
    echo "the agent could not end all of it: what is left is killed"
fi
for pid in $(ours '-m agent\.'); do end "$pid"; done

until=$(($(date +%s) + 15))
stays=$(left)
while [ -n "$stays" ] && [ "$(date +%s)" -lt $until ]; do
  sweep
  sleep 0.1
  stays=$(left)
done
for group in $(groups); do
  find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
done
if [ -n "$stays" ]; then
  {
    echo "still on this machine:"
    echo "$stays" | sed 's/^/  /'
    echo "corral's files stay; end these, then run $0 again"
  } >&2
  exit 1
fi

if made sshd; then
  rm -f /etc/ssh/sshd_config.d/50-corral.conf
  "$0" --reload-sshd
fi

if made user; then
  # userdel takes a group of the user's name along, also one that was here before.
  made group || usermod -g "$(id -g nobody)" corral 2>/dev/null
  uid=$(id -u corral 2>/dev/null)
  tries=50
  while [ -n "$uid" ] && id -u corral >/dev/null 2>&1 && [ $tries -gt 0 ]; do
    for proc in /proc/[0-9]*; do
      owner=$(sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' "$proc/status" 2>/dev/null)
      [ "$owner" = "$uid" ] && kill -TERM "${proc#/proc/}" 2>/dev/null
    done
    userdel corral 2>/dev/null && break
    sleep 0.1
    tries=$((tries - 1))
  done
else
  rm -f $STATE/ssh/.ssh/authorized_keys
fi
made group && groupdel corral 2>/dev/null

if [ -d $STATE ]; then
  if [ -z "$purge" ] && [ -n "$(ls -A $STATE/agent/volumes 2>/dev/null)" ]; then
    find $STATE -mindepth 1 -maxdepth 1 ! -name agent -exec rm -rf {} +
    find $STATE/agent -mindepth 1 -maxdepth 1 ! -name volumes -exec rm -rf {} +
  else
    find $STATE -mindepth 1 -maxdepth 1 -exec rm -rf {} +
    made state && rmdir $STATE 2>/dev/null
  fi
fi
rm -rf $RUN
rm -rf $OPT
rm -f /run/corral-install.lock
exit 0
