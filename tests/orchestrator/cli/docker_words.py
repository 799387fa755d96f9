"""The verbs and flags of `docker OBJECT ...`, as its own --help of each has them (v28)."""

from __future__ import annotations

_LIST = "-f --filter --format -q --quiet"


def _without_flags(verbs: str) -> dict[str, str]:
    return dict.fromkeys(verbs.split(), "")


# object -> action -> its flags
OBJECTS: dict[str, dict[str, str]] = {
    "network": {
        "connect": "--alias --driver-opt --gw-priority --ip --ip6 --link --link-local-ip",
        "create": "--attachable --aux-address --config-from --config-only -d --driver --gateway"
        " --ingress --internal --ip-range --ipam-driver --ipam-opt --ipv4 --ipv6 --label -o --opt"
        " --scope --subnet",
        "disconnect": "-f --force",
        "inspect": "-f --format -v --verbose",
        "ls": f"{_LIST} --no-trunc",
        "prune": "--filter -f --force",
        "rm": "-f --force",
    },
    "volume": {
        "create": "--availability -d --driver --group --label --limit-bytes -o --opt"
        " --required-bytes --scope --secret --sharing --topology-preferred --topology-required"
        " --type",
        "inspect": "-f --format",
        "ls": f"{_LIST} --cluster",
        "prune": "-a --all --filter -f --force",
        "rm": "-f --force",
        "update": "--availability",
    },
    "secret": {
        "create": "-d --driver -l --label --template-driver",
        "inspect": "-f --format --pretty",
        "ls": _LIST,
        "rm": "",
    },
    "config": {
        "create": "-l --label --template-driver",
        "inspect": "-f --format --pretty",
        "ls": _LIST,
        "rm": "",
    },
    "node": {
        "demote": "",
        "inspect": "-f --format --pretty",
        "ls": _LIST,
        "promote": "",
        "ps": "-f --filter --format --no-resolve --no-trunc -q --quiet",
        "rm": "-f --force",
        "update": "--availability --label-add --label-rm --role",
    },
    "context": {
        "create": "--description --docker --from",
        "export": "",
        "import": "",
        "inspect": "-f --format",
        "ls": "--format -q --quiet",
        "rm": "-f --force",
        "show": "",
        "update": "--description --docker",
        "use": "",
    },
    # Objects that are no group here: each of their verbs leads to one of ours.
    "container": _without_flags(
        "attach commit cp create diff exec export inspect kill logs ls pause port prune rename "
        "restart rm run start stats stop top unpause update wait"
    ),
    "image": _without_flags("build history import inspect load ls prune pull push rm save tag"),
    "service": _without_flags("create inspect logs ls ps rm rollback scale update"),
    "stack": _without_flags("config deploy ls ps rm services"),
    "swarm": _without_flags("ca init join join-token leave unlock unlock-key update"),
    "system": _without_flags("df events info prune"),
    "plugin": _without_flags("ls install rm"),
    "builder": _without_flags("build prune"),
    "trust": _without_flags("inspect sign revoke"),
    "manifest": _without_flags("create inspect push rm"),
    "checkpoint": _without_flags("create ls rm"),
}

# `docker VERB`, without an object
VERBS = tuple(
    _without_flags(
        "attach build commit cp create diff events exec export history images import info inspect"
        " kill load login logout logs pause port ps pull push rename restart rm rmi run save"
        " search start stats stop tag top unpause update version wait"
    )
)
