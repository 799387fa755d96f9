"""Which command lives in which module; the modules are imported after parsing.

A command module has ``describe(parser)``, which adds its arguments, and
``run(args, session) -> int``. Names with a space are subcommands of a group.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Protocol

    from orchestrator.cli.session import Invocation

    class Command(Protocol):
        """What a command module offers."""

        def describe(self, parser: argparse.ArgumentParser) -> None: ...

        def run(self, args: argparse.Namespace, session: Invocation) -> int: ...


# name -> (module in orchestrator.cli.commands, one line of help); the order is the help's
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "create and start a stack, or bring it to what its file says"),
    "down": ("down", "stop and remove a stack"),
    "plan": ("plan", "say what up would do, and why; keep that in a file"),
    "ps": ("ps", "list the tasks of a stack"),
    "logs": ("logs", "show what the containers print"),
    "exec": ("exec", "run a command in a running container"),
    "run": ("run", "run a command once in a new container of a service"),
    "attach": ("attach", "the terminal of a container's own process, from now on"),
    "cp": ("cp", "copy files between containers and this machine"),
    "scale": ("scale", "change the number of replicas"),
    "history": ("history", "list a stack's releases: what, when, who, why"),
    "diff": ("diff", "show what differs between two releases"),
    "rollback": ("rollback", "bring back what an earlier release asked for"),
    "schedule": ("schedule", "when services with a schedule are due, and what came of it"),
    "rollout": ("rollout", "pause an update, go on with it, go back, promote a canary"),
    "restart": ("restart", "restart containers"),
    "create": ("create", "make what the file says, and start nothing"),
    "start": ("start", "start what was stopped or has ended"),
    "stop": ("stop", "stop a stack or some of its services, and keep them"),
    "rm": ("rm", "remove what was stopped or has ended"),
    "kill": ("kill", "send a signal to containers; KILL without another word"),
    "wait": ("wait", "wait until containers have ended, and end with their exit code"),
    "pause": ("pause", "freeze the processes of running containers"),
    "unpause": ("unpause", "let frozen containers go on"),
    "top": ("top", "list the processes of running containers"),
    "stats": ("stats", "show what running containers use"),
    "watch": ("watch", "bring what is edited here into containers, or build it again"),
    "port": ("port", "print where a port is published"),
    "images": ("images", "list the images of a stack's containers"),
    "volumes": ("volumes", "list the volumes of a stack"),
    "inspect": ("inspect", "everything about containers and other objects, as JSON"),
    "ls": ("ls", "list stacks"),
    "events": ("events", "follow what happens, or list what happened"),
    "why": ("why", "say why something is as it is, and what would help"),
    "config": ("config", "check the file and print what it means"),
    "lint": ("lint", "say everything there is to say about the file, offline"),
    "network": ("network", "make, list and remove networks that belong to no stack"),
    "volume": ("volume", "make, list and remove volumes"),
    "secret": ("secret", "make, list and remove secrets that belong to no stack"),
    "node": ("node", "list, add, label, replace and remove machines"),
    "context": ("context", "name controllers and choose the one to talk to"),
    "upgrade": ("upgrade", "bring controller and agents to this version, containers run on"),
    "lab": ("lab", "make hosts on this machine to try things on"),
    "state": ("state", "check, print or decide about the controller's state"),
    "doctor": ("doctor", "look at everything, and say what is wrong and what helps"),
    "metrics": ("metrics", "print figures of the controller or a node, as Prometheus reads them"),
    "backup": ("backup", "copy the controller's state into a file, now or by a schedule"),
    "restore": ("restore", "put a backup of the controller's state back, here"),
    "controller": ("controller", "run, stop or inspect the controller"),
    "agent": ("agent", "run this machine's agent"),
    "supervise": ("supervise", "keep controller and agent running where there is no systemd"),
    "version": ("version", "print versions"),
    "completion": ("completion", "print what makes bash, zsh or fish complete our words"),
    "man": ("man", "show the manual page of all commands, or of one"),
}

# Words behind a command that make another command of it: Docker's `config create` is about
# configs, Compose's `config` about the file.
SECOND = {
    ("config", word): ("configs", "make, list and remove configs that belong to no stack")
    for word in ("create", "ls", "list", "inspect", "rm", "remove", "prune", "update")
}

# Commands whose words are somebody else's to parse.
PASSED_ON = frozenset({"controller", "agent", "lab"})

# Commands people know from elsewhere, and what does their work here.
KNOWN_ELSEWHERE = {
    "build": "corral up -d --build builds what the file builds and runs it",
    "commit": "an image comes from a Dockerfile: corral up -d --build",
    "export": "corral exec -T SERVICE tar -cf - / > FILE.tar",
    "publish": "the file is all that corral up needs; corral config prints it whole",
    "pull": "corral up -d --pull always",
    "push": "nodes get images from each other: corral up needs no registry for what is built",
    "deploy": "corral up",
    "list": "corral ls",
    "validate": "corral config -q, corral lint",
    "convert": "corral config",
    "status": "corral ps",
    "nodes": "corral node ls",
    "stack": "corral up, corral ls, corral ps, corral down",
    "service": "corral ps, corral scale, corral logs",
}
