"""What a request asks for, as corral runs it: the project of an `up` or a `run`, compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.deploy.carrying import asked_project
from orchestrator.errors import Invalid
from specs.compile.stack import compile_stack
from specs.problems import SpecError

if TYPE_CHECKING:
    from orchestrator.control.deploy.deployment import Deployment
    from specs.stack import StackSpec


def compiled_as_asked(deployment: Deployment) -> StackSpec:
    """Return the stack's spec; the deployment's findings get the warnings. Raises Invalid."""
    request = deployment.request
    try:
        spec, warnings = compile_stack(
            asked_project(deployment), request.origins, deployment.stack, request.directory
        )
    except SpecError as exc:
        raise Invalid(exc.problems) from exc
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        # The compiler relies on the language's types; files have them by then, requests may not.
        # Its words are not repeated: they may hold a value.
        raise Invalid(
            detail=f"the project is not in canonical form ({type(exc).__name__})",
            hint="send what `corral config --format json` prints",
        ) from exc
    for warning in warnings:
        deployment.findings.add(warning)
    return spec
