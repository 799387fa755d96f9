"""Loading whole projects: from text to the canonical model."""

import specs


def load(tmp_path, text, **options):
    (tmp_path / "compose.yaml").write_text(text)
    options.setdefault("environ", {})
    return specs.load(cwd=str(tmp_path), project_name="demo", **options)


def test_a_small_project_becomes_canonical(tmp_path):
    project = load(
        tmp_path,
        """
services:
  web:
    image: nginx
    ports: ["8080:80"]
    depends_on: [db]
  db:
    image: redis
    volumes: ["data:/data"]
volumes:
  data:
""",
    )
    web = project.model["services"]["web"]
    assert web["ports"] == [
        {"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"}
    ]
    assert web["depends_on"] == {"db": {"condition": "service_started", "required": True}}
    assert project.model["volumes"] == {"data": {"name": "demo_data"}}
    assert str(project.origins["services.web.image"]).endswith("compose.yaml:4:12")
