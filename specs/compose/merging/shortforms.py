"""Turn short syntax into the one long form: ports, mounts, devices, env files...

The ``short`` column of the schema names the function here. Works in place on a
merged, validated tree. Parsers raise ``ValueError`` with a sentence; the walk adds
path and position. With ``lenient`` (``--no-interpolate``) what cannot be parsed yet
stays as it was written.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from specs.compose.language.schema import PROJECT
from specs.compose.reading.tree import Map, Seq, SourceMark, child
from specs.problems import BadValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from specs.compose.language.shape import Shape
    from specs.findings import Findings

_BAD: Any = object()  # reported; to be taken out of the tree
_PROPAGATIONS = frozenset({"rprivate", "private", "rshared", "shared", "rslave", "slave"})
_SELINUX = frozenset({"z", "Z"})


def canonicalise(tree: Map, findings: Findings, *, lenient: bool) -> None:
    """Rewrite every short form of the project in place."""
    _Walk(findings, lenient=lenient).children(tree, PROJECT, "")
    _drop_empty_dns(tree)


class _Walk:
    def __init__(self, findings: Findings, *, lenient: bool) -> None:
        self._findings = findings
        self._lenient = lenient

    def children(self, value: Any, shape: Shape, path: str) -> None:
        if isinstance(value, Map):
            for key in list(value):
                sub = shape.of_key(key)
                if sub is not None:
                    dotted = f"{path}.{key}" if path else key
                    made = self._one(value[key], sub, dotted, value.marks.get(key))
                    if made is _BAD:
                        del value[key]
                    else:
                        value[key] = made
        elif isinstance(value, Seq) and shape.items is not None:
            items = shape.items
            if items.short or items.fields:
                kept = Seq()
                for index, item in enumerate(value):
                    mark = value.marks[index]
                    made = self._one(item, items, child(path, index), mark)
                    if made is not _BAD:
                        kept.add(made, mark)
                value[:] = kept
                value.marks[:] = kept.marks

    def _one(self, value: Any, shape: Shape, path: str, mark: SourceMark | None) -> Any:
        if shape.short:
            try:
                value = self._transform(shape.short, value, path, mark)
            except ValueError as error:
                if self._lenient:
                    return value
                self._findings.bad_value(
                    error,
                    path=path,
                    mark=mark,
                    hint=_SHORT_MOUNT
                    if shape.short == "mount" and isinstance(value, str)
                    else _HINTS.get(shape.short, ""),
                )
                return _BAD
            except (TypeError, AttributeError):
                # only in a file that is extended from, where nothing was validated yet
                self._findings.error(
                    "this form is not allowed here", code="wrong-type", path=path, mark=mark
                )
                return _BAD
        if isinstance(value, Map | Seq):
            self.children(value, shape, path)
        return value

    def _transform(self, short: str, value: Any, path: str, mark: SourceMark | None) -> Any:
        if short == "ports":
            return self._ports(value, path)
        if short == "external":
            return self._external(value, path, mark)
        return _FORMS[short](value, mark)

    def _ports(self, value: Any, path: str) -> Any:
        made = Seq()
        for index, entry in enumerate(value):
            mark = value.marks[index]
            if isinstance(entry, Map):
                made.add(entry, mark)
                continue
            try:
                for port in parse_port(entry):
                    made.add(_marked(port, mark), mark)
            except ValueError as error:
                if self._lenient and isinstance(entry, str):
                    return value
                self._findings.error(
                    str(error),
                    code="bad-port",
                    path=child(path, index),
                    mark=mark,
                    hint=_HINTS["ports"],
                )
        return made

    def _external(self, value: Any, path: str, mark: SourceMark | None) -> Any:
        if not isinstance(value, Map) or not isinstance(value.get("external"), Map):
            return value
        external = value["external"]
        value["external"] = True
        if "name" in external:
            self._findings.warn(
                "external.name is deprecated",
                code="deprecated",
                path=f"{path}.external",
                mark=value.marks.get("external"),
                hint="write name: and external: true",
            )
            if "name" in value and value["name"] != external["name"]:
                self._findings.error(
                    "name and external.name differ",
                    code="conflict",
                    path=path,
                    mark=value.marks.get("external") or mark,
                    hint="keep only name:",
                )
            value.put("name", external["name"], external.marks.get("name"))
        return value


def _marked(fields: dict[str, Any], mark: SourceMark | None) -> Map:
    made = Map()
    for key, value in fields.items():
        made.put(key, _marked(value, mark) if isinstance(value, dict) else value, mark)
    return made


def _drop_empty_dns(tree: Map) -> None:
    services = tree.get("services")
    for service in services.values() if isinstance(services, Map) else ():
        dns = service.get("dns") if isinstance(service, Map) else None
        if isinstance(dns, Seq) and any(item == "" for item in dns):
            kept = Seq()
            for index, item in enumerate(dns):
                if item != "":
                    kept.add(item, dns.marks[index])
            service["dns"] = kept


def _build(value: Any, mark: SourceMark | None) -> Any:
    return _marked({"context": value}, mark) if isinstance(value, str) else value


def _text(value: Any, mark: SourceMark | None) -> Any:
    del mark
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def _pairs(value: Any, shape: str, bare: tuple[str, ...] = ()) -> Any:
    """Return a list of ``name=value`` as a mapping; the names of ``bare`` may stand alone."""
    if not isinstance(value, Seq):
        return value
    made = Map()
    for index, item in enumerate(value):
        key, found, right = item.partition("=")
        if not found and key not in bare:
            raise ValueError(f"{item!r} must be {shape}")
        made.put(key, right if found else None, value.marks[index])
    return made


def _keyvalue(value: Any, mark: SourceMark | None) -> Any:
    del mark
    return _pairs(value, "written as name=value")


def _ssh(value: Any, mark: SourceMark | None) -> Any:
    del mark
    return _pairs(value, "'default' or id=path", bare=("default",))


def _depends_on(value: Any, mark: SourceMark | None) -> Any:
    del mark
    if isinstance(value, Seq):
        made = Map()
        for index, name in enumerate(value):
            at = value.marks[index]
            made.put(name, _marked({"condition": "service_started", "required": True}, at), at)
        return made
    for name, item in value.items():
        item.setdefault("condition", "service_started")
        item.setdefault("required", True)
        del name
    return value


def _env_file(value: Any, mark: SourceMark | None) -> Any:
    items = Seq([value], [mark]) if isinstance(value, str) else value
    for index, item in enumerate(items):
        if isinstance(item, str):
            items[index] = _marked({"path": item, "required": True}, items.marks[index])
        else:
            item.setdefault("required", True)
    return items


def _string_or_list(value: Any, mark: SourceMark | None) -> Any:
    return Seq([value], [mark]) if isinstance(value, str) else value


def _extends(value: Any, mark: SourceMark | None) -> Any:
    return _marked({"service": value}, mark) if isinstance(value, str) else value


def _gpus(value: Any, mark: SourceMark | None) -> Any:
    if isinstance(value, str):
        return Seq([_marked({"count": "all"}, mark)], [mark])
    return value


def _names_to_map(value: Any, mark: SourceMark | None) -> Any:
    del mark
    if not isinstance(value, Seq):
        return value
    made = Map()
    for index, name in enumerate(value):
        made.put(name, None, value.marks[index])
    return made


def _mount(value: Any, mark: SourceMark | None) -> Any:
    if not isinstance(value, str):
        return value
    mount = parse_volume(value)
    if mount["target"]:
        mount["target"] = clean(mount["target"])
    return _marked(mount, mark)


def _device(value: Any, mark: SourceMark | None) -> Any:
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) > 3:
        raise ValueError(f"{value!r} has too many colons for a device")
    permissions = parts[2] if len(parts) == 3 else "rwm"
    target = parts[1] if len(parts) > 1 else ""
    return _marked(
        {"source": parts[0], "target": target or parts[0], "permissions": permissions}, mark
    )


def _file_ref(value: Any, mark: SourceMark | None) -> Any:
    return _marked({"source": value}, mark) if isinstance(value, str) else value


def _ulimit(value: Any, mark: SourceMark | None) -> Any:
    del mark
    if isinstance(value, Map) or type(value) is int:
        return value
    raise ValueError("a limit must be a whole number, or soft: and hard:")


_FORMS: dict[str, Callable[[Any, SourceMark | None], Any]] = {
    "build": _build,
    "text": _text,
    "keyvalue": _keyvalue,
    "ssh": _ssh,
    "depends-on": _depends_on,
    "env-file": _env_file,
    "string-or-list": _string_or_list,
    "extends": _extends,
    "gpus": _gpus,
    "names-to-map": _names_to_map,
    "mount": _mount,
    "device": _device,
    "file-ref": _file_ref,
    "ulimit": _ulimit,
}
_SHORT_MOUNT = 'write "SOURCE:TARGET" or "SOURCE:TARGET:ro"'
_HINTS = {
    "ports": 'write "HOST:CONTAINER", like "8080:80", with numbers from 1 to 65535',
    "mount": "write SOURCE:TARGET or SOURCE:TARGET:ro, or use the long form",
    "device": "use the long form with source: and target:",
}


def clean(path: str) -> str:
    """Return the path without ``.``, ``..`` and repeated slashes; ``.`` when nothing is left."""
    if not path:
        return "."
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def parse_volume(spec: str) -> dict[str, Any]:
    """Return the mount a short volume string means; ``target`` is not cleaned yet."""
    if not spec:
        raise ValueError("a volume cannot be an empty string")
    if len(spec.encode()) <= 2:
        return {"type": "volume", "target": spec}
    parts = _split_volume(spec)
    if any(not part for part in parts):
        raise ValueError(f"{spec!r} has an empty part between colons")
    if len(parts) > 3:
        raise ValueError(f"{spec!r} has too many colons")
    if len(parts) == 1:
        return {"type": "volume", "target": parts[0], "volume": {}}
    mount: dict[str, Any] = {"type": "", "source": parts[0], "target": parts[1]}
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option in ("ro", "rw"):
            mount["read_only"] = option == "ro"
        elif option == "nocopy":
            mount["volume"] = {"nocopy": True}
        elif option in _PROPAGATIONS:
            mount.setdefault("bind", {})["propagation"] = option
        elif option in _SELINUX:
            mount.setdefault("bind", {})["selinux"] = option
    if _is_path(parts[0]):
        mount["type"] = "bind"
        mount.setdefault("bind", {})["create_host_path"] = True
    else:
        mount["type"] = "volume"
        mount.setdefault("volume", {})
    return mount


def _split_volume(spec: str) -> list[str]:
    """Split at colons, but not after a drive letter and not inside ``${...}``."""
    parts: list[str] = []
    part = ""
    nested = 0
    for index, char in enumerate(spec):
        if char == "$" and spec[index + 1 : index + 2] == "{":
            nested += 1
        elif char == "}" and nested:
            nested -= 1
        elif char == ":" and not nested and not (len(part) == 1 and part.isalpha()):
            parts.append(part)
            part = ""
            continue
        part += char
    if nested:  # an unclosed ${ swallows the rest, end included
        raise ValueError(f"{spec!r} has an unclosed ${{")
    parts.append(part)
    return parts


def _is_path(source: str) -> bool:
    if source[0] in "./~" or source.startswith("\\\\"):
        return True
    return len(source) > 1 and source[0].isalpha() and source[1] == ":"


def parse_port(written: Any) -> list[dict[str, Any]]:
    """Return the published ports a short port means, one entry per container port."""
    if type(written) is not str and type(written) is not int:
        raise ValueError(f"{written!r} is not a port")
    spec = str(written)
    parts = spec.split(":")
    container = parts[-1]
    host = parts[-2] if len(parts) > 1 else ""
    address = ":".join(parts[:-2])
    container, _, protocol = container.partition("/")
    protocol = protocol.split("/")[0].lower() or "tcp"
    if not container:
        raise ValueError(f"{spec!r} names no container port")
    address = _host_ip(address, spec)
    first, last = _range(container, spec, "container")
    if first == 0:
        raise ValueError(f"{spec!r} names container port 0, which does not exist")
    host_first, host_last = _range(host, spec, "host") if host else (0, 0)
    if host and last - first != host_last - host_first and last != first:
        raise ValueError(f"{spec!r} has ranges of different lengths")
    if protocol not in ("tcp", "udp", "sctp"):
        raise BadValue(f"{protocol!r} in {spec!r} is no protocol", "use tcp, udp or sctp")
    entries = []
    for offset in range(last - first + 1):
        entry: dict[str, Any] = {"mode": "ingress"}
        if address:
            entry["host_ip"] = address
        entry["target"] = first + offset
        if host:
            published = str(host_first + offset)
            if first == last and host_first != host_last:
                published = f"{published}-{host_last}"
            entry["published"] = published
        entry["protocol"] = protocol
        entries.append(entry)
    return sorted(entries, key=lambda entry: f"{entry['target']}/{protocol}")


def _range(text: str, spec: str, what: str) -> tuple[int, int]:
    parts = text.split("-")
    low = _port_number(parts[0], spec, what)
    high = _port_number(parts[1], spec, what) if len(parts) > 1 else low
    if high < low:
        raise ValueError(f"the {what} port range in {spec!r} runs backwards")
    return low, high


def _port_number(text: str, spec: str, what: str) -> int:
    if (
        not (text.isascii() and text.isdigit())
        or int(text[:9]) > 65535
        or len(text.lstrip("0")) > 5
    ):
        raise ValueError(f"{text!r} in {spec!r} is not a {what} port")
    return int(text)


def _host_ip(text: str, spec: str) -> str:
    if not text:
        return ""
    bare = text
    if text.startswith("[") and text.endswith("]"):
        bare = text[1:-1]
    elif ":" in text or "[" in text or "]" in text:
        raise BadValue(f"{text!r} in {spec!r} is not an IP address", "put IPv6 in brackets")
    if bare and not is_ip(bare):
        raise ValueError(f"{bare!r} in {spec!r} is not an IP address")
    return bare


def is_ip(text: str) -> bool:
    """Return whether the text is an IPv4 or IPv6 address without zone."""
    import socket  # noqa: PLC0415 - built in and quick, but most files name no address

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False
