"""Every key of the Compose language, as data (compose.md, section 1).

One table for the whole package: what is valid (:mod:`specs.compose.validate`), what
interpolation casts, how files merge, what list items are identified by, what the
short forms become, which values are paths, and the type in the canonical model.
:data:`PROJECT` is the root. The table stays whole so that a key is one line.
"""

from __future__ import annotations

from specs.compose.shape import Shape

_NAME = r"^[a-zA-Z0-9._-]+$"
_ANY_KEY = r".+"


def _text(**more: object) -> Shape:
    return Shape("string", bind="str", **more)  # type: ignore[arg-type]  # forwarded as they are


def _flag(cast: str | None = None, **more: object) -> Shape:
    return Shape("boolean string", bind="bool", cast=cast, **more)  # type: ignore[arg-type]  # forwarded


def _int(types: str = "integer string", cast: str | None = None, **more: object) -> Shape:
    more.setdefault("bind", "int")
    return Shape(types, cast=cast, **more)  # type: ignore[arg-type]  # forwarded


def _duration(keep: str = "set") -> Shape:
    return Shape("string", bind="duration", keep=keep)


def _size(types: str) -> Shape:
    return Shape(types, bind="bytes")


def _object(fields: dict[str, Shape], **more: object) -> Shape:
    more.setdefault("extensible", True)
    more.setdefault("bind", "object")
    more.setdefault("types", "object")
    types = str(more.pop("types"))
    return Shape(types, fields=fields, **more)  # type: ignore[arg-type]  # forwarded


def _strings(*, unique: bool = True, **more: object) -> Shape:
    return Shape("array", bind="strings", items=_text(), unique=unique, **more)  # type: ignore[arg-type]  # forwarded


def _string_or_list(**more: object) -> Shape:
    more.setdefault("bind", "strings")
    return Shape("string array", items=_text(), unique=True, **more)  # type: ignore[arg-type]  # forwarded


def _list_or_map(bind: str = "mapping", **more: object) -> Shape:
    return Shape(
        "object array",
        bind=bind,
        names=_ANY_KEY,
        values=Shape("string number boolean null"),
        items=_text(),
        unique=True,
        **more,  # type: ignore[arg-type]  # forwarded
    )


def _options(types: str = "string number", bind: str = "options") -> Shape:
    return Shape("object", bind=bind, names=r"^.+$", values=Shape(types), open=True)


_COMMAND = Shape("null string array", bind="command", items=_text(), keep="always", merge="replace")
_HOOK_FIELDS = {
    "command": _COMMAND.but(merge=""),
    "user": _text(),
    "privileged": _flag(),
    "working_dir": _text(),
    "environment": _list_or_map("environment"),
}
_HOOK = _object(_HOOK_FIELDS, required=("command",))
_PRE_START = _object(
    {
        "command": _COMMAND.but(merge=""),
        "image": _text(),
        "user": _text(),
        "privileged": _flag(),
        "working_dir": _text(),
        "environment": _list_or_map("environment"),
        "per_replica": _flag(),
    }
)
_EXTRA_HOSTS = Shape(
    "object array",
    bind="hosts",
    names=_ANY_KEY,
    values=Shape("string array", items=_text()),
    items=_text(),
    unique=True,
    merge="hosts",
)
_ULIMIT = Shape(
    "integer string object",
    bind="ulimit",
    cast="int",
    fields={"hard": _int(cast="int"), "soft": _int(cast="int")},
    required=("soft", "hard"),
    extensible=True,
    short="ulimit",
    merge="ulimit",
)
_ULIMITS = Shape(
    "object", bind="map", names=r"^[a-z]+$", values=_ULIMIT, open=True, note="limits by name"
)


def _file_refs(**more: object) -> Shape:
    item = _object(
        {
            "source": _text(),
            "target": _text(),
            "uid": _text(),
            "gid": _text(),
            "mode": Shape("number string", bind="mode", keep="set"),
        },
        types="string object",
        short="file-ref",
    )
    return Shape("array", bind="list", items=item, **more)  # type: ignore[arg-type]  # forwarded


_DEVICE_REQUEST_FIELDS = {
    "capabilities": _strings(),
    "count": Shape("string integer", bind="count"),
    "device_ids": _strings(),
    "driver": _text(),
    "options": _list_or_map(),
}
_BUILD = _object(
    {
        "context": _text(path="context"),
        "dockerfile": _text(),
        "dockerfile_inline": _text(),
        "entitlements": _strings(unique=False),
        "args": _list_or_map("environment", merge="sequence", key="keyvalue"),
        "ssh": _list_or_map("ssh", short="ssh", path="each-unix"),
        "labels": _list_or_map(merge="sequence", key="keyvalue"),
        "cache_from": _strings(unique=False),
        "cache_to": _strings(unique=False),
        "no_cache": _flag(),
        "no_cache_filter": _string_or_list(),
        "additional_contexts": _list_or_map(
            merge="sequence", key="keyvalue", short="keyvalue", path="each-context"
        ),
        "network": _text(),
        "provenance": Shape("string boolean", bind="str", short="text"),
        "sbom": Shape("string boolean", bind="str", short="text"),
        "pull": _flag(),
        "target": _text(),
        "shm_size": _size("integer string"),
        "extra_hosts": _EXTRA_HOSTS,
        "isolation": _text(),
        "privileged": _flag(),
        "secrets": _file_refs(),
        "tags": _strings(unique=False, key="keyvalue"),
        # variables in build.ulimits are not cast, so a string is refused there
        "ulimits": _ULIMITS.but(
            values=_ULIMIT.but(merge="", cast=None, fields={"hard": _int(), "soft": _int()})
        ),
        "platforms": _strings(unique=False),
    },
    types="string object",
    short="build",
    merge="build",
    keep="set",
)
_BLKIO_RATE = Shape(
    "array",
    bind="list",
    items=_object(
        {
            "path": _text(keep="always"),
            "rate": Shape("integer string", bind="bytes", keep="always"),
        },
        extensible=False,
    ),
)
_BLKIO = _object(
    {
        "device_read_bps": _BLKIO_RATE,
        "device_read_iops": _BLKIO_RATE,
        "device_write_bps": _BLKIO_RATE,
        "device_write_iops": _BLKIO_RATE,
        "weight": Shape("integer string", bind="uint16"),
        "weight_device": Shape(
            "array",
            bind="list",
            items=_object(
                {
                    "path": _text(keep="always"),
                    "weight": Shape("integer string", bind="uint16", keep="always"),
                },
                extensible=False,
            ),
        ),
    },
    extensible=False,
    keep="set",
)
_DEPENDS_ON = Shape(
    "array object",
    bind="map",
    items=_text(),
    unique=True,
    names=_NAME,
    values=_object(
        {
            "restart": _flag("bool"),
            "required": Shape("boolean", bind="bool", cast="bool", keep="always"),
            "condition": _text(
                enum=("service_started", "service_healthy", "service_completed_successfully")
            ),
        },
        required=("condition",),
    ),
    short="depends-on",
    merge="depends-on",
)
_UPDATE = _object(
    {
        "parallelism": _int(cast="int", bind="uint", keep="set"),
        "delay": _duration(""),
        "failure_action": _text(),
        "monitor": _duration(""),
        "max_failure_ratio": Shape("number string", bind="float32", cast="float"),
        "order": _text(enum=("start-first", "stop-first")),
    },
    keep="set",
)
_GENERIC = _object(
    {
        "discrete_resource_spec": _object(
            {
                "kind": _text(keep="always"),
                "value": _int("number string", keep="always"),
            },
            keep="set",
        )
    }
)
_DEPLOY = _object(
    {
        "mode": _text(),
        "endpoint_mode": _text(),
        "replicas": _int(cast="int", keep="set"),
        "labels": _list_or_map(merge="sequence", key="keyvalue"),
        "rollback_config": _UPDATE,
        "update_config": _UPDATE,
        "resources": _object(
            {
                "limits": _object(
                    {
                        "cpus": Shape("number string", bind="cpus"),
                        "memory": _size("string"),
                        "pids": _int(),
                    },
                    keep="set",
                ),
                "reservations": _object(
                    {
                        "cpus": Shape("number string", bind="cpus"),
                        "memory": _size("string"),
                        "generic_resources": Shape("array", bind="list", items=_GENERIC),
                        "devices": Shape(
                            "array",
                            bind="list",
                            items=_object(_DEVICE_REQUEST_FIELDS, required=("capabilities",)),
                        ),
                    },
                    keep="set",
                ),
            },
            keep="always",
        ),
        "restart_policy": _object(
            {
                "condition": _text(),
                "delay": _duration(),
                "max_attempts": _int(cast="int", bind="uint", keep="set"),
                "window": _duration(),
            },
            keep="set",
        ),
        "placement": _object(
            {
                "constraints": _strings(unique=False),
                "preferences": Shape("array", bind="list", items=_object({"spread": _text()})),
                "max_replicas_per_node": _int(cast="int", bind="uint"),
            },
            keep="always",
        ),
    },
    types="object null",
    keep="set",
)
_DEVELOP = _object(
    {
        "watch": Shape(
            "array",
            bind="list",
            items=_object(
                {
                    "ignore": _string_or_list(short="string-or-list"),
                    "include": _string_or_list(short="string-or-list"),
                    "path": _text(path="symlink", keep="always"),
                    "action": _text(
                        enum=("rebuild", "sync", "restart", "sync+restart", "sync+exec"),
                        keep="always",
                    ),
                    "target": _text(),
                    "exec": _HOOK.but(keep="always"),
                    "initial_sync": Shape("boolean", bind="bool"),
                },
                required=("path", "action"),
            ),
        )
    },
    types="object null",
    keep="set",
)
_HEALTHCHECK = _object(
    {
        "disable": _flag("bool"),
        "interval": _duration(),
        "retries": _int("number string", "int", bind="uint", keep="set"),
        "test": Shape("string array", bind="test", items=_text(), merge="replace"),
        "timeout": _duration(),
        "start_period": _duration(),
        "start_interval": _duration(),
    },
    keep="set",
)
_ATTACHMENT = _object(
    {
        "aliases": _strings(key="keyvalue"),
        "interface_name": _text(),
        "ipv4_address": _text(),
        "ipv6_address": _text(),
        "link_local_ips": _strings(key="keyvalue"),
        "mac_address": _text(),
        "driver_opts": _options(),
        "priority": _int("number"),
        "gw_priority": _int("number"),
    },
    types="object null",
    keep="set",
)
_PORT = _object(
    {
        "name": _text(),
        "mode": _text(),
        "host_ip": _text(),
        "target": _int(cast="int", bind="uint32"),
        "published": Shape("string integer", bind="str"),
        "protocol": _text(),
        "app_protocol": _text(),
    },
    types="number string object",
)
_MOUNT = _object(
    {
        "type": _text(enum=("bind", "volume", "tmpfs", "cluster", "npipe", "image")),
        "source": _text(),
        "target": _text(),
        "read_only": _flag("bool"),
        "consistency": _text(),
        "bind": _object(
            {
                "propagation": _text(),
                "create_host_path": _flag(keep="opt-out"),
                "recursive": _text(enum=("enabled", "disabled", "writable", "readonly")),
                "selinux": _text(enum=("z", "Z")),
            },
            keep="set",
        ),
        "volume": _object(
            {"labels": _list_or_map(), "nocopy": _flag("bool"), "subpath": _text()}, keep="set"
        ),
        "tmpfs": _object(
            {
                "size": Shape("integer string", bind="bytes", low=0),
                "mode": Shape("number string", bind="uint32"),
            },
            keep="set",
        ),
        "image": _object({"subpath": _text()}, keep="set"),
    },
    types="string object",
    required=("type",),
    short="mount",
    path="mount",
)
_ENV_FILE = _object(
    {
        "path": _text(path="abs"),
        "format": _text(),
        "required": _flag(keep="opt-out"),
    },
    types="string object",
    extensible=False,
    required=("path",),
)
_SERVICE = _object(
    {
        "develop": _DEVELOP,
        "deploy": _DEPLOY,
        "annotations": _list_or_map(merge="sequence", key="keyvalue"),
        "attach": _flag(keep="set"),
        "build": _BUILD,
        "blkio_config": _BLKIO,
        "cap_add": _strings(key="keyvalue"),
        "cap_drop": _strings(key="keyvalue"),
        "cgroup": _text(enum=("host", "private")),
        "cgroup_parent": _text(),
        "command": _COMMAND,
        "configs": _file_refs(key="config"),
        "container_name": _text(pattern=r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"),
        "cpu_count": _int(cast="int", low=0),
        "cpu_percent": Shape("integer string", bind="float32", cast="float", low=0, high=100),
        "cpu_shares": _int("number string", "int"),
        "cpu_quota": _int("number string", "int"),
        "cpu_period": _int("number string", "int"),
        "cpu_rt_period": _int("number string", "int"),
        "cpu_rt_runtime": _int("number string", "int"),
        "cpus": Shape("number string", bind="float32", cast="float"),
        "cpuset": _text(),
        "credential_spec": _object(
            {"config": _text(), "file": _text(), "registry": _text()}, keep="set"
        ),
        "depends_on": _DEPENDS_ON,
        "device_cgroup_rules": _strings(),
        "devices": Shape(
            "array",
            bind="list",
            key="device",
            items=_object(
                {"source": _text(), "target": _text(), "permissions": _text()},
                types="string object",
                required=("source",),
                short="device",
            ),
        ),
        "dns": _string_or_list(merge="sequence", key="keyvalue", short="string-or-list"),
        "dns_opt": _strings(merge="sequence", key="keyvalue"),
        "dns_search": _string_or_list(merge="sequence", key="keyvalue"),
        "domainname": _text(),
        "entrypoint": _COMMAND,
        "env_file": Shape(
            "string array",
            bind="list",
            items=_ENV_FILE,
            merge="sequence",
            key="env-file",
            short="env-file",
        ),
        "label_file": Shape(
            "string array",
            bind="strings",
            items=_text(path="abs"),
            merge="sequence",
            short="string-or-list",
        ),
        "environment": _list_or_map("environment", merge="sequence", key="keyvalue"),
        "expose": Shape(
            "array", bind="printed", items=Shape("string number"), unique=True, key="expose"
        ),
        "extends": _object(
            {"service": _text(), "file": _text(path="abs")},
            types="string object",
            extensible=False,
            required=("service",),
            short="extends",
            keep="set",
        ),
        "provider": _object(
            {
                "type": _text(),
                "options": Shape(
                    "object",
                    bind="multi-options",
                    names=r"^.+$",
                    open=True,
                    values=Shape(
                        "string number boolean array", items=Shape("string number boolean")
                    ),
                ),
            },
            required=("type",),
            keep="set",
        ),
        "external_links": _strings(),
        "extra_hosts": _EXTRA_HOSTS,
        "gpus": Shape(
            "string array",
            bind="list",
            enum=("all",),
            items=_object(_DEVICE_REQUEST_FIELDS, open=True),
            short="gpus",
        ),
        "group_add": Shape(
            "array", bind="strings", items=Shape("string number", bind="str"), unique=True
        ),
        "healthcheck": _HEALTHCHECK,
        "hostname": _text(),
        "image": _text(),
        "init": _flag("bool", keep="set"),
        "ipc": _text(),
        "isolation": _text(),
        "labels": _list_or_map(merge="sequence", key="keyvalue"),
        "links": _strings(key="keyvalue"),
        "logging": _object(
            {"driver": _text(), "options": _options("string number null")},
            merge="logging",
            keep="set",
        ),
        "mac_address": _text(),
        "mem_limit": _size("number string"),
        "mem_reservation": _size("string integer"),
        "mem_swappiness": _size("integer string"),
        "memswap_limit": _size("number string"),
        "network_mode": _text(),
        "models": Shape(
            "array object",
            bind="map",
            items=_text(),
            unique=True,
            names=_NAME,
            open=True,
            values=_object(
                {"endpoint_var": _text(), "model_var": _text()}, types="object null", keep="set"
            ),
            short="names-to-map",
            merge="names",
        ),
        "networks": Shape(
            "array object",
            bind="map",
            items=_text(),
            unique=True,
            names=_NAME,
            values=_ATTACHMENT,
            short="names-to-map",
            merge="names",
        ),
        "oom_kill_disable": _flag("bool"),
        "oom_score_adj": _int(cast="int", low=-1000, high=1000),
        "pid": Shape("string null", bind="str"),
        "pids_limit": _int("number string", "int"),
        "platform": _text(),
        "ports": Shape("array", bind="list", items=_PORT, unique=True, key="port", short="ports"),
        "pre_start": Shape("array", bind="list", items=_PRE_START),
        "post_start": Shape("array", bind="list", items=_HOOK),
        "pre_stop": Shape("array", bind="list", items=_HOOK),
        "privileged": _flag("bool"),
        "profiles": _strings(key="keyvalue"),
        "pull_policy": _text(
            pattern=r"always|never|build|if_not_present|missing|refresh|daily|weekly"
            r"|every_([0-9]+[wdhms])+"
        ),
        "pull_refresh_after": Shape("string", bind="drop"),
        "read_only": _flag("bool"),
        "restart": _text(),
        "runtime": _text(),
        "scale": _int(cast="int", keep="set"),
        "security_opt": _strings(),
        "shm_size": _size("number string"),
        "secrets": _file_refs(key="secret"),
        "sysctls": _list_or_map(merge="sequence", key="keyvalue"),
        "stdin_open": _flag("bool"),
        "stop_grace_period": _duration(),
        "stop_signal": _text(),
        "storage_opt": Shape("object", bind="string-map", open=True),
        "tmpfs": _string_or_list(merge="sequence", key="keyvalue"),
        "tty": _flag("bool"),
        "ulimits": _ULIMITS,
        "use_api_socket": Shape("boolean", bind="bool"),
        "user": _text(),
        "uts": _text(),
        "userns_mode": _text(),
        "volumes": Shape("array", bind="list", items=_MOUNT, unique=True, key="volume"),
        "volumes_from": _strings(),
        "working_dir": _text(),
    }
)


def _external(*, closed: bool) -> Shape:
    return Shape(
        "boolean string object",
        bind="bool",
        cast="bool",
        fields={"name": _text()},
        open=not closed,
        extensible=True,
    )


_NETWORK = _object(
    {
        "name": _text(),
        "driver": _text(),
        "driver_opts": _options(),
        "ipam": _object(
            {
                "driver": _text(),
                "config": Shape(
                    "array",
                    bind="list",
                    merge="ipam",
                    items=_object(
                        {
                            "subnet": _text(),
                            "ip_range": _text(),
                            "gateway": _text(),
                            "aux_addresses": Shape(
                                "object", bind="mapping", names=r"^.+$", values=_text()
                            ),
                        }
                    ),
                ),
                "options": Shape("object", bind="options", names=r"^.+$", values=_text()),
            },
            keep="always",
        ),
        "external": _external(closed=True),
        "internal": _flag("bool"),
        "enable_ipv4": _flag("bool", keep="set"),
        "enable_ipv6": _flag("bool", keep="set"),
        "attachable": _flag("bool"),
        "labels": _list_or_map(merge="sequence", key="keyvalue"),
    },
    types="object null",
    short="external",
)
_VOLUME = _object(
    {
        "name": _text(),
        "driver": _text(),
        "driver_opts": _options(),
        "external": _external(closed=True),
        "labels": _list_or_map(merge="sequence"),
    },
    types="object null",
    short="external",
    path="volume",
)
_SECRET = _object(
    {
        "name": _text(),
        "environment": _text(),
        "file": _text(path="unix"),
        "external": _external(closed=False),
        "labels": _list_or_map(),
        "driver": _text(),
        "driver_opts": _options(bind="string-map"),
        "template_driver": _text(),
    },
    short="external",
)
_CONFIG = _object(
    {
        "name": _text(),
        "content": _text(),
        "environment": _text(),
        "file": _text(path="unix"),
        "external": _external(closed=False),
        "labels": _list_or_map(),
        "template_driver": _text(),
    },
    short="external",
)
_MODEL = _object(
    {
        "name": _text(),
        "model": _text(),
        "context_size": _int("integer"),
        "runtime_flags": _strings(unique=False),
    },
    required=("model",),
)
_INCLUDE = _object(
    {
        "path": _string_or_list(path="abs"),
        "env_file": _string_or_list(path="abs"),
        "project_directory": _text(path="abs"),
    },
    types="string object",
    extensible=False,
)


def _section(values: Shape, *, open: bool = False) -> Shape:  # noqa: A002 - as in Shape
    return Shape("object", bind="map", names=_NAME, values=values, open=open)


PROJECT = _object(
    {
        "version": Shape("string", bind="drop"),
        "name": _text(),
        "include": Shape("array", bind="drop", items=_INCLUDE),
        "services": _section(_SERVICE),
        "models": _section(_MODEL, open=True),
        "networks": _section(_NETWORK, open=True),
        "volumes": _section(_VOLUME),
        "secrets": _section(_SECRET),
        "configs": _section(_CONFIG),
    },
    note="a Compose file",
)
SERVICE = _SERVICE
