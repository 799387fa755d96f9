"""A plan (``specs.plans``, as JSON) for people: a line a change, what made it, what it costs.

Signs: ``+`` comes, ``~`` is replaced or changed, ``>`` moves to another node, ``-`` goes, ``!``
nobody serves for a while. Pure; who prints decides about colours and the width.
"""

from __future__ import annotations

from orchestrator.cli.show import explain, table
from specs.kit.amounts import as_set, size, some

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Json = Mapping[str, Any]

COLOURS = {"+": "32", "~": "33", ">": "36", "-": "31", "!": "35;1"}
MOST = 6  # changes and replicas of one service in a line each; the rest is a count
NOTHING = "nothing to do: {stack} runs as the file has it (release {release})"


def lines(plan: Json) -> list[str]:
    """Return the plan in full; a line that begins with a sign is what that sign says."""
    if plan.get("unchanged"):
        return [_nothing(plan)]
    found = [_title(plan)]
    changes = plan.get("changes") or ()
    for service in _shown(plan):
        found += _service(service, [c for c in changes if _of(c, str(service["name"]))])
    found += [f"  {_change(c)}" for c in changes if c["section"] != "services"]
    found += _rest(plan)
    found.append(footer(plan))
    found += _fails(plan)
    return found


def short(plan: Json) -> list[str]:
    """Return what `up` says before it begins: a line a service, and the counts."""
    if plan.get("unchanged"):
        return []
    if plan.get("cut"):
        return ["it is too much to be shown first: corral plan says all of it"]
    return [*map(_head, _shown(plan)), footer(plan), *_fails(plan)]


def footer(plan: Json) -> str:
    """Return the counts in one sentence."""
    if plan.get("unchanged"):
        return _nothing(plan)
    tasks = [(s, task) for s in plan.get("services") or () for task in s.get("tasks") or ()]
    does = [str(task["does"]) for _, task in tasks]
    first = sum(
        t["does"] in ("replace", "move") and s.get("order") == "start-first" for s, t in tasks
    )
    replaced = does.count("replace") + does.count("move")
    order = f" ({first} start-first, {replaced - first} stop-first)" if replaced else ""
    nodes = {t.get("node") for _, t in tasks if t["does"] != "keep"} - {None, ""}
    on = f" on {len(nodes)} node{'s' if len(nodes) != 1 else ''}" if nodes else ""
    waits = sum(int((s.get("job") or {}).get("queued") or 0) for s in plan.get("services") or ())
    on += f", {waits} queued" if waits else ""
    takes = float(plan.get("takes") or 0)
    about = f"; about {as_set(round(takes))}" if takes >= 1 else ""
    return (
        f"Plan: {does.count('create')} to create, {replaced} to replace{order}, "
        f"{does.count('remove')} to remove, {does.count('keep')} kept{on}{about}"
    )


def painted(line: str, *, colour: bool, limit: int) -> str:
    """Return a line as the terminal gets it: as wide as that, its sign in colour."""
    text = table.printable(line)
    text = table.cut(text, limit) if limit else text
    code = COLOURS.get(text.lstrip()[:1])
    signed = code and text.lstrip()[1:2] == " "
    return f"\x1b[{code}m{text}\x1b[0m" if colour and signed else text


def differences(planned: Json, now: Json) -> list[str]:
    """Return what one plan has and the other has not: ``-`` planned then, ``+`` planned now."""
    old, new = (_decided(plan) for plan in (planned, now))
    gone = [f"  - {line}" for line in old if line not in new]
    came = [f"  + {line}" for line in new if line not in old]
    if not gone and not came:
        gone = ["  what the file means is another (a value, or what is in a secret or config)"]
    return [*gone, *came]


def is_told(plan: Json) -> bool:
    """Say whether ``differences`` can tell this plan: what a file keeps may be anything."""
    try:
        _decided(plan)
    except (AttributeError, KeyError, TypeError):
        return False
    return True


def _decided(plan: Json) -> list[str]:
    release = plan.get("release") or 0
    found = [f"after release {release} of {plan['stack']}"]
    if plan.get("unchanged"):
        return [*found, "nothing to do"]
    for service in plan.get("services") or ():
        moving = (task for task in service.get("tasks") or () if task["does"] != "keep")
        found += [f"{task['does']} {task['name']}{_way(task)}" for task in moving]
    found += [
        f"{c['name']}: {c['text']}" if c.get("key") else f"{c['sign']} {c['section']}.{c['name']}"
        for c in plan.get("changes") or ()
    ]
    for image in plan.get("images") or ():
        found.append(f"image {image['image']} {image.get('new') or image.get('state')}")
    return found


def _nothing(plan: Json) -> str:
    return NOTHING.format(stack=plan["stack"], release=plan.get("release") or 0)


def _title(plan: Json) -> str:
    old, new = plan.get("release") or 0, plan.get("next")
    return f"{plan['stack']}   release {f'{old} -> ' if old else ''}{new}"


def _shown(plan: Json) -> list[Json]:
    return [s for s in plan.get("services") or () if s["sign"] != "="]


def _of(change: Json, service: str) -> bool:
    return bool(change["section"] == "services" and change["name"] == service)


def _service(service: Json, changes: list[Json]) -> Iterator[str]:
    yield _head(service)
    keyed = [change for change in changes if change.get("key")]
    listed = [f"    {_change(change)}" for change in keyed]
    if not keyed and changes and (at := _position(changes[0])):
        listed = [f"    {at}"]
    yield from _limited(listed, "change")
    tasks = [task for task in service.get("tasks") or () if task["does"] != "keep"]
    yield from _limited([_task(task) for task in tasks], "replica")
    job = service.get("job") or {}
    if job.get("queued"):
        yield f"    {job['queued']} queued: begun as others complete"
    if service.get("after"):
        yield f"    starts after {', '.join(service['after'])}"


def _limited(found: list[str], what: str) -> list[str]:
    more = len(found) - MOST
    return found if more <= 1 else [*found[:MOST], f"    and {more} more {what}s"]


def _head(service: Json) -> str:
    down, job = service.get("down"), service.get("job") or {}
    sign = "!" if down else service["sign"]
    count = job.get("completions") or service["replicas"]
    word = "completion" if job else "replica"
    replicas = f"{count[1]} {word}{'s' if count[1] != 1 else ''}"
    if count[0] not in (0, count[1]) and count[1]:
        replicas = f"{count[0]} -> {count[1]} {word}s"
    how = [replicas] if count[1] else []
    if job.get("at_once"):
        how.append(f"{job['at_once']} at a time")
    if job.get("anew"):
        how.append("all anew")
    replaced = any(t["does"] in ("replace", "move") for t in service.get("tasks") or ())
    least, before = service.get("least") or (0, 0)
    if replaced and (down or not job):
        how.append(str(service.get("order")))
        if down:
            how.append(f"down {down[0]:g}-{as_set(down[1])}")
        elif least and before:
            how.append("0 s down" if least >= before else f"{least} of {before} serve meanwhile")
    text = f"{sign} {service['name']}   {service.get('reason') or ''}".rstrip()
    return f"{text}   [{', '.join(how)}]" if how else text


def _task(task: Json) -> str:
    sign = {"create": "+", "replace": "~", "move": ">", "remove": "-"}[task["does"]]
    moved = task.get("before") and task.get("node") and task["before"] != task["node"]
    sign = ">" if moved else sign
    if task.get("waits"):
        return f"  {sign} {task['name']}   no node: {task['waits']}"
    why = f"   {task['why']}" if task.get("why") else ""
    return f"  {sign} {task['name']}{_way(task)}{why}"


def _way(task: Json) -> str:
    before, node = task.get("before") or "", task.get("node") or ""
    if task["does"] == "remove" or not node:
        return f"   from {before}" if before else ""
    return f"   {before} -> {node}" if before and before != node else f"   {node}"


def _change(change: Json) -> str:
    where = "" if change["section"] == "services" else f"{change['section']}.{change['name']} "
    where = where if change.get("key") else ""
    at = _position(change)
    cause = f"   {change['cause']}" if change.get("cause") else ""
    text = change["text"] if change.get("key") else f"{change['section']}.{change['name']}"
    return f"{change['sign']} {where}{text}{f'   {at}' if at else ''}{cause}"


def _position(change: Json) -> str:
    at = change.get("position")
    if not at:
        return ""
    return explain.as_typed(f"{at['file']}:{at['line']}:{at['column']}")


def _rest(plan: Json) -> Iterator[str]:
    for image in plan.get("images") or ():
        yield f"  image   {_image(image)}"
    for port in plan.get("ports") or ():
        word = "opened" if port["sign"] == "+" else "closed"
        yield f"  port    {word}: {port['port']} on {port['where']} ({port['service']})"
    if not plan.get("ports"):
        yield "  ports   no new exposure"
    if plan.get("volumes"):
        yield f"  volumes made: {', '.join(plan['volumes'])}"
    if plan.get("networks"):
        yield f"  networks made: {', '.join(plan['networks'])}"
    order = plan.get("order") or ()
    if len(order) > 1:
        yield f"  order   {', then '.join(some(list(names), 8) for names in order)}"
    if plan.get("orphans"):
        yield f"  orphans left as they are: {', '.join(plan['orphans'])} (--remove-orphans)"
    if plan.get("cut"):
        yield f"  not the whole plan: {plan['cut']}"
    if plan.get("by_hand"):
        yield f"  it waits before the rest: {plan['by_hand']}"


def _image(image: Json) -> str:
    old, new = image.get("old") or "", image.get("new") or ""
    if image.get("state") == "built":
        return f"{image['image']}   is built by `up`"
    if image.get("state") == "pulled":
        return f"{image['image']}   is pulled by `up`"
    differs = f"   {old} -> {new}" if old and new and old != new else f"   {new}"
    moves = image.get("moves") or ()
    if not moves:
        return f"{image['image']}{differs}   no bytes to move"
    much = f"{size(image['size'])} to " if image.get("size") else "to move to "
    sources = image.get("sources") or ()
    source = f" from {some(list(sources), 3)}" if sources else " from its registry"
    return f"{image['image']}{differs}   {much}{some(list(moves), 4)}{source}"


def _fails(plan: Json) -> Iterable[str]:
    if not plan.get("fails"):
        return []
    found = [f"`corral up` would not come to its end: {plan['fails']}"]
    found += [f"  {node}" for node in plan.get("nodes") or ()]
    return [*found, f"  hint: {plan['hint']}"] if plan.get("hint") else found
