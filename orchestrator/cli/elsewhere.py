"""What people type who know other tools, what does that job here, and the nearest word. Pure.

Read only after something was typed that corral does not have. Compose's own verbs are in
``registry.KNOWN_ELSEWHERE``; here are other tools' words (one, or a group and its action), and
flags: Compose's that are missing (docs/differences.md has the same table) and other tools'.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

_IMAGES = "corral images: what containers run from; corral config --images: what the file names"
_UPDATE = "change the file and type corral up -d: only what changed is replaced, step by step"
_ROLES = "every machine runs tasks; the controller is where corral up was typed first"
_PRUNE = "corral down removes a stack with everything that runs; corral down -v its volumes, too"
_PUBLISH = "ports: in the file publishes on every node; corral port SERVICE PORT says where"
_LOGIN = "the registry's login of the node counts: docker login or podman login there"

_SIGNAL = "stop_signal: in the file says it; corral kill -s SIGNAL SERVICE sends one"
_ADDRESSES = "the cluster hands out addresses: corral network create --subnet CIDR NAME, or without"
_SEALED = "secrets are sealed by corral itself: corral secret create NAME FILE"
_TEMPLATE = "a file is taken as it is; {{.Node.Hostname}} and the like stand in environment:"

# Other programs' names, typed before the verb.
PROGRAMS = frozenset({"compose", "docker", "docker-compose", "podman"})

# one word, or two -> what to type here
WORDS: dict[str, str] = {
    # Docker: containers
    "container": "corral ps, corral logs, corral exec, corral stop; each takes a SERVICE",
    "container ls": "corral ps (-a: also what ended)",
    "container ps": "corral ps (-a: also what ended)",
    "container list": "corral ps (-a: also what ended)",
    "container inspect": "corral inspect CONTAINER",
    "container rm": "corral rm -f SERVICE",
    "container prune": "corral rm -f",
    "container stats": "corral stats",
    "container top": "corral top SERVICE",
    "container logs": "corral logs SERVICE",
    "container exec": "corral exec SERVICE COMMAND",
    "container stop": "corral stop SERVICE",
    "container start": "corral start SERVICE",
    "container restart": "corral restart SERVICE",
    "container kill": "corral kill SERVICE",
    "rename": "a container's name follows its service, or container_name: in the file",
    "update": _UPDATE,
    # Docker: images
    "image": _IMAGES,
    "image ls": _IMAGES,
    "image list": _IMAGES,
    "image build": "corral up -d --build",
    "image pull": "corral up -d --pull always",
    "image push": "nodes get images from each other: corral up needs no registry for what is built",
    "image inspect": "corral config --images --resolve-image-digests",
    "image rm": "corral down --rmi all removes those of a stack that nobody else uses",
    "image prune": "corral down --rmi all removes those of a stack that nobody else uses",
    "rmi": "corral down --rmi all removes those of a stack that nobody else uses",
    "tag": "image: in the file says the name; corral up -d --build gives it",
    "save": "nodes get images from each other: corral up",
    "load": "nodes get images from each other: corral up",
    "import": "an image comes from a Dockerfile: corral up -d --build",
    "search": "image: in the file names what corral up fetches",
    "builder": "corral up -d --build",
    "buildx": "corral up -d --build",
    "login": _LOGIN,
    "logout": _LOGIN,
    "registry": _LOGIN,
    # Docker: other objects
    "image rmi": "corral down --rmi all removes those of a stack that nobody else uses",
    "image save": "nodes get images from each other: corral up",
    "image load": "nodes get images from each other: corral up",
    "image import": "an image comes from a Dockerfile: corral up -d --build",
    "image tag": "image: in the file says the name; corral up -d --build gives it",
    "image history": "corral config --images --resolve-image-digests",
    "trust": "image: NAME@sha256:... in the file pins one; corral config --lock-image-digests",
    "manifest": "a node takes the image of its platform by itself: corral up",
    "checkpoint": "corral pause SERVICE freezes what runs",
    "network connect": "networks: of the service in the file, then corral up -d",
    "network disconnect": "networks: of the service in the file, then corral up -d",
    "volume update": "a volume is as it was made: corral volume rm NAME, then create",
    "secret prune": "corral secret rm NAME; those of a stack go with corral down",
    "secret update": "another name, and the file names that: corral secret create NAME FILE",
    "config prune": "corral config rm NAME; those of a stack go with corral down",
    "config update": "another name, and the file names that: corral config create NAME FILE",
    "context export": "corral context inspect NAME says all there is of one",
    "context import": "corral context create NAME --host ssh://user@host",
    "container create": "corral create SERVICE",
    "container run": "corral run SERVICE COMMAND",
    "container attach": "corral attach SERVICE",
    "container cp": "corral cp SERVICE:PATH DEST",
    "container pause": "corral pause SERVICE",
    "container unpause": "corral unpause SERVICE",
    "container port": "corral port SERVICE PORT",
    "container wait": "corral wait SERVICE",
    "container commit": "an image comes from a Dockerfile: corral up -d --build",
    "container export": "corral exec -T SERVICE tar -cf - / > FILE.tar",
    "container diff": "corral exec SERVICE sh shows what is in a container",
    "container rename": "a container's name follows its service, or container_name: in the file",
    "container update": _UPDATE,
    "swarm unlock-key": "the key lies with the controller; see corral controller status",
    "plugin": "there are no plugins; corral --help lists the commands",
    "system": "corral node ls, corral stats, corral ls",
    "system prune": _PRUNE,
    "system df": "corral node ls, corral stats",
    "system info": "corral node ls, corral version",
    "system events": "corral events",
    "prune": _PRUNE,
    "info": "corral node ls, corral version",
    # Swarm
    "swarm": "corral up starts a cluster of one machine; corral node add user@host adds one more",
    "swarm init": "corral up starts a cluster of one machine; nothing is to be prepared",
    "swarm join": "from the controller's machine: corral node add user@host",
    "swarm join-token": "no token is needed: corral node add user@host",
    "swarm leave": "from the controller's machine: corral node rm NODE",
    "swarm ca": "certificates are made and renewed by themselves; see corral controller status",
    "swarm unlock": "the key lies with the controller; see corral controller status",
    "swarm update": "corral controller extend adds addresses; the rest needs no setting",
    "join": "from the controller's machine: corral node add user@host",
    "init": "corral up starts a cluster of one machine; nothing is to be prepared",
    "stack deploy": "corral -f FILE -p STACK up -d",
    "stack up": "corral -f FILE -p STACK up -d",
    "stack ls": "corral ls",
    "stack ps": "corral -p STACK ps",
    "stack services": "corral -p STACK ps",
    "stack rm": "corral -p STACK down",
    "stack down": "corral -p STACK down",
    "stack config": "corral config",
    "service ls": "corral ps",
    "service ps": "corral ps SERVICE",
    "service create": "a service of the file: corral up -d SERVICE",
    "service scale": "corral scale SERVICE=NUMBER",
    "service update": _UPDATE
    + "; corral up -d --force-recreate SERVICE replaces what did not change",
    "service rollback": "corral up -d with the file as it was before",
    "service logs": "corral logs SERVICE",
    "service inspect": "corral config SERVICE, corral inspect SERVICE",
    "service rm": "corral down SERVICE, or take it out of the file: corral up -d --remove-orphans",
    "service exec": "corral exec SERVICE COMMAND",
    "node promote": _ROLES,
    "node demote": _ROLES,
    "node update": "corral node label NODE KEY=VALUE, corral node drain, corral node activate",
    "node ps": "corral ps shows each task's node",
    "node list": "corral node ls",
    "node remove": "corral node rm NODE",
    "node cordon": "corral node pause NODE",
    "node uncordon": "corral node activate NODE",
    "node undrain": "corral node activate NODE",
    "node unpause": "corral node activate NODE",
    "node join": "from the controller's machine: corral node add user@host",
    # uncloud
    "machine": "corral node ls, corral node add user@host, corral node rm NODE",
    "machine init": "corral up starts a cluster of one machine; nothing is to be prepared",
    "machine add": "corral node add user@host",
    "machine ls": "corral node ls",
    "machine rm": "corral node rm NODE",
    "machine token": "no token is needed: corral node add user@host",
    "wg": "corral node inspect NODE",
    "caddy": _PUBLISH,
    "dns": "names are resolved inside the containers; " + _PUBLISH,
    "ctx": "corral context ls",
    # Kamal
    "setup": "corral node add user@host for each machine, then corral up -d",
    "redeploy": "corral up -d --build",
    "rollback": "corral up -d with the file as it was before",
    "app": "corral ps, corral logs, corral exec, corral stop",
    "app exec": "corral exec SERVICE COMMAND",
    "app logs": "corral logs SERVICE",
    "app boot": "corral up -d SERVICE",
    "app stop": "corral stop SERVICE",
    "app details": "corral ps SERVICE",
    "accessory": "a database is a service like any other: corral up -d SERVICE",
    "proxy": _PUBLISH,
    "server": "corral node ls, corral node add user@host",
    "server bootstrap": "corral node add user@host",
    "details": "corral ps",
    "remove": "corral down",
    "audit": "corral events",
    "lock": "nothing is to be locked: of two corral up the later one wins and both are told",
    "env": "environment: and env_file: in the file, then corral up -d",
    "secrets": "secrets: in the file; corral up seals and hands them out",
    # Kubernetes, Nomad, and what else a shell remembers
    "apply": "corral up -d",
    "get": "corral ps, corral ls, corral node ls",
    "describe": "corral inspect NAME",
    "delete": "corral down",
    "rollout": "corral up -d replaces step by step; corral ps shows how far it is",
    "drain": "corral node drain NODE",
    "cordon": "corral node pause NODE",
    "uncordon": "corral node activate NODE",
    "undrain": "corral node activate NODE",
    "port-forward": _PUBLISH,
    "job": "a one-off is a service of the file: corral up -d SERVICE",
    "alloc": "corral ps, corral logs, corral exec",
    "shell": "corral exec SERVICE sh",
    "sh": "corral exec SERVICE sh",
    "bash": "corral exec SERVICE bash",
    "ssh": "corral exec SERVICE sh",
    "log": "corral logs SERVICE",
    "tail": "corral logs -f SERVICE",
    "destroy": "corral down -v",
    "reload": "corral up -d takes a changed file; corral kill -s HUP SERVICE sends a signal",
    "check": "corral lint",
    "fmt": "corral config",
    "monitor": "corral stats, corral events",
}

# (verb or "" for before the verb, flag) -> what to do instead
FLAGS: dict[tuple[str, str], str] = {
    ("", "--dry-run"): "corral plan says what `up` would do, and why; corral up --dry-run, too",
    ("up", "--menu"): "Ctrl-C ends corral up; everything else is a command in another terminal",
    # other tools' flags
    ("", "--compose-file"): "corral -f FILE up",
    ("", "-D"): "corral events says what happens",
    ("", "--debug"): "corral events says what happens",
    ("", "--verbose"): "corral events says what happens",
    ("ps", "-n"): "corral ps -a lists everything, in the order of its name",
    ("ps", "--last"): "corral ps -a lists everything, in the order of its name",
    ("ps", "-l"): "corral ps -a lists everything, in the order of its name",
    ("ps", "-s"): "corral stats shows what containers use",
    ("ps", "--size"): "corral stats shows what containers use",
    ("up", "--replicas"): "corral up -d --scale SERVICE=NUMBER",
    ("up", "--with-registry-auth"): _LOGIN,
    ("up", "--prune"): "corral up -d --remove-orphans",
    ("up", "--detach-keys"): "Ctrl-C ends or detaches from corral up; corral up -d does not attach",
    ("scale", "--replicas"): "corral scale SERVICE=NUMBER",
    ("down", "--purge"): "corral down -v removes volumes, too",
    (
        "node",
        "--availability",
    ): "corral node drain NODE, corral node pause NODE, corral node activate NODE",
    ("node", "--label-add"): "corral node label NODE KEY=VALUE",
    ("node", "--label-rm"): "corral node label NODE KEY-",
    # Docker's of verbs that Compose has, too
    ("attach", "--no-tty"): "a container has the terminal its service asks for (tty: in the file)",
    ("cp", "-q"): "corral --progress quiet cp",
    ("cp", "--quiet"): "corral --progress quiet cp",
    ("create", "--name"): "container_name: in the file names a container",
    ("exec", "--detach-keys"): "Ctrl-C twice leaves corral exec; the command runs on",
    ("exec", "--env-file"): "corral exec -e KEY=VALUE SERVICE COMMAND (repeatable)",
    ("images", "-a"): "corral images lists those of containers",
    ("images", "--all"): "corral images lists those of containers",
    ("images", "--digests"): "corral images --format '{{.Repository}} {{.ID}}'",
    ("images", "--no-trunc"): "corral images --format '{{.Repository}} {{.ID}}'",
    ("logs", "--details"): "corral ps --format '{{.Name}} {{.Labels}}'",
    ("restart", "-s"): _SIGNAL,
    ("restart", "--signal"): _SIGNAL,
    ("rm", "-l"): "links: in the file, then corral up -d",
    ("rm", "--link"): "links: in the file, then corral up -d",
    ("run", "--env-file"): "corral run --env-from-file FILE SERVICE",
    ("start", "-a"): "corral start SERVICE, then corral attach SERVICE",
    ("start", "--attach"): "corral start SERVICE, then corral attach SERVICE",
    ("start", "-i"): "corral start SERVICE, then corral attach SERVICE",
    ("start", "--interactive"): "corral start SERVICE, then corral attach SERVICE",
    ("stop", "-s"): _SIGNAL,
    ("stop", "--signal"): _SIGNAL,
    **{
        ("run", f"--{flag}"): f"{key}: of the service in the file; corral run has what it says"
        for flag, key in (
            *((same, same) for same in ("init", "privileged", "hostname", "device", "dns")),
            *((same.replace("_", "-"), same) for same in ("read_only", "security_opt", "shm_size")),
            *(("network", "networks"), ("net", "networks"), ("gpus", "deploy.resources")),
            *(("memory", "mem_limit"), ("cpus", "cpus"), ("mount", "volumes")),
            *(("add-host", "extra_hosts"), ("restart", "restart"), ("link", "links")),
            *(("tmpfs", "tmpfs"), ("ulimit", "ulimits"), ("sysctl", "sysctls"), ("ip", "networks")),
            *(("platform", "platform"), ("stop-signal", "stop_signal"), ("pid", "pid")),
        )
    },
}

# Docker's object verbs: (object and action, flag) -> what to do instead (docs/differences.md).
OBJECT_FLAGS: dict[tuple[str, str], str] = {
    ("network create", "--aux-address"): "ipv4_address: of a service in the file takes an address",
    ("network create", "--config-from"): _ADDRESSES,
    ("network create", "--config-only"): _ADDRESSES,
    ("network create", "--gateway"): "a container's way out is its node: no address is used up",
    ("network create", "--ingress"): _PUBLISH,
    ("network create", "--ip-range"): _ADDRESSES,
    ("network create", "--ipam-driver"): _ADDRESSES,
    ("network create", "--ipam-opt"): _ADDRESSES,
    ("network create", "--ipv6"): _ADDRESSES,
    **{
        ("volume create", f"--{flag}"): "volumes are local: corral volume create --node NODE NAME"
        for flag in (
            *("availability", "group", "limit-bytes", "required-bytes", "scope", "secret"),
            *("sharing", "topology-preferred", "topology-required", "type"),
        )
    },
    ("volume ls", "--cluster"): "corral volume ls lists those of all nodes",
    ("secret create", "-d"): _SEALED,
    ("secret create", "--driver"): _SEALED,
    ("secret create", "--template-driver"): _TEMPLATE,
    ("config create", "--template-driver"): _TEMPLATE,
    ("context create", "--from"): "corral context create NEW --host ssh://user@host",
}


def job(words: Sequence[str], known: Iterable[str], compose: Mapping[str, str]) -> str:
    """Return what does the job of what was typed, "" where these words say nothing to us.

    ``known`` are our commands, ``compose`` what does the job of Compose's that we do not have.
    """
    here = list(known)
    if words[0] in PROGRAMS and len(words) > 1:
        rest = " ".join(words[1:])
        return f"corral {rest}" if words[1] in here else job(words[1:], here, compose)
    found = WORDS.get(" ".join(words[:2])) if len(words) > 1 else None
    found = found or compose.get(words[0]) or WORDS.get(words[0])
    if found:
        return found
    near = nearest(words[0], here)
    if near:
        return f"did you mean {' or '.join(f'`corral {word}`' for word in near)}?"
    other = nearest(words[0], [word for word in (*compose, *WORDS) if " " not in word])
    return f"{other[0]}: {compose.get(other[0]) or WORDS[other[0]]}" if other else ""


def advice(text: str, name: str, words: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """Return what to type instead of what argparse complains of; "" where we know nothing."""
    if "invalid choice: " in text:
        typed = text.partition("invalid choice: '")[2].partition("'")[0]
        if words[:1] == [typed] and WORDS.get(f"{name} {typed}"):
            return WORDS[f"{name} {typed}"]
        choices = text.partition("(choose from ")[2].rstrip(")").replace("'", "").split(", ")
        near = nearest(typed, choices)
        return f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(choices)}"
    flag = text.partition("arguments: ")[2].split()[0].partition("=")[0]
    known = OBJECT_FLAGS.get((" ".join([name, *words[:1]]), flag)) or FLAGS.get((name, flag))
    if known:
        return known
    options = [o for o in parser._option_string_actions if o.startswith("--")]  # noqa: SLF001 - argparse has no other way
    near = [f"--{word}" for word in nearest(flag.lstrip("-"), [o[2:] for o in options])]
    if near and flag.startswith("--"):
        return f"did you mean {' or '.join(near)}?"
    return FLAGS.get(("", flag), "")  # Compose takes some behind each verb, too


def nearest(word: str, known: Sequence[str]) -> list[str]:
    """Return the words that were probably meant: a slip of the finger away, or begun so.

    Words that only look alike do another job (``stats`` is no ``restart``): one slip in a word
    of up to four letters, two in a longer one, and never more than a third of it.
    """
    slips = 1 if len(word) <= 4 else 2
    measured = [(distance(word, other), other) for other in known]
    close = [found for found in measured if found[0] <= min(slips, len(found[1]) // 3 or 1)]
    if close:
        best = min(found[0] for found in close)
        found = [other for away, other in close if away == best]
        return sorted(found, key=lambda other: not other.startswith(word))[:2]
    begun = [other for other in known if len(word) > 2 and other.startswith(word)]
    return begun if len(begun) <= 2 else []


def distance(one: str, two: str) -> int:
    """Return how many slips (a letter more, less, another, two swapped) lie between two words."""
    before: list[int] = []
    line = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        older, before = before, line
        line = [i]
        for j, b in enumerate(two, 1):
            cost = min(line[j - 1] + 1, before[j] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == two[j - 2] and one[i - 2] == b:
                cost = min(cost, older[j - 2] + 1)
            line.append(cost)
    return line[-1]
