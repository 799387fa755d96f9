"""What a spec brings is looked at before anything is made of it, whoever sent it."""

from __future__ import annotations

import pytest

from agent.errors import Refusal
from agent.tasks import fitness
from specs.stack import Device, FileRef, Healthcheck, Mount, Port, TaskSpec

LINE = "a\n192.0.2.6 bank"
FILE = FileRef(source="s", target="/run/secrets/../../proc/sys")

# what is in the spec -> the words
CASES = {
    "hostname": ({"hostname": LINE}, "hostname: .* is not a host name"),
    "domainname": ({"domainname": "a b"}, "domainname: .* is not a host name"),
    "user": ({"user": "a\n0"}, "user: .* control characters"),
    "group_add": ({"group_add": ("a:b",)}, "group_add: .* more than a group"),
    "working_dir": ({"working_dir": "/proc/self/fd/7"}, "working_dir: .* inside /proc"),
    "dns": ({"dns": ("192.0.2.1\noptions x",)}, "dns: .* not an IP address"),
    "dns_search": ({"dns_search": ("a\nb",)}, "dns_search: .* not a host name"),
    "dns_opt": ({"dns_opt": ("a b",)}, "dns_opt: .* not an option"),
    "a host's name": ({"extra_hosts": ((LINE, "192.0.2.1"),)}, "extra_hosts: .* not a host name"),
    "a host's address": ({"extra_hosts": (("a", LINE),)}, "extra_hosts: .* not an IP address"),
    "an order to the runtime": (
        *({"annotations": {"run.oci.seccomp.receiver": "/run/x"}}, "annotations: .* order"),
    ),
    "a sysctl": ({"sysctls": {"net/../kernel.core_pattern": "x"}}, "sysctls: .* not a sysctl"),
    "a variable": ({"environment": {"A\nB": "x"}}, "environment: .* control characters"),
    "a port's address": (
        *({"ports": (Port(target=1, host_ip="::; flush ruleset"),)}, "ports: .* not an IP"),
    ),
    "a mount": ({"mounts": (Mount(type="tmpfs", target="/proc/sys"),)}, "volumes: .* inside /proc"),
    "a bind": ({"mounts": (Mount(type="bind", target="/a", source="/\0"),)}, "volumes: .* control"),
    "a secret": ({"secrets": (FILE,)}, "secrets and configs: .* leads upwards"),
    "a device": ({"devices": (Device(source="/dev/\0", target="/dev/x"),)}, "devices: .* control"),
    "an argument": ({"command": ("a\0",)}, "NUL"),
    "half a character": ({"entrypoint": ("\ud800",)}, "not Unicode"),
    "a check": ({"healthcheck": Healthcheck(test=("CMD", "\0"))}, "NUL"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused(case):
    fields, words = CASES[case]
    with pytest.raises(Refusal, match=words):
        fitness.check(TaskSpec(image="x").model_copy(update=fields))


def test_what_ran_before_runs():
    fitness.check(
        TaskSpec(
            image="x",
            hostname="h" * 70,  # cut, as before
            user="1000:www-data",
            extra_hosts=(("host.docker.internal", "host-gateway"),),
            environment={"TEXT": "a\nb"},
            command=("printf", "\x1b[0m\n"),
            sysctls={"net.core.somaxconn": "1"},
            mounts=(Mount(type="volume", source="v", target="/data dir"),),
        )
    )
