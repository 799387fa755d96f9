"""Refuse numbers and lengths that no kernel, or no container, can take: one table.

In the notation of :mod:`specs.compile.support`. The language itself says what is a number, a size
or a duration; here is how large one may be where it ends. What means "not set" for Compose (0, an
empty text) passes everywhere, and -1 where it means "unlimited". Part of the compiler of stacks,
which also serves what comes over the API without having been a file.
"""

from __future__ import annotations

import math
import posixpath
import re
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from specs import kernel, names, units
from specs.compile.values import listed, mapping, words
from specs.compile.verdicts import key_uses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]
Kind = Literal["whole", "number", "bytes", "duration"]

MILLISECOND: Final = 1_000_000
_MODES: Final = 0o7777


class NumberRule(NamedTuple):
    """``low`` and ``high`` of what is written, and ``hint``: what to write instead."""

    kind: Kind
    low: float
    high: float
    hint: str
    unlimited: bool = False  # -1 may stand there


_PIDS = NumberRule(
    *("whole", 1, kernel.MOST_PROCESSES),
    f"write a number from 1 to {kernel.MOST_PROCESSES}, or -1 for no limit",
    unlimited=True,
)
_CPUS = NumberRule("number", 0.01, kernel.MOST_CPUS, "write a number of cores, like 0.5 or 2")
_MEMORY = NumberRule(
    *("bytes", 1, kernel.MOST_LIMIT),
    "write a size like 64m or 1g, or -1 for no limit",
    unlimited=True,
)
_SIZE = NumberRule("bytes", 1, kernel.MOST_LIMIT, "write a size like 64m")
_COUNT = NumberRule("whole", 0, math.inf, "write a number from 0 on")
_WEIGHT = NumberRule("whole", 10, 1000, "write a number from 10 to 1000")
_RATIO = NumberRule("number", 0, 1, "write a share from 0 to 1, like 0.2 for one in five")
_ID = NumberRule("whole", 0, kernel.MOST_ID, f"write a number from 0 to {kernel.MOST_ID}")
_PROBE = NumberRule("duration", MILLISECOND, kernel.MOST_LIMIT, "write 1ms or more, like 5s")
_REALTIME = NumberRule("whole", 0, 2**31 - 1, "write a number of microseconds from 0 on")

_SERVICE: dict[str, NumberRule] = {
    "pids_limit": _PIDS,
    "deploy.resources.limits.pids": _PIDS,
    "cpus": _CPUS,
    "deploy.resources.limits.cpus": _CPUS,
    "deploy.resources.reservations.cpus": _CPUS._replace(low=0),
    "cpu_quota": NumberRule(
        *("whole", 1000, kernel.MOST_CPUS * 1_000_000),
        "write microseconds of a period, from 1000 on, or -1 for no limit; `cpus` is simpler",
        unlimited=True,
    ),
    "cpu_period": NumberRule("whole", 1000, 1_000_000, "write microseconds from 1000 to 1000000"),
    "cpu_shares": NumberRule("whole", 2, 262_144, "write a number from 2 to 262144"),
    "cpu_rt_period": _REALTIME,
    "cpu_rt_runtime": _REALTIME,
    "mem_limit": _MEMORY,
    "mem_reservation": _MEMORY,
    "memswap_limit": _MEMORY,
    "mem_swappiness": NumberRule("whole", 0, 100, "write a number from 0 to 100", unlimited=True),
    "deploy.resources.limits.memory": _MEMORY,
    "deploy.resources.reservations.memory": _MEMORY,
    "shm_size": _SIZE,
    "build.shm_size": _SIZE,
    "volumes[].tmpfs.size": _SIZE,
    "volumes[].tmpfs.mode": NumberRule("whole", 0, _MODES, "write a mode like 0o1777"),
    "oom_score_adj": NumberRule("whole", -1000, 1000, "write a number from -1000 to 1000"),
    "blkio_config.weight": _WEIGHT,
    "blkio_config.weight_device[].weight": _WEIGHT,
    **{
        f"blkio_config.device_{way}_{what}[].rate": NumberRule(
            "bytes", 1, kernel.MOST_LIMIT, "write a number from 1 on, or a size like 10m"
        )
        for way in ("read", "write")
        for what in ("bps", "iops")
    },
    "scale": _COUNT,
    "deploy.replicas": _COUNT,
    "deploy.placement.max_replicas_per_node": _COUNT,
    "deploy.update_config.parallelism": _COUNT,
    "deploy.rollback_config.parallelism": _COUNT,
    "deploy.update_config.max_failure_ratio": _RATIO,
    "deploy.rollback_config.max_failure_ratio": _RATIO,
    "deploy.restart_policy.max_attempts": _COUNT,
    "healthcheck.retries": _COUNT,
    "healthcheck.interval": _PROBE,
    "healthcheck.timeout": _PROBE,
    "healthcheck.start_period": _PROBE,
    "healthcheck.start_interval": _PROBE,
    "secrets[].uid": _ID,
    "secrets[].gid": _ID,
    "configs[].uid": _ID,
    "configs[].gid": _ID,
}
NUMBERS: Final = {f"services.*.{key}": rule for key, rule in _SERVICE.items()}
_RETRIES = re.compile(r"[0-9]{1,9}")


def check(project: Json, verdicts: Verdicts) -> None:
    """Refuse every number and length of the project that cannot be, each at its place."""
    for use in key_uses(project):
        rule = NUMBERS.get(use.pattern)
        if rule is not None and (why := fault(rule, use.value)):
            verdicts.refuse(use.path, why, rule.hint, code="bad-number")
    for name, raw in mapping(project.get("services")).items():
        checks = _Service(f"services.{name}", mapping(raw), verdicts)
        checks.quota()
        checks.ulimits()
        checks.restart()
        checks.logging()
        checks.tmpfs()
        checks.modes()
        checks.command()
        checks.probe()
        checks.targets()
        checks.sysctls()


def fault(rule: NumberRule, value: Any) -> str:
    """Return why a value cannot stand where the rule holds."""
    number = _read(rule.kind, value)
    if number is None or number == 0 or (rule.unlimited and number == -1):
        return ""  # what is no number at all the language has said, or the compiler does
    if math.isnan(number) or math.isinf(number):
        return f"{value} is no number"
    shown = value if rule.kind in ("number", "duration") else number
    if number < 0 <= rule.low:
        return f"{shown} is negative"
    if number < rule.low:
        return f"{shown} is too little"
    return f"{shown} is too much" if number > rule.high else ""


def _read(kind: Kind, value: Any) -> float | None:
    """Return the number that is written; durations in nanoseconds, None for what is none."""
    if isinstance(value, bool) or value in (None, ""):
        return None
    if isinstance(value, int | float):
        # A bare number is a duration over the API only, in seconds.
        return value * 1e9 if kind == "duration" else value
    try:
        return _READERS[kind](str(value).strip())
    except (ValueError, OverflowError):
        return None


_READERS: Final[dict[Kind, Callable[[str], float]]] = {
    "whole": int,
    "number": float,
    "bytes": units.parse_size,
    "duration": units.parse_duration,
}


class _Service:
    """The checks of one service that need more than one value, or another form of one."""

    def __init__(self, path: str, raw: Json, verdicts: Verdicts) -> None:
        self.path = path
        self.raw = raw
        self.verdicts = verdicts

    def _refuse(self, key: str, why: str, hint: str) -> None:
        self.verdicts.refuse(f"{self.path}.{key}", why, hint, code="bad-number")

    def quota(self) -> None:
        """Of two numbers that give one limit the result counts."""
        quota, period = (_read("whole", self.raw.get(key)) for key in ("cpu_quota", "cpu_period"))
        if quota and quota > 0 and quota / (period or 100_000) > kernel.MOST_CPUS:
            self._refuse("cpu_quota", f"{quota:.0f} of a period is too much", _CPUS.hint)

    def ulimits(self) -> None:
        for key, limit in mapping(self.raw.get("ulimits")).items():
            given = mapping(limit) if isinstance(limit, dict) else {"soft": limit, "hard": limit}
            ends = {end: _read("whole", given.get(end, 0)) or 0 for end in ("soft", "hard")}
            soft, hard = ends["soft"], ends["hard"]
            hint = "write a number from 0 on, or -1 for no limit"
            wrong = next((n for n in ends.values() if not -1 <= n <= kernel.MOST_LIMIT), None)
            if wrong is not None:
                why = "is less than no limit (-1)" if wrong < 0 else "is too much"
                self._refuse(f"ulimits.{key}", f"{wrong} {why}", hint)
            elif hard >= 0 and not 0 <= soft <= hard:
                self._refuse(
                    f"ulimits.{key}",
                    f"the soft limit {soft} is above the hard limit {hard}",
                    "write a hard limit that is at least the soft one",
                )

    def restart(self) -> None:
        """``on-failure:3`` is the one word with a number."""
        word, colon, count = str(self.raw.get("restart") or "").partition(":")
        if not colon:
            return
        if word != "on-failure":
            self._refuse("restart", f"{word!r} takes no number", f"write {word}, or on-failure:5")
        elif count and not _RETRIES.fullmatch(count):
            self._refuse("restart", f"{count!r} is no number of attempts", "write on-failure:5")

    def logging(self) -> None:
        log = mapping(self.raw.get("logging"))
        if log.get("driver") not in (None, "", "local", "json-file"):
            return
        options = mapping(log.get("options"))
        limit = str(options.get("max-size") or "")
        if limit and limit != "-1":
            try:
                wrong = units.parse_size(limit) <= 0
            except ValueError:
                wrong = True
            if wrong:
                self._refuse("logging.options.max-size", f"{limit!r} is no size", "write e.g. 10m")
        files = str(options.get("max-file") or "")
        if files and not (_RETRIES.fullmatch(files) and int(files)):
            self._refuse(
                "logging.options.max-file", f"{files!r} is no number of files", "write 1 or more"
            )

    def tmpfs(self) -> None:
        for index, entry in enumerate(listed(self.raw.get("tmpfs"))):
            for option in entry.partition(":")[2].split(","):
                key, _, value = option.partition("=")
                if key == "size" and not value.endswith("%"):
                    self._option(f"tmpfs[{index}]", option, _read("bytes", value), _SIZE)
                elif key == "mode" and not (
                    re.fullmatch("[0-7]{1,5}", value) and int(value, 8) <= _MODES
                ):
                    self._refuse(
                        f"tmpfs[{index}]", f"{option!r} is no mode", "write e.g. mode=1777"
                    )

    def _option(self, key: str, option: str, number: float | None, rule: NumberRule) -> None:
        why = "" if number is None else fault(rule, number)
        if number is None or why:
            self._refuse(key, f"{option!r}: {why or 'that is no size'}", "write e.g. size=64m")

    def modes(self) -> None:
        for kind in ("secrets", "configs"):
            for index, item in enumerate(self.raw.get(kind) or ()):
                mode = mapping(item).get("mode")
                try:
                    value = mode if isinstance(mode, int) else int(str(mode or 0), 8)
                except ValueError:
                    continue
                if not 0 <= value <= _MODES:
                    self._refuse(
                        f"{kind}[{index}].mode", f"{mode} is no mode of a file", "write e.g. 0440"
                    )

    def command(self) -> None:
        """Refuse what no process can be started with: no first word, or more than fits."""
        entry, command = words(self.raw.get("entrypoint")), words(self.raw.get("command"))
        if entry == ("",):
            entry = ()  # as with Docker: no entrypoint
        for key, line in (("entrypoint", entry), ("command", command if entry == () else None)):
            if line and not line[0]:
                self._refuse(
                    f"{key}[0]",
                    "the first word is empty, and no program has that name",
                    "write the program there"
                    + ("" if key == "command" else f", or `{key}: []` for none"),
                )
        variables = {
            name: f"{name}={value}"
            for name, value in mapping(self.raw.get("environment")).items()
            if value is not None
        }
        texts = [
            *(("entrypoint", index, text) for index, text in enumerate(entry or ())),
            *(("command", index, text) for index, text in enumerate(command or ())),
            *(("environment", name, text) for name, text in variables.items()),
            *(("healthcheck.test", index, text) for index, text in enumerate(self._test())),
        ]
        long = False
        for key, at, text in texts:
            if len(text) * 4 >= kernel.LONGEST_ARGUMENT and (
                (size := len(text.encode(errors="replace"))) >= kernel.LONGEST_ARGUMENT
            ):
                long = True
                place = f"{key}.{at}" if isinstance(at, str) else f"{key}[{at}]"
                self._refuse(
                    place,
                    f"{size} bytes in one text: the kernel takes {kernel.LONGEST_ARGUMENT - 1}",
                    "put it into a file: configs:, secrets: or a volume",
                )
        stack = mapping(self.raw.get("ulimits")).get("stack")
        soft = _read("whole", stack.get("soft", 0) if isinstance(stack, dict) else stack)
        room = kernel.room_for_arguments(None if soft is None else int(soft))
        size = kernel.weight([text for key, _, text in texts if key != "healthcheck.test"])
        if size > room and not long:
            self._refuse(
                "environment" if variables else "command",
                f"command and environment take {size} bytes: the kernel gives a process {room}",
                "put what is long into a file: configs:, secrets: or a volume",
            )

    def _test(self) -> tuple[str, ...]:
        return words(mapping(self.raw.get("healthcheck")).get("test")) or ()

    def probe(self) -> None:
        """Refuse a check that runs nothing."""
        test = self._test()
        if test[:1] == ("CMD",) and not (len(test) > 1 and test[1]):
            self._refuse(
                "healthcheck.test", "CMD without a program", 'write e.g. ["CMD", "true"], or NONE'
            )
        elif test == ("CMD-SHELL",):
            self._refuse(
                "healthcheck.test", "CMD-SHELL without a command", "write the command behind it"
            )

    def targets(self) -> None:
        """Refuse two things at one place of the container: the later one would hide the other."""
        taken: dict[str, str] = {}
        for place, target in self._targets():
            first = taken.setdefault(posixpath.normpath(f"/{target}").replace("//", "/"), place)
            if first != place:
                self.verdicts.refuse(
                    f"{self.path}.{place}",
                    f"{target} is already mounted by {first}",
                    "remove one of them, or mount it elsewhere",
                    code="inconsistent",
                )

    def sysctls(self) -> None:
        """Refuse what would change the node."""
        own = self.raw.get("network_mode") != "host"
        for name in mapping(self.raw.get("sysctls")):
            why = kernel.sysctl_fault(name, own_network=own)
            if why and not names.SYSCTL.fault(name):
                self._refuse(f"sysctls.{name}", why, "set it on the nodes, with sysctl.conf(5)")

    def _targets(self) -> Iterator[tuple[str, str]]:
        for index, entry in enumerate(listed(self.raw.get("tmpfs"))):
            yield f"tmpfs[{index}]", entry.partition(":")[0]
        for index, volume in enumerate(self.raw.get("volumes") or ()):
            if target := mapping(volume).get("target"):
                yield f"volumes[{index}]", str(target)
        for kind, base in (("secrets", "/run/secrets"), ("configs", "")):
            for index, item in enumerate(self.raw.get(kind) or ()):
                target = str(mapping(item).get("target") or mapping(item).get("source") or "")
                if target:
                    yield (
                        f"{kind}[{index}]",
                        target if target.startswith("/") else f"{base}/{target}",
                    )
