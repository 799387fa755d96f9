"""A folder of Compose files and a way to load it."""

import pytest

import specs
from specs.problems import SpecError


class Folder:
    """Files below a temporary folder; ``load`` runs there with an empty environment."""

    def __init__(self, path):
        self.path = path

    def write(self, files):
        for name, text in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(text, bytes):
                target.write_bytes(text)
            else:
                target.write_text(text)

    def load(self, files, *, use=(), env=None, cwd="", **options):
        self.write({"compose.yaml": files} if isinstance(files, str) else files)
        options.setdefault("project_name", "demo")
        return specs.load(
            use, cwd=str(self.path / cwd), environ={"HOME": "/home/me", **(env or {})}, **options
        )

    def model(self, files, **options):
        return self.load(files, **options).model

    def web(self, body, **options):
        """Return the canonical service ``web`` whose attributes are written in ``body``."""
        return self.model(service(body), **options)["services"]["web"]

    def refused(self, files, **options):
        """Return the problems of a load that must fail."""
        with pytest.raises(SpecError) as caught:
            self.load(files, **options)
        return [problem for problem in caught.value.problems if problem.severity == "error"]


def service(body):
    lines = body.strip("\n").splitlines()
    indented = "\n".join(f"    {line}" for line in lines)
    return f"services:\n  web:\n    image: x\n{indented}\n"


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)
