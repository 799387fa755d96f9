"""The job modes of ``deploy.mode``: what they take of a service, and what does not go with them.

Part of the compiler of stacks. A job's tasks are to complete, so nothing is balanced to them, an
update replaces none of them step by step, and what completed is never started again by a policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from specs.compile import schedule_words
from specs.compile.values import mapping, yes
from specs.stack import RestartPolicy, UpdateConfig

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]

MODES: Final = frozenset({"replicated-job", "global-job"})
# A changed job is a new iteration: nothing of the old one is worth waiting for, and what becomes
# of one of its tasks stops none of the others.
UPDATE: Final = UpdateConfig(parallelism=0, failure_action="continue")


def is_job(mode: object) -> bool:
    """Say whether ``deploy.mode`` names a job."""
    return mode in MODES


def check(path: str, raw: Json, verdicts: Verdicts) -> None:
    """Refuse what a job cannot have."""
    deploy = mapping(raw.get("deploy"))
    for key in ("update_config", "rollback_config"):
        if deploy.get(key):
            verdicts.refuse(
                f"{path}.deploy.{key}",
                f"a job has no `{key}`: a changed job is a new iteration, begun at once",
                "leave it out",
            )
    if raw.get("ports"):
        verdicts.refuse(
            f"{path}.ports",
            "a job has no endpoints, so nothing can be published",
            "leave ports out, or leave deploy.mode out where it is to answer",
        )
    once_only(path, raw, "a job", verdicts)
    if yes(mapping(raw.get("x-corral")).get("exclusive")):
        verdicts.refuse(
            f"{path}.x-corral.exclusive",
            "an exclusive service is one that goes on; a job ends",
            "leave deploy.mode out, or exclusive",
        )


def once_only(path: str, raw: Json, what: str, verdicts: Verdicts) -> None:
    """Say that `restart: always` means something else of what is to end."""
    if raw.get("restart") in ("always", "unless-stopped", "any"):
        verdicts.warn(
            f"{path}.restart",
            f"`{raw['restart']}` means on-failure here: {what} that completed is not run again",
            "write on-failure",
        )


def restart(raw: Json, policy: RestartPolicy) -> RestartPolicy:
    """Return the policy as a job understands it: as in Swarm, `any` starts nothing complete."""
    ends = is_job(mapping(raw.get("deploy")).get("mode")) or schedule_words.has_one(raw)
    if ends and policy.condition == "any":
        return policy.model_copy(update={"condition": "on-failure"})
    return policy


def max_concurrent(path: str, mode: object, extension: Json, verdicts: Verdicts) -> int | None:
    """Return how many tasks of a job run at a time; None where the file does not say."""
    where = f"{path}.x-corral.max_concurrent"
    if extension.get("max_concurrent") is not None and mode != "replicated-job":
        verdicts.refuse(
            where,
            "only a replicated-job runs its tasks some at a time",
            "write deploy.mode: replicated-job, or leave max_concurrent out",
        )
        return None
    return verdicts.whole(extension, where, "tasks")
