import pytest
from starlette.requests import Request

from errors import CodedError
from gateway.access import Access, Buckets
from gateway.problems import RateLimited, Unauthorized
from gateway.settings import GatewaySettings

GIVEN = {
    "S3_BUCKET": "b",
    "S3_ACCESS_KEY_ID": "i",
    "S3_SECRET_ACCESS_KEY": "s",
    "RUNPOD_API_KEY": "r",
    "RUNPOD_ENDPOINT_ID": "e",
}


def request(method: str = "GET", client: str = "127.0.0.1", **headers: str) -> Request:
    named = {"host": "localhost:8080", **{k.replace("_", "-"): v for k, v in headers.items()}}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
    scope = {
        "type": "http",
        "method": method,
        "path": "/jobs",
        "query_string": b"",
        "headers": raw,
        "client": (client, 1),
    }
    return Request(scope)


def access(**changes: str) -> Access:
    return Access(GatewaySettings.from_environment(GIVEN | changes))


def test_without_keys_only_this_machine_is_served() -> None:
    open_door = access()
    assert open_door.caller(request()) == "loopback"
    with pytest.raises(Unauthorized):
        open_door.caller(request(client="192.0.2.7"))


def test_a_strange_host_on_loopback_is_refused() -> None:
    with pytest.raises(Unauthorized):
        access().caller(request(host="rebound.example:8080"))


def test_another_sites_page_may_not_act() -> None:
    with pytest.raises(Unauthorized):
        access().caller(request("POST", origin="https://evil.example"))
    access().caller(request("POST", origin="http://localhost:8080"))
    allowed = access(CORS_ORIGINS="https://studio.example")
    allowed.caller(request("POST", origin="https://studio.example"))


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer wrong", "Basic one", "Bearer on\xe9"])
def test_a_wrong_key_is_refused(given: str) -> None:
    with pytest.raises(Unauthorized):
        access(GATEWAY_API_KEYS="one,two").caller(request(authorization=given))


def test_each_key_is_a_caller_of_its_own() -> None:
    door = access(GATEWAY_API_KEYS="one,two")
    first = door.caller(request(authorization="Bearer one", client="192.0.2.7"))
    second = door.caller(request(x_api_key="two", client="192.0.2.7"))
    assert first != second


def test_guessing_keys_is_slowed_down() -> None:
    door = access(GATEWAY_API_KEYS="one")
    raised: list[type[CodedError]] = []
    for _ in range(30):
        with pytest.raises(CodedError) as caught:
            door.caller(request(authorization="Bearer wrong"))
        raised.append(caught.type)
    assert raised[0] is Unauthorized
    assert raised[-1] is RateLimited
    door.caller(request(authorization="Bearer one"))


def test_a_bucket_fills_again_and_says_when() -> None:
    buckets = Buckets(2)
    buckets.take("a")
    buckets.take("a")
    with pytest.raises(RateLimited) as caught:
        buckets.take("a")
    assert 1 <= int(caught.value.headers["Retry-After"]) <= 31
    buckets.take("b")
