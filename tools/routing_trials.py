#!/usr/bin/env python3
"""Measures how well routers route: several routers on the same traces and the same engines, in one run, one table.

    tools/routing_trials.py --engine http://127.0.0.1:8001 --engine http://127.0.0.1:8002 \\
        --router 'ours=target/release/ringway --host 127.0.0.1 --port {port} --prometheus-port {metrics_port}
                  --log-level warn --policy cache_aware --worker-urls {workers}' \\
        --router 'turns=target/release/ringway --host 127.0.0.1 --port {port} --prometheus-port {metrics_port}
                  --log-level warn --policy round_robin --worker-urls {workers}' \\
        --trace multi_turn --trace shared_prefix --concurrency 4 --concurrency 16 --rounds 3 --baseline turns

The engines run already: vLLM, SGLang or llama.cpp's server with --metrics, or `ringway engine-sim`. A router is a
command that is started anew for each cell (a router, a trace and a load), so that it knows nothing from the cell
before, or the URL of one that runs already.

Traces, all made from --seed:
  multi_turn     conversations that take turns, each turn sends the history: --turns, --prefix-words, --turn-words
  shared_prefix  groups with a long shared prompt and unique questions: --groups, --prefix-words, --question-words
  hot_prefix     one group holds --hot-share of the requests, the rest are unique prompts
  FILE.jsonl     a Mooncake trace ({"timestamp","input_length","output_length","hash_ids"}), --block-words for an id

Affinity shows where the working set is larger than the cache of one engine and smaller than the sum of all, and
where computing a prompt costs more than everything else: long prefixes, few output tokens.
The default sizes fit two engines whose caches hold 16,384 tokens or 12 prompts each.
Give each engine a core of its own if they share a machine (taskset): to a router a starved engine is a busy one, and
where a conversation is placed first, it stays.

What the table says:
  req/s            completed requests over the time from the first to the last
  hit %            prompt tokens that the engines found in their caches, by their own counters; to be compared with
                   the best possible, which one endless cache would have (in characters, so off by a template)
  TTFT             until the first content of the stream, as the client sees it
  requests/engine  by the engines' counters; with ~ by their share of the prompt tokens, where they do not count
  in flight        running and waiting at each engine: the most that its gauges showed, sampled every --sample-ms, and
                   the mean, from the engine's sum of request times where it has one. Gauges may lag behind a step
Figures are medians over the rounds; the order of the routers rotates from round to round. Errors are sums.
Only addresses in 127.0.0.0/8 are used unless --any-address is given. A run is bounded by --requests and
--cell-seconds for each cell; Ctrl-C ends the routers that were started and prints what was measured so far.
"""

import argparse
import http.client
import ipaddress
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

sys.dont_write_bytecode = True

from trials import engines as engine_side
from trials import report, traces
from trials.load import Load
from trials.routers import NotReady, Router

REQUESTS_MAX = 100_000
CONCURRENCY_MAX = 512


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--engine", action="append", required=True, metavar="URL", help="an engine behind the routers; repeat")
    add("--router", action="append", required=True, metavar="NAME=COMMAND|NAME=URL", help="a router; repeat. In a "
        "command {port}, {metrics_port}, {workers} (a word for each URL) and {workers_csv} are filled in; no shell")
    add("--trace", action="append", metavar="NAME|FILE", help="a trace; repeat [multi_turn and shared_prefix]")
    add("--concurrency", action="append", type=int, metavar="N", help="requests at a time; repeat [8]")
    add("--requests", type=int, default=144, metavar="N", help="requests of each cell [%(default)s]")
    add("--rounds", type=int, default=1, metavar="N", help="how often each cell is measured [%(default)s]")
    add("--seed", type=int, default=1, metavar="N", help="seed of the traces [%(default)s]")
    add("--baseline", metavar="NAME", help="the router that the others are compared with [the last]")
    add("--json", metavar="FILE", help="also write options, cells and medians there")
    add("--model", metavar="NAME", help="model to ask for [the first engine's first]")

    shape = parser.add_argument_group("shape of the traces")
    add = shape.add_argument
    add("--max-tokens", type=int, default=2, metavar="N", help="output tokens of a request [%(default)s]")
    add("--prefix-words", type=int, default=1000, metavar="N", help="words of a long prompt [%(default)s]")
    add("--groups", type=int, default=18, metavar="N", help="shared_prefix: groups [%(default)s]")
    add("--question-words", type=int, default=20, metavar="N", help="words of a unique question [%(default)s]")
    add("--turns", type=int, default=8, metavar="N", help="multi_turn: turns of a conversation [%(default)s]")
    add("--turn-words", type=int, default=20, metavar="N", help="multi_turn: words of a question [%(default)s]")
    add("--answer-words", type=int, default=10, metavar="N", help="multi_turn: words of an answer [%(default)s]")
    add("--hot-share", type=float, default=0.26, metavar="SHARE", help="hot_prefix: the group's share [%(default)s]")
    add("--block-words", type=int, default=32, metavar="N", help="file: words for a hash id [%(default)s]")
    add("--prompt-words-max", type=int, default=2500, metavar="N", help="file: longer prompts are cut [%(default)s]")
    add("--session-keys", action="store_true", help="name the conversation or group in a header x-session-id")
    add("--speed", type=float, metavar="X", help="file: keep its clock, X times as fast [as fast as the load allows]")

    bounds = parser.add_argument_group("bounds and care")
    add = bounds.add_argument
    add("--cell-seconds", type=float, default=120, metavar="S", help="nothing is sent later [%(default)s]")
    add("--timeout", type=float, default=60, metavar="S", help="longest wait within a request [%(default)s]")
    add("--ready-seconds", type=float, default=30, metavar="S", help="longest start of a router [%(default)s]")
    add("--sample-ms", type=int, default=250, metavar="MS", help="pause between load samples [%(default)s]")
    add("--engine-restart", metavar="COMMAND", help="run before each cell; it returns when the engines are up again")
    add("--any-address", action="store_true", help="allow engines and routers outside 127.0.0.0/8")
    options = parser.parse_args()

    options.trace = options.trace or ["multi_turn", "shared_prefix"]
    options.concurrency = options.concurrency or [8]
    for trace in options.trace:
        if trace not in traces.NAMES and not os.path.isfile(trace):
            parser.error(f"--trace {trace}: neither a file nor one of {', '.join(traces.NAMES)}")
    if not 0 < options.requests <= REQUESTS_MAX:
        parser.error(f"--requests: from 1 to {REQUESTS_MAX}")
    if not all(0 < concurrency <= CONCURRENCY_MAX for concurrency in options.concurrency):
        parser.error(f"--concurrency: from 1 to {CONCURRENCY_MAX}")
    try:
        options.routers = [Router(text) for text in options.router]
    except ValueError as error:
        parser.error(str(error))
    names = [router.name for router in options.routers]
    if len(set(names)) < len(names):
        parser.error("two routers have the same name")
    options.baseline = options.baseline or names[-1]
    if options.baseline not in names:
        parser.error(f"--baseline: no router is named {options.baseline}")
    if not options.any_address:
        for url in options.engine + [router.url for router in options.routers if router.is_running]:
            host = urllib.parse.urlsplit(url).hostname or ""
            if not is_local(host):
                parser.error(f"{url} is not on this machine; --any-address allows it")
    return options


def is_local(host):
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def measure(options, engines, router, trace, concurrency, salt):
    """One cell, from idle engines to idle engines."""
    if options.engine_restart:
        subprocess.run(shlex.split(options.engine_restart), check=True, timeout=600, stdout=subprocess.DEVNULL)
        for engine in engines:
            engine.wait_healthy(300)
    requests = traces.make(trace, options, salt)
    began = time.monotonic()
    try:
        unmet = router.start(engines, options.model, options.ready_seconds)
        ready = time.monotonic() - began
        if unmet:
            say(f"{router.name} has sent nothing to {' '.join(unmet)} so far")
        engine_side.settle(engines)
        for engine in engines:
            engine.flush()
        before = engine_side.settle(engines)
        sampler = engine_side.Sampler(engines, options.sample_ms / 1000)
        sampler.start()
        try:
            answers, seconds = Load(router.url, options.model, requests, options, concurrency).run()
        finally:
            samples = sampler.stop()
        after = engine_side.settle(engines)
    finally:
        router.stop()
    oracle = traces.Oracle(requests)
    return {
        "trace": trace,
        "concurrency": concurrency,
        "router": router.name,
        "ideal": oracle.hit_rate,
        "chars": oracle.chars,
        "distinct": oracle.distinct,
        "ready_seconds": ready,
        "figures": report.figures(answers, seconds, before, after, samples),
    }


def run(options, engines, cells):
    """Every cell once a round; the routers that are compared follow each other, in another order every round.

    Returns how many cells could not be measured because their router did not come up.
    """
    salt = options.seed % 9000 * 10_000
    missing = 0
    for number in range(options.rounds):
        for trace in options.trace:
            for concurrency in options.concurrency:
                first = number % len(options.routers)
                for router in options.routers[first:] + options.routers[:first]:
                    salt += 1
                    try:
                        cell = measure(options, engines, router, trace, concurrency, salt)
                    except NotReady as error:
                        say(str(error))
                        missing += 1
                        continue
                    cells.append({"round": number, **cell})
                    seen = cell["figures"]
                    say(
                        f"round {number + 1} {trace} {concurrency}: {router.name} {seen['req_per_s']:.1f} req/s, "
                        f"hit {seen['hit_rate']:.1%}, {seen['seconds']:.1f} s "
                        f"after {cell['ready_seconds']:.1f} s of starting, {seen['failed']} failed"
                    )
    return missing


def say(text):
    print(text, file=sys.stderr, flush=True)


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    options = arguments()
    # To be told to end is the same as Ctrl-C: the routers started here must not stay.
    signal.signal(signal.SIGTERM, interrupt)
    engines = [engine_side.Engine(url) for url in options.engine]
    for engine in engines:
        engine.wait_healthy(5)
        engine.read()
        size = engine.cache_tokens()
        say(f"{engine.url}: {engine.dialect}" + (f", its cache holds {size:,} tokens" if size else ""))
    options.model = options.model or engines[0].model()
    cells = []
    try:
        code = int(run(options, engines, cells) > 0)
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
        # Without its engines a cell says nothing about its router; what was measured before still does.
        say(f"an engine does not answer: {error}")
        code = 1
    if not cells:
        return code or 1
    table = report.rows(cells, options.baseline)
    print(report.text(table, options.baseline, [router.name for router in options.routers]))
    if options.json:
        shown = {name: value for name, value in vars(options).items() if name != "routers"}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"options": shown, "medians": table, "cells": cells}, file, indent=1)
    return code or int(any(row["failed"] or row["unsent"] for row in table))


if __name__ == "__main__":
    sys.exit(main())
