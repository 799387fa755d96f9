"""The nested parts of a service as data: build, deploy, develop, mounts, ports, hooks...

Part of :mod:`specs.compose.language.schema`; one line a key.
"""

from __future__ import annotations

from specs.compose.language.forms import (
    NAME,
    duration,
    flag,
    integer,
    list_or_map,
    mapping,
    options,
    size,
    string_or_list,
    strings,
    text,
)
from specs.compose.language.shape import Shape

COMMAND = Shape("null string array", bind="command", items=text(), keep="always", merge="replace")
_HOOK_FIELDS = {
    "command": COMMAND.but(merge=""),
    "user": text(),
    "privileged": flag(),
    "working_dir": text(),
    "environment": list_or_map("environment"),
}
HOOK = mapping(_HOOK_FIELDS, required=("command",))
PRE_START = mapping(
    {
        "command": COMMAND.but(merge=""),
        "image": text(),
        "user": text(),
        "privileged": flag(),
        "working_dir": text(),
        "environment": list_or_map("environment"),
        "per_replica": flag(),
    }
)
EXTRA_HOSTS = Shape(
    "object array",
    bind="hosts",
    names=r".+",
    values=Shape("string array", items=text()),
    items=text(),
    unique=True,
    merge="hosts",
)
_ULIMIT = Shape(
    "integer string object",
    bind="ulimit",
    cast="int",
    fields={"hard": integer(cast="int"), "soft": integer(cast="int")},
    required=("soft", "hard"),
    extensible=True,
    short="ulimit",
    merge="ulimit",
)
ULIMITS = Shape(
    "object", bind="map", names=r"^[a-z]+$", values=_ULIMIT, open=True, note="limits by name"
)


def file_refs(**more: object) -> Shape:
    item = mapping(
        {
            "source": text(),
            "target": text(),
            "uid": text(),
            "gid": text(),
            "mode": Shape("number string", bind="mode", keep="set"),
        },
        types="string object",
        short="file-ref",
    )
    return Shape("array", bind="list", items=item, **more)  # type: ignore[arg-type]  # forwarded


DEVICE_REQUEST_FIELDS = {
    "capabilities": strings(),
    "count": Shape("string integer", bind="count"),
    "device_ids": strings(),
    "driver": text(),
    "options": list_or_map(),
}
BUILD = mapping(
    {
        "context": text(path="context"),
        "dockerfile": text(),
        "dockerfile_inline": text(),
        "entitlements": strings(unique=False),
        "args": list_or_map("environment", merge="sequence", key="keyvalue"),
        "ssh": list_or_map("ssh", short="ssh", path="each-unix"),
        "labels": list_or_map(merge="sequence", key="keyvalue"),
        "cache_from": strings(unique=False),
        "cache_to": strings(unique=False),
        "no_cache": flag(),
        "no_cache_filter": string_or_list(),
        "additional_contexts": list_or_map(
            merge="sequence", key="keyvalue", short="keyvalue", path="each-context"
        ),
        "network": text(),
        "provenance": Shape("string boolean", bind="str", short="text"),
        "sbom": Shape("string boolean", bind="str", short="text"),
        "pull": flag(),
        "target": text(),
        "shm_size": size("integer string"),
        "extra_hosts": EXTRA_HOSTS,
        "isolation": text(),
        "privileged": flag(),
        "secrets": file_refs(),
        "tags": strings(unique=False, key="keyvalue"),
        # variables in build.ulimits are not cast, so a string is refused there
        "ulimits": ULIMITS.but(
            values=_ULIMIT.but(merge="", cast=None, fields={"hard": integer(), "soft": integer()})
        ),
        "platforms": strings(unique=False),
    },
    types="string object",
    short="build",
    merge="build",
    keep="set",
)
_BLKIO_RATE = Shape(
    "array",
    bind="list",
    items=mapping(
        {
            "path": text(keep="always"),
            "rate": Shape("integer string", bind="bytes", keep="always"),
        },
        extensible=False,
    ),
)
BLKIO = mapping(
    {
        "device_read_bps": _BLKIO_RATE,
        "device_read_iops": _BLKIO_RATE,
        "device_write_bps": _BLKIO_RATE,
        "device_write_iops": _BLKIO_RATE,
        "weight": Shape("integer string", bind="uint16"),
        "weight_device": Shape(
            "array",
            bind="list",
            items=mapping(
                {
                    "path": text(keep="always"),
                    "weight": Shape("integer string", bind="uint16", keep="always"),
                },
                extensible=False,
            ),
        ),
    },
    extensible=False,
    keep="set",
)
DEPENDS_ON = Shape(
    "array object",
    bind="map",
    items=text(),
    unique=True,
    names=NAME,
    values=mapping(
        {
            "restart": flag("bool"),
            "required": Shape("boolean", bind="bool", cast="bool", keep="always"),
            "condition": text(
                enum=("service_started", "service_healthy", "service_completed_successfully")
            ),
        },
        required=("condition",),
    ),
    short="depends-on",
    merge="depends-on",
)
_UPDATE = mapping(
    {
        "parallelism": integer(cast="int", bind="uint", keep="set"),
        "delay": duration(""),
        "failure_action": text(),
        "monitor": duration(),  # 0s ends the watching, so it is no default
        "max_failure_ratio": Shape("number string", bind="float32", cast="float"),
        "order": text(enum=("start-first", "stop-first")),
    },
    keep="set",
)
_GENERIC = mapping(
    {
        "discrete_resource_spec": mapping(
            {
                "kind": text(keep="always"),
                "value": integer("number string", keep="always"),
            },
            keep="set",
        )
    }
)
DEPLOY = mapping(
    {
        "mode": text(),
        "endpoint_mode": text(),
        "replicas": integer(cast="int", keep="set"),
        "labels": list_or_map(merge="sequence", key="keyvalue"),
        "rollback_config": _UPDATE,
        "update_config": _UPDATE,
        "resources": mapping(
            {
                "limits": mapping(
                    {
                        "cpus": Shape("number string", bind="cpus"),
                        "memory": size("string"),
                        "pids": integer(),
                    },
                    keep="set",
                ),
                "reservations": mapping(
                    {
                        "cpus": Shape("number string", bind="cpus"),
                        "memory": size("string"),
                        "generic_resources": Shape("array", bind="list", items=_GENERIC),
                        "devices": Shape(
                            "array",
                            bind="list",
                            items=mapping(DEVICE_REQUEST_FIELDS, required=("capabilities",)),
                        ),
                    },
                    keep="set",
                ),
            },
            keep="always",
        ),
        "restart_policy": mapping(
            {
                "condition": text(),
                "delay": duration(),
                "max_attempts": integer(cast="int", bind="uint", keep="set"),
                "window": duration(),
            },
            keep="set",
        ),
        "placement": mapping(
            {
                "constraints": strings(unique=False),
                "preferences": Shape("array", bind="list", items=mapping({"spread": text()})),
                "max_replicas_per_node": integer(cast="int", bind="uint"),
            },
            keep="always",
        ),
    },
    types="object null",
    keep="set",
)
DEVELOP = mapping(
    {
        "watch": Shape(
            "array",
            bind="list",
            items=mapping(
                {
                    "ignore": string_or_list(short="string-or-list"),
                    "include": string_or_list(short="string-or-list"),
                    "path": text(path="symlink", keep="always"),
                    "action": text(
                        enum=("rebuild", "sync", "restart", "sync+restart", "sync+exec"),
                        keep="always",
                    ),
                    "target": text(),
                    "exec": HOOK.but(keep="always"),
                    "initial_sync": Shape("boolean", bind="bool"),
                },
                required=("path", "action"),
            ),
        )
    },
    types="object null",
    keep="set",
)
HEALTHCHECK = mapping(
    {
        "disable": flag("bool"),
        "interval": duration(),
        "retries": integer("number string", "int", bind="uint", keep="set"),
        "test": Shape("string array", bind="test", items=text(), merge="replace"),
        "timeout": duration(),
        "start_period": duration(),
        "start_interval": duration(),
    },
    keep="set",
)
ATTACHMENT = mapping(
    {
        "aliases": strings(key="keyvalue"),
        "interface_name": text(),
        "ipv4_address": text(),
        "ipv6_address": text(),
        "link_local_ips": strings(key="keyvalue"),
        "mac_address": text(),
        "driver_opts": options(),
        "priority": integer("number"),
        "gw_priority": integer("number"),
    },
    types="object null",
    keep="set",
)
PORT = mapping(
    {
        "name": text(),
        "mode": text(),
        "host_ip": text(),
        "target": integer(cast="int", bind="uint32"),
        "published": Shape("string integer", bind="str"),
        "protocol": text(),
        "app_protocol": text(),
    },
    types="number string object",
)
MOUNT = mapping(
    {
        "type": text(enum=("bind", "volume", "tmpfs", "cluster", "npipe", "image")),
        "source": text(),
        "target": text(),
        "read_only": flag("bool"),
        "consistency": text(),
        "bind": mapping(
            {
                "propagation": text(),
                "create_host_path": flag(keep="opt-out"),
                "recursive": text(enum=("enabled", "disabled", "writable", "readonly")),
                "selinux": text(enum=("z", "Z")),
            },
            keep="set",
        ),
        "volume": mapping(
            {"labels": list_or_map(), "nocopy": flag("bool"), "subpath": text()}, keep="set"
        ),
        "tmpfs": mapping(
            {
                "size": Shape("integer string", bind="bytes", low=0),
                "mode": Shape("number string", bind="uint32"),
            },
            keep="set",
        ),
        "image": mapping({"subpath": text()}, keep="set"),
    },
    types="string object",
    required=("type",),
    short="mount",
    path="mount",
)
ENV_FILE = mapping(
    {
        "path": text(path="abs"),
        "format": text(),
        "required": flag(keep="opt-out"),
    },
    types="string object",
    extensible=False,
    required=("path",),
)
