"""What a valid name is: one rule for every string that leaves a file for another language.

A value of a Compose file, of an image's config or of an API call ends as a file name, a line of
/etc/hosts or /etc/resolv.conf, an nft element, a kernel name, an argument, a key of the OCI
configuration. What is a name there is said here, once: :mod:`specs.compile.naming` refuses by it
with the place in the user's file, the agent (images, tasks) once more, because what reaches it
came from elsewhere. docs/security.md has the table with what Docker does.

A rule returns why a text does not fit, "" where it does. What is shown of a text is its escaped
form, cut short: a refusal is read in terminals and logs. Pure, stdlib only.
"""

from __future__ import annotations

import posixpath
import re
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from specs import kernel
from specs.references import reference_fault, tag_fault
from specs.subnets import reserved

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_HOSTNAME: Final = 64  # the kernel's (sethostname(2))
LONGEST_DNS_NAME: Final = 253
LONGEST_LABEL: Final = 63
LONGEST_PATH: Final = 4095
LONGEST_NAME: Final = 255  # of a file: one name is one folder or file of a node
_SHOWN = 60
_ID_DIGITS = len(str(kernel.MOST_ID))

_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_STACK = re.compile(r"[a-z0-9][a-z0-9_-]*")
_KEY = re.compile(r"[a-zA-Z0-9._-]+")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]{1,15})?")
_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_SYSCTL = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)+")
_ACCESS = re.compile(r"[rwm]{1,3}")
_TOKEN = re.compile(r"[A-Za-z0-9_+-]{1,32}")
# Keys of ``annotations`` that are orders to the runtime (crun connects to a path that one of them
# names, loads what another names), not notes of the user.
ORDERS: Final = ("run.oci.", "org.criu.", "org.systemd.property.", "module.wasm.", "org.corral.")
# Below /proc these alone may be mounted on, as in runc: what lxcfs puts there.
_PROC_FILES = """
cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo
sys/kernel/ns_last_pid sys/crypto/fips_enabled
"""
PROC_FILES: Final = frozenset(f"/proc/{name}" for name in _PROC_FILES.split())


class NameRule(NamedTuple):
    """``fault`` returns why a text does not fit, "" where it does; ``hint`` what to write."""

    fault: Callable[[str], str]
    hint: str


def shown(text: str) -> str:
    """Return a text as it can be printed anywhere, in quotes."""
    cut = ascii(text[:_SHOWN])
    return cut if len(text) <= _SHOWN else f"{cut}... ({len(text)} characters)"


def is_number(text: str) -> bool:
    """Say whether this is a whole number in ASCII digits: others are digits to Python, too."""
    return text.isascii() and text.isdigit()


def text_fault(text: str) -> str:
    """Return why a text cannot be handed to a process or written as UTF-8."""
    if "\0" in text:
        return f"{shown(text)} holds a NUL byte, which no program can be given"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{shown(text)} is not Unicode text"
    return ""


def line_fault(text: str) -> str:
    """Return why a text is not one line of printable characters."""
    if _CONTROL.search(text):
        return f"{shown(text)} holds control characters"
    return text_fault(text)


def _matching(pattern: re.Pattern[str], what: str, longest: int) -> Callable[[str], str]:
    def fault(text: str) -> str:
        if not pattern.fullmatch(text):
            return f"{shown(text)} is not {what}"
        if len(text) > longest:
            return f"{shown(text)} is longer than {what} can be ({longest})"
        return ""

    return fault


host_like_fault = _matching(_HOST, "a host name", LONGEST_DNS_NAME)
_kernel_name = _matching(_HOST, "a host name", LONGEST_HOSTNAME)


def dns_name_fault(text: str) -> str:
    """Return why a text cannot be looked up: letters, digits, ``_``, ``-``, labels of 63."""
    why = host_like_fault(text)
    if not why and not all(0 < len(part) <= LONGEST_LABEL for part in text.split(".")):
        why = f"{shown(text)} has a part that is empty or longer than {LONGEST_LABEL} characters"
    return why


_SWARM: Final = re.compile(
    r"\{\{\s*\.(?:Service\.Name|Task\.(?:ID|Name|Slot)|Node\.(?:ID|Hostname)"
    r"|Node\.Platform\.(?:OS|Architecture))\s*\}\}"
)


def without_root(hostname: str) -> str:
    """Return a host name without a dot at its end, as an empty variable behind one leaves it."""
    return hostname.removesuffix(".")


def hostname_fault(text: str) -> str:
    """Return why a container cannot have this host name; Swarm's templates are filled in later."""
    text = without_root(_SWARM.sub("x", text))
    return _kernel_name(text) or dns_name_fault(text)


def search_fault(text: str) -> str:
    """Return why this is no search domain; ``.`` alone means none."""
    return "" if text == "." else dns_name_fault(text.removesuffix("."))


def address_fault(text: str) -> str:
    """Return why a text is not an IPv4 or IPv6 address."""
    try:
        if _ADDRESS.fullmatch(text):
            ip_address(text)
            return ""
    except ValueError:
        pass
    return f"{shown(text)} is not an IP address"


def ipv4_fault(text: str) -> str:
    """Return why a text is not an IPv4 address."""
    try:
        IPv4Address(text)
    except ValueError:
        return f"{shown(text)} is not an IPv4 address"
    return ""


def subnet_fault(text: str) -> str:
    """Return why a text is not a subnet that a network can have."""
    try:
        if _ADDRESS.fullmatch(text.partition("/")[0]):
            ip_network(text, strict=False)
            meaning = reserved(text)
            return f"{shown(text)} cannot be a network's range: it is {meaning}" if meaning else ""
    except ValueError:
        pass
    return f"{shown(text)} is not a subnet"


def extra_host_fault(name: str, address: str) -> str:
    """Return why a line of /etc/hosts cannot be made of the two."""
    return dns_name_fault(name) or ("" if address == "host-gateway" else address_fault(address))


def user_fault(text: str) -> str:
    """Return why a text is not ``user``, ``uid``, ``user:group`` ...; the image may know it.

    Who it is, is looked up line by line in the image's /etc/passwd.
    """
    for part in text.split(":"):
        why = line_fault(part)
        if not why and any(char.isspace() for char in part):
            why = f"{shown(text)} holds a blank"
        if not why and any(char.isnumeric() and not char.isascii() for char in part):
            why = f"{shown(text)} has digits other than 0 to 9"
        if not why and is_number(part) and (len(part) > _ID_DIGITS or int(part) > kernel.MOST_ID):
            why = f"{shown(part)} is no user's or group's number: they end at {kernel.MOST_ID}"
        if why:
            return why
    return f"{shown(text)} has more than user and group" if text.count(":") > 1 else ""


def group_fault(text: str) -> str:
    """Return why a text is not one group's name or number."""
    return user_fault(text) or (f"{shown(text)} is more than a group" if ":" in text else "")


def path_fault(text: str) -> str:
    """Return why a text is not an absolute path; blanks and umlauts are fine."""
    why = line_fault(text)
    if not why and not text.startswith("/"):
        why = f"{shown(text)} is not an absolute path"
    if not why and len(text.encode()) > LONGEST_PATH:
        why = f"{shown(text)} is longer than a path can be"
    return why


def working_dir_fault(text: str) -> str:
    """Return why a process cannot begin there."""
    why = path_fault(text)
    if not why and _below(text, "/proc"):
        why = f"{shown(text)} is inside /proc, where no process may begin"
    return why


def target_fault(text: str) -> str:
    """Return why nothing may be mounted at a path of a container."""
    why = path_fault(text)
    if not why and ".." in text.split("/"):
        why = f"{shown(text)} leads upwards"
    if not why and _clean(text) == "/":
        why = f"{shown(text)} is the container's root itself"
    if not why and _below(text, "/proc") and _clean(text) not in PROC_FILES:
        why = f"{shown(text)} is inside /proc, where nothing may be mounted"
    return why


def file_target_fault(text: str) -> str:
    """Return why a secret or config cannot be put there; a relative name is below its folder."""
    return target_fault(text if text.startswith("/") else f"/run/secrets/{text}")


def _known(what: str, known: Callable[[str], object]) -> Callable[[str], str]:
    def fault(text: str) -> str:
        why = line_fault(text)
        return why or ("" if known(text) else f"{shown(text)} is no {what}")

    return fault


def annotation_fault(key: str) -> str:
    """Return why a key of ``annotations`` is not the user's to write."""
    if key.startswith(ORDERS):
        return f"{shown(key)} is an order to the container runtime, which is corral's to give"
    return line_fault(key) if key else "an empty key"


def env_name_fault(text: str) -> str:
    """Return why a text cannot be the name of a variable."""
    return line_fault(text)


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def _below(path: str, top: str) -> bool:
    return f"{_clean(path)}/".startswith(f"{top}/")


_CHARACTERS = "use letters, digits, '_', '-' and '.'"
STACK: Final = NameRule(
    _matching(_STACK, "a project name", LONGEST_NAME),
    "use a-z, 0-9, '-' and '_', beginning with a letter or digit",
)
KEY: Final = NameRule(_matching(_KEY, "a valid name", LONGEST_NAME), _CHARACTERS)
NAME: Final = NameRule(
    _matching(_NAME, "a valid name", LONGEST_NAME),
    f"{_CHARACTERS}, beginning with a letter or digit",
)
HOSTNAME: Final = NameRule(
    hostname_fault,
    f"{_CHARACTERS}; at most {LONGEST_HOSTNAME} characters, {LONGEST_LABEL} between dots",
)
DNS_NAME: Final = NameRule(
    dns_name_fault,
    f"{_CHARACTERS}; other letters as xn--..., at most {LONGEST_LABEL} characters between dots",
)
SEARCH: Final = NameRule(search_fault, "name a domain like example.com, or '.' for none")
ADDRESS: Final = NameRule(address_fault, "write it like 192.0.2.7 or 2001:db8::7")
IPV4: Final = NameRule(ipv4_fault, "write it like 10.210.0.7")
SUBNET: Final = NameRule(subnet_fault, "write it like 10.99.0.0/24")
OPTION: Final = NameRule(
    _matching(_OPTION, "an option of resolv.conf", 64), "write one like ndots:2, each by itself"
)
USER: Final = NameRule(user_fault, "write user, uid, user:group or uid:gid")
GROUP: Final = NameRule(group_fault, "write a group's name or number")
PATH: Final = NameRule(path_fault, "write an absolute path, without control characters")
WORKING_DIR: Final = NameRule(working_dir_fault, "write an absolute path outside /proc")
TARGET: Final = NameRule(target_fault, "write an absolute path of the container, outside /proc")
FILE_TARGET: Final = NameRule(file_target_fault, "write a name, or an absolute path outside /proc")
ANNOTATION: Final = NameRule(annotation_fault, "use a name of your own, like com.example.note")
SYSCTL: Final = NameRule(
    _matching(_SYSCTL, "a sysctl", LONGEST_NAME), "write one like net.core.somaxconn"
)
LINE: Final = NameRule(line_fault, "write it without control characters")
ENV_NAME: Final = NameRule(env_name_fault, "write a name like LOG_LEVEL")
ACCESS: Final = NameRule(_matching(_ACCESS, "a device's permissions", 3), "write r, w and m")
SIGNAL: Final = NameRule(
    _known("signal", kernel.signal_number), "write one like SIGTERM, SIGRTMIN+3 or 15"
)
CAPABILITY: Final = NameRule(
    _known("capability", kernel.capability), "write one of capabilities(7), like NET_ADMIN, or ALL"
)
ULIMIT: Final = NameRule(
    _known("ulimit", kernel.RLIMITS.__contains__), f"known are {', '.join(sorted(kernel.RLIMITS))}"
)
IMAGE: Final = NameRule(
    reference_fault, "write it like nginx:1.28 or registry.example.com/team/app:1.2"
)
TAG: Final = NameRule(tag_fault, "write it like team/app:1.2")
TOKEN: Final = NameRule(
    _matching(_TOKEN, "a name the kernel knows", 32), "write it as in the manual, like NET_ADMIN"
)
