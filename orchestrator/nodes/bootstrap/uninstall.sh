#!/bin/sh
# Takes off this machine what `corral node add` put on it, except named volumes (--purge: those too).
# Run by the agent when the node leaves its cluster, by a failed `node add`, or by hand. It may be
# run again at any time. What was here before corral stays: /opt/corral/made names what was made.
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
# Ours are the processes that were started with the environment of this installation.
ours() {
  for proc in /proc/[0-9]*; do
    [ "${proc#/proc/}" = $$ ] && continue
    tr '\0' '\n' <"$proc/environ" 2>/dev/null | grep -qx "PYTHONPATH=$OPT/.*" || continue
    tr '\0' ' ' <"$proc/cmdline" 2>/dev/null | grep -Eq -- "$1" && echo "${proc#/proc/}"
  done
}

# By hand, or before the machine is added again: the agent takes its containers away, then calls
# this script itself.
if [ -z "$later" ] && [ -S $RUN/agent.sock ] && [ -x $OPT/python ]; then
  $OPT/python -I - <<'END' && tries=600
import http.client, socket
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(150)
        self.sock.connect("/run/corral/agent.sock")
link = Unix("agent")
link.request("POST", "/v1/leave")
raise SystemExit(link.getresponse().status != 200)
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
if read -r pid birth _ 2>/dev/null <$RUN/supervisor.pid && [ "$(started "$pid")" = "$birth" ]; then
  end "$pid"
fi
for kind in 'supervisor\.py' '-m agent( |$)' '-m agent\.'; do
  for pid in $(ours "$kind"); do end "$pid"; done
done

if [ -e $RC ] && grep -q '# corral$' $RC; then
  sed -i '/# corral$/d' $RC
  made rc.local && rm -f $RC
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
  # What is still mounted below would be emptied with the directory.
  while read -r _ where _; do
    case "$where" in $STATE/?*) umount -l "$where" ;; esac
  done </proc/mounts
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
