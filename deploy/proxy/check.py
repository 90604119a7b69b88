#!/usr/bin/env python3
"""Checks that nginx.conf and Caddyfile send to the projections what projection-service answers, and nothing else.

The routes are read from the sources of the two services. Exit code 1 if a route goes the wrong way.
"""

import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent


def routes(service: str) -> set[tuple[str, str]]:
    """Method and path of every route, with something in the place of each parameter."""
    found = set()
    for source in (ROOT / service / "src").rglob("*.rs"):
        for method, path in re.findall(r'utoipa::path\(\s*(\w+),\s*path = "([^"]+)"', source.read_text()):
            found.add((method.upper(), re.sub(r"\{[^}]*\}", "x-1", path)))
    return found


def main() -> None:
    nginx = [re.compile(rule) for rule in re.findall(r'"~(\^\(GET\|HEAD\) [^"]+)"', (HERE / "nginx.conf").read_text())]
    caddy = re.compile(re.search(r"path_regexp (\S+)", (HERE / "Caddyfile").read_text())[1])
    wrong = []
    for service, expected in (("projection-service", True), ("command-service", False)):
        all_routes = routes(service)
        assert all_routes, f"no routes found in {service}"
        below = [(method, prefix + path) for method, path in all_routes for prefix in ("", "/auth", "/id/v2")]
        for method, path in sorted(below):
            by_nginx = any(rule.search(f"{method} {path}") for rule in nginx)
            by_caddy = method in ("GET", "HEAD") and bool(caddy.search(path))
            if (by_nginx, by_caddy) != (expected, expected):
                wrong.append(f"{service}: {method} {path}: nginx {by_nginx}, Caddy {by_caddy}")
    print("\n".join(wrong) or "every route goes to the service that answers it")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
