"""`python -m gateway`: serve the API and the page until told to stop."""

import ipaddress
import sys

import uvicorn

from gateway.app import create_app
from gateway.settings import GatewaySettings
from worker import logs
from worker.errors import InvalidSettings


def main() -> int:
    """Serve; 2 when it cannot start, with one line per reason."""
    try:
        settings = GatewaySettings.from_environment()
        _check_reach(settings)
    except InvalidSettings as error:
        sys.stderr.write(f"The gateway cannot start:\n{error}\n")
        return 2
    style = settings.log_format
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    secrets = (
        settings.s3_secret_access_key.get_secret_value(),
        settings.runpod_api_key.get_secret_value(),
        *settings.api_keys,
    )
    logs.configure(style, settings.log_level, secrets=secrets)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        limit_concurrency=2000,
    )
    return 0


def _check_reach(settings: GatewaySettings) -> None:
    """Without keys nobody else may reach us."""
    try:
        loopback = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        loopback = settings.host == "localhost"
    if not settings.api_keys and not loopback:
        raise InvalidSettings(f"GATEWAY_API_KEYS is missing: HOST {settings.host} is not loopback.")


if __name__ == "__main__":
    sys.exit(main())
