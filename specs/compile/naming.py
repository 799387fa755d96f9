"""Refuse the names of a project that mean more, or nothing, where they end.

:mod:`specs.names` says what fits; here is which place of the Compose language has to. In the
notation of :mod:`specs.compile.support`: the value there, each item of a list, or (``KEYS``) the
keys of a mapping. Part of the compiler of stacks, which also serves what comes over the API
without having been a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs import names, templates
from specs.compile.values import extra_hosts
from specs.compile.verdicts import key_uses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]

KEYS: dict[str, names.NameRule] = {
    **dict.fromkeys(("services", "networks", "volumes", "secrets", "configs"), names.KEY),
    "services.*.annotations": names.ANNOTATION,
    "services.*.environment": names.ENV_NAME,
    "services.*.labels": names.LINE,
    "services.*.post_start[].environment": names.ENV_NAME,
    "services.*.pre_stop[].environment": names.ENV_NAME,
    "services.*.sysctls": names.SYSCTL,
    "services.*.ulimits": names.ULIMIT,
    "services.*.build.args": names.ENV_NAME,
    "services.*.build.labels": names.LINE,
}
VALUES: dict[str, names.NameRule] = {
    "networks.*.name": names.NAME,
    "networks.*.ipam.config[].subnet": names.SUBNET,
    "volumes.*.name": names.NameRule(templates.volume_name_fault, templates.HINT),
    "secrets.*.name": names.NAME,
    "configs.*.name": names.NAME,
    "services.*.hostname": names.HOSTNAME,
    "services.*.domainname": names.DNS_NAME,
    "services.*.container_name": names.NAME,
    "services.*.user": names.USER,
    "services.*.group_add": names.GROUP,
    "services.*.working_dir": names.WORKING_DIR,
    "services.*.post_start[].user": names.USER,
    "services.*.post_start[].working_dir": names.WORKING_DIR,
    "services.*.pre_stop[].user": names.USER,
    "services.*.pre_stop[].working_dir": names.WORKING_DIR,
    "services.*.stop_signal": names.SIGNAL,
    "services.*.dns": names.ADDRESS,
    "services.*.dns_search": names.SEARCH,
    "services.*.dns_opt": names.OPTION,
    "services.*.sysctls": names.LINE,
    "services.*.cap_add": names.CAPABILITY,
    "services.*.cap_drop": names.CAPABILITY,
    "services.*.networks.*.aliases": names.DNS_NAME,
    "services.*.networks.*.ipv4_address": names.IPV4,
    "services.*.ports[].host_ip": names.ADDRESS,
    "services.*.devices[].source": names.LINE,
    "services.*.devices[].target": names.TARGET,
    "services.*.devices[].permissions": names.ACCESS,
    # What is not absolute has a refusal of its own (specs.compile.mounts).
    "services.*.volumes[].target": names.NameRule(
        lambda text: names.target_fault(text) if text.startswith("/") else "", names.TARGET.hint
    ),
    "services.*.volumes[].source": names.LINE,
    "services.*.volumes[].volume.subpath": names.LINE,
    "services.*.volumes[].bind.propagation": names.TOKEN,
    "services.*.tmpfs": names.NameRule(
        lambda text: names.target_fault(text.partition(":")[0]), names.TARGET.hint
    ),
    "services.*.secrets[].target": names.FILE_TARGET,
    "services.*.configs[].target": names.FILE_TARGET,
    "services.*.image": names.IMAGE,
    "services.*.build.target": names.LINE,
    "services.*.build.network": names.LINE,
    "services.*.build.tags": names.TAG,
    "services.*.build.context": names.LINE,
    "services.*.build.dockerfile": names.LINE,
}
_HOSTS = ("services.*.extra_hosts", "services.*.build.extra_hosts")


def check(project: Json, stack: str, verdicts: Verdicts) -> None:
    """Refuse every name that does not fit, each at its place."""
    _refuse(verdicts, "name", names.STACK, stack)
    wrong: list[str] = []  # what is below a wrong key is wrong because of it
    for use in key_uses(project):
        if use.value in (None, "", [], {}) or use.path.startswith(tuple(wrong)):
            continue  # for Compose an empty value is not set
        if use.pattern in KEYS and isinstance(use.value, dict):
            wrong += [
                f"{use.path}.{key}"
                for key in use.value
                if _refuse(verdicts, f"{use.path}.{key}", KEYS[use.pattern], str(key))
            ]
        if use.pattern in VALUES:
            for path, value in _items(use.path, use.value):
                _refuse(verdicts, path, VALUES[use.pattern], value)
        elif use.pattern in _HOSTS:
            for path, one in _each(use.path, use.value):
                for name, address in extra_hosts(one):
                    if why := names.extra_host_fault(name, address):
                        verdicts.refuse(path, why, 'write "name=192.0.2.7"', code="bad-name")
    for path, value in _texts(project, ""):
        if path not in verdicts.findings.damaged and (why := names.text_fault(value)):
            verdicts.refuse(path, why, names.LINE.hint, code="bad-name")


def _refuse(verdicts: Verdicts, path: str, rule: names.NameRule, text: str) -> bool:
    why = rule.fault(text)
    if why:
        verdicts.refuse(path, why, rule.hint, code="bad-name")
    return bool(why)


def _each(path: str, hosts: Any) -> Iterator[tuple[str, Any]]:
    """Yield each item of ``extra_hosts`` in its own form, with its path."""
    if isinstance(hosts, dict):
        yield from ((f"{path}.{name}", {name: address}) for name, address in hosts.items())
    else:
        yield from ((f"{path}[{index}]", [item]) for index, item in enumerate(hosts))


def _items(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts of a value or of its items, each with its path."""
    if isinstance(value, dict):
        yield from ((f"{path}.{key}", str(item)) for key, item in value.items() if item is not None)
    elif isinstance(value, list):
        yield from ((f"{path}[{index}]", str(item)) for index, item in enumerate(value))
    else:
        yield path, str(value)


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield every text of the project, keys too."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            here = f"{path}.{key}" if path else str(key)
            yield here, str(key)
            yield from _texts(item, here)
