"""Terse Compose mappings for tests."""

from __future__ import annotations

from typing import Any

CHECK = {"healthcheck": {"test": ["CMD", "true"]}}


def project(**services: dict[str, Any]) -> dict[str, Any]:
    """Return a canonical project; every service gets an image and the default network."""
    top = services.pop("top", {})
    filled = {}
    for name, service in services.items():
        filled[name] = {"image": f"{name}:1", "networks": {"default": None}, **service}
    return {
        "name": "app",
        "services": filled,
        "networks": {"default": {"name": "app_default"}},
        **top,
    }


def replicas(count: int, *, update: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return a service with that many replicas."""
    deploy: dict[str, Any] = {"replicas": count, **more.pop("deploy", {})}
    if update is not None:
        deploy["update_config"] = update
    return {"deploy": deploy, **more}


def after(condition: str = "service_healthy", *names: str, **more: Any) -> dict[str, Any]:
    """Return a depends_on of these services."""
    return {"depends_on": {name: {"condition": condition, **more} for name in names}}
