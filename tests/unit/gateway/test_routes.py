import re
from pathlib import Path

from fastapi.routing import APIRoute

from gateway import character_routes, job_routes, upload_routes
from gateway.app import PROTECTED, create_app
from gateway.settings import GatewaySettings
from tests.unit.gateway.test_access import GIVEN

OPEN = {"hooks", "ping"}
ROOT = Path(__file__).resolve().parents[3]


def routes() -> list[APIRoute]:
    found = [*job_routes.router.routes, *character_routes.router.routes]
    found += upload_routes.router.routes
    return [route for route in found if isinstance(route, APIRoute)]


def test_every_route_needs_a_key_or_is_open_on_purpose() -> None:
    assert routes()
    for route in routes():
        assert route.path.strip("/").partition("/")[0] in PROTECTED | OPEN, route.path


def test_the_description_has_the_contracts_limits() -> None:
    document = create_app(GatewaySettings.from_environment(GIVEN)).openapi()
    image = document["components"]["schemas"]["ImageJob"]
    assert image["properties"]["count"]["maximum"] == 8
    assert "task" not in image["properties"]
    body = document["paths"]["/generate-image"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["$ref"].endswith("/ImageJob")


def test_every_route_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    documented = set(re.findall(r"`(GET|POST|PATCH|DELETE) (/[^`?]*)`", text))
    for route in routes():
        if route.include_in_schema:
            assert {(method, route.path) for method in route.methods or ()} <= documented, (
                route.path
            )


def test_every_setting_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    own = GatewaySettings.__annotations__
    assert [name for name in own if f"| `{name.upper()}` |" not in text] == []
