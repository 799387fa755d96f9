"""Which services `up` does not wait for, for they run by a schedule."""

import pytest

from orchestrator.cli.commands import up


@pytest.mark.parametrize("said", [5, [], ["schedule"], "x", True, None, {}])
def test_settings_that_are_no_mapping_are_no_schedule(said):
    services = {"a": {"x-corral": said}, "b": {"x-corral": {"schedule": "@daily"}}, "c": None}
    assert up._timed({"services": services}) == {"b"}
