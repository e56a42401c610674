"""Checks that every dependency's licence is one that deny.toml allows. Works offline; `cargo deny check` does more."""

import json
import re
import subprocess
import sys
import tomllib

with open("deny.toml", "rb") as file:
    ALLOWED = set(tomllib.load(file)["licenses"]["allow"])


def allowed(expression):
    """Whether an SPDX expression can be satisfied: any side of an OR, every side of an AND."""
    expression = expression.replace("/", " OR ")
    if " OR " in expression and "(" not in expression:
        return any(allowed(part) for part in expression.split(" OR "))
    if "(" in expression:
        inner = re.sub(r"\(([^()]*)\)", lambda match: "ALLOWED" if allowed(match[1]) else "REFUSED", expression)
        return allowed(inner)
    if " AND " in expression:
        return all(allowed(part) for part in expression.split(" AND "))
    return expression.strip() == "ALLOWED" or expression.strip() in ALLOWED


metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"]))
refused = [
    f"{package['name']} {package['version']}: {package['license']}"
    for package in metadata["packages"]
    if not allowed(package["license"] or "none given")
]
print(f"{len(metadata['packages'])} packages, {len(refused)} with a licence that deny.toml does not allow")
print("\n".join(refused))
sys.exit(bool(refused))
