"""`make image-test`: lint, build and run the image on this machine, without a Docker engine.

From nothing it needs root, apt and the package index; what it made is kept in `.image-test/`.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from builder import image_run
from builder.image_base import make_base
from builder.image_build import build, copy_source, make_context, rebuild
from builder.image_run import surroundings
from builder.image_shop import CheckFailed, Shop, open_shop

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(slots=True)
class Checks:
    """Runs checks one after the other, a line each, and counts."""

    passed: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)

    def run(self, name: str, check: Callable[[], object]) -> bool:
        """Run one; what it answers, when that is text, stands behind its time."""
        began = time.monotonic()
        try:
            found = check()
        except CheckFailed as error:
            self.failed += 1
            print(f"FAIL  {name:<34} {time.monotonic() - began:6.1f} s  {error}", flush=True)
            return False
        self.passed += 1
        fact = found if isinstance(found, str) else ""
        print(f"ok    {name:<34} {time.monotonic() - began:6.1f} s  {fact}".rstrip(), flush=True)
        return True

    def finish(self) -> int:
        """The last line, and the exit status."""
        print(f"\n{time.monotonic() - self.started:.0f} s in all")
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or not self.passed else 0


def main() -> int:
    """Run every check that still makes sense after the ones before it."""
    checks = Checks()
    opened: list[Shop] = []
    if checks.run("tools", lambda: opened.append(open_shop(ROOT))):
        shop = opened[0]
        checks.run("hadolint", lambda: lint(shop))
        checks.run("compose file", lambda: check_compose(shop))
        if checks.run("bootstrapped base", lambda: make_base(shop)):
            check_image(shop, checks)
    return checks.finish()


def lint(shop: Shop) -> None:
    """hadolint, every rule, any finding fails."""
    shop.run([shop.tools / "hadolint", "--failure-threshold", "style", "Dockerfile"], log="lint")


def check_compose(shop: Shop) -> None:
    """The compose file is read, and every variable in it has a value."""
    compose = [str(shop.tools / "docker-compose"), "--file", "docker-compose.yml"]
    said = shop.run([*compose, "config", "--quiet"], log="compose", COMPOSE_PROJECT_NAME="test")
    if "variable is not set" in said:
        raise CheckFailed(said)


def check_image(shop: Shop, checks: Checks) -> None:
    """Build, run, build again."""
    make_context(shop)
    source = copy_source(shop)

    def first() -> str:
        built = build(shop, source, log="build")
        return f"{built.steps} steps, {built.cached} cached"

    if not checks.run("build", first):
        return
    checks.run("configuration", lambda: image_run.check_configuration(shop))
    checks.run("no torch beside the handler", lambda: image_run.check_no_torch(shop))
    check_runs(shop, checks)
    if shop.overlay:
        checks.run("rebuild after a change of handler", lambda: rebuild(shop, source))


def check_runs(shop: Shop, checks: Checks) -> None:
    """The image between a bucket and a platform, in a network of their own."""
    try:
        with surroundings(shop) as around:
            checks.run("test_input.json", lambda: image_run.check_first_job(around))
            if checks.run("a job of the platform", lambda: image_run.check_platform_job(around)):
                checks.run("SIGTERM", lambda: image_run.check_end(around))
    except CheckFailed as error:
        reason = error

        def fail() -> None:
            raise reason

        checks.run("surroundings", fail)


if __name__ == "__main__":
    sys.exit(main())
