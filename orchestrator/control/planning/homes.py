"""Named volumes whose home left the cluster: where their data is now, by what nodes report.

A machine that was removed while nobody reached it keeps its volumes; added again it is another
node to us, and says with its first report which volumes it holds. Where exactly one member has
it, there is its home from now on. Where several have one of that name nobody but the user knows
which is meant: what needs it waits, with words that name them and the command that decides. The
same while a member was not heard since the controller started: it may have another of that name,
and data that is taken for the wrong one's is worse than data that is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import former
from orchestrator.control.mirror.records import VOLUMES, Volume
from orchestrator.store import keys
from specs.kit.amounts import some

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from orchestrator.control.planning.passes import Pass


def holders(name: str, members: Iterable[str], held: Mapping[str, Container[str]]) -> list[str]:
    """Return the members that report a volume of that name."""
    return sorted(node for node in members if name in held.get(node, ()))


def find(pass_: Pass, volume: Volume) -> Volume:
    """Return the volume with the home it has; one whose home left may have come back."""
    if not volume.node or volume.removing or volume.node in pass_.cluster.nodes:
        return volume
    if volume.everywhere or not pass_.observed.volumes.keys() >= pass_.cluster.nodes.keys():
        return volume  # each has its own of that name; or one may have it that has yet to say
    found = holders(volume.name, pass_.cluster.nodes, pass_.observed.volumes)
    if len(found) != 1:
        return volume
    home = volume.at_home(found[0], pass_.cluster.nodes[found[0]].name)
    pass_.draft.put(VOLUMES, home)
    where = former(pass_.cluster, volume.node, volume.home)
    text = f"volume {volume.name} is at home on {home.home} now: it has it, and {where}, had it"
    pass_.notes.append(("volume.home", volume.stack, text))
    return home


def undecided(pass_: Pass, volume: Volume) -> str:
    """Return why nobody knows where the volume's data is, with what to do; "" where it is known."""
    if not volume.node or volume.node in pass_.cluster.nodes:
        return ""
    if volume.everywhere:
        return ""
    members = pass_.cluster.nodes
    found = holders(volume.name, members, pass_.observed.volumes)
    names = some([members[node].name for node in found], 5)
    where = former(pass_.cluster, volume.node, volume.home)
    was = f"volume {volume.name} was on {where}"
    if len(found) > 1:
        return (
            f"{was}, and {names} have one of that name: corral volume create --node NODE "
            f"{volume.name} says which it is"
        )
    silent = sorted(members[node].name for node in members.keys() - pass_.observed.volumes.keys())
    if not silent:
        return ""  # one has it, and is the home; none: it is on a machine that is not here
    way = f"bring {'it' if len(silent) == 1 else 'them'} back, or corral node rm NODE"
    if found:
        was += f", and {names} has one of that name"
        way = f"corral volume create --node {names} {volume.name} says it is that one; or {way}"
    return f"{was}; {some(silent, 5)} may have it too and has not been heard yet: {way}"


def hear(pass_: Pass, node: str, names: tuple[str, ...]) -> None:
    """Take what volumes a node reports; those that are at home there have its name."""
    pass_.observed.volumes[node] = frozenset(names)
    name = pass_.cluster.nodes[node].name
    for known in list(pass_.cluster.volumes.values()):
        volume = pass_.draft.get(keys.volume(known.name), known)
        if volume is None:
            continue
        if volume.node == node and volume.home != name:
            pass_.draft.put(VOLUMES, volume.at_home(node, name))
        elif volume.name in pass_.observed.volumes[node]:
            find(pass_, volume)
