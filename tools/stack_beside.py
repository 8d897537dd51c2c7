#!/usr/bin/env python3
"""The production-stack front end beside the original: the same requests to both, and what is not the same.

    tools/stack_beside.py target/release/ringway 'venv/bin/python -m vllm_router.app'

Each case starts both routers with the same flags before the same engines, made here, which note what they get. Compared
are statuses, bodies (as JSON, without ids and times), content types, what the engine got byte for byte, which engine
got it, exit codes, metric names and log lines. What docs/production-stack.md decides to do otherwise is left out; any
difference ends this with exit code 1.

The original is no package: it runs from a checkout of its repository, with its requirements installed.
"""

import http.client
import http.server
import json
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time

CHAT = "/v1/chat/completions"
# What clients of the original add by themselves, and what belongs to a connection.
HEADERS_IGNORED = {"accept", "accept-encoding", "user-agent", "content-length", "connection", "host", "traceparent"}
VOLATILE = {"created", "engine_id", "version"}
METRICS = b"".join(b"vllm:%s 1\n" % name for name in (
    b"num_requests_running", b"num_requests_waiting", b"gpu_cache_usage_perc", b"gpu_prefix_cache_hit_rate",
    b"gpu_prefix_cache_hits_total", b"gpu_prefix_cache_queries_total"))


class Engine(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.got = []
        self.status = 200
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        is_page = self.path == "/metrics"
        self.answer(METRICS if is_page else b"{}", "text/plain" if is_page else "application/json")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("transfer-encoding"):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        names = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append((self.path, body, names))
        if b'"stream": true' in body or b'"stream":true' in body:
            events = b"".join(b"data: {\"n\":%d}\n\n" % n for n in range(3)) + b"data: [DONE]\n\n"
            return self.answer(events, "text/event-stream")
        self.answer(json.dumps({"worker": self.server.url, "ok": True}).encode())

    def answer(self, content, kind="application/json"):
        self.send_response(self.server.status)
        if self.server.status == 204:
            return self.end_headers()
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Router:
    def __init__(self, command, flags, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = folder / f"log-{self.port}"
        words = [*shlex.split(command), "--host", "127.0.0.1", "--port", str(self.port), *flags]
        self.process = subprocess.Popen(words, stdout=self.log.open("wb"), stderr=subprocess.STDOUT)
        for _ in range(300):
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise SystemExit(f"{words} does not listen:\n{self.log.read_text()[-2000:]}")

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {"content-type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def shown(answer):
    """An answer without what may differ."""
    status, body, headers = answer
    try:
        value = json.loads(body)
    except ValueError:
        value = body.decode(errors="replace")
    for item in [value, *(value.get("data", []) if isinstance(value, dict) else [])]:
        if isinstance(item, dict):
            [item.pop(key, None) for key in VOLATILE]
    if isinstance(value, list):
        value = [{key: item[key] for key in item if key not in VOLATILE} for item in value]
    kind = (headers.get("content-type") or "").split(";")[0]
    return {"status": status, "body": value, "content type": kind, "request id": "x-request-id" in headers}


class Beside:
    def __init__(self, commands):
        self.commands = commands
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="stack-beside-"))
        self.same = self.other = 0

    def compare(self, name, ours, theirs):
        if ours == theirs:
            self.same += 1
            return
        self.other += 1
        print(f"DIFFERS  {name}\n    ours    {str(ours)[:300]}\n    theirs  {str(theirs)[:300]}")

    def pair(self, *flags):
        return [Router(command, flags, self.folder) for command in self.commands]

    def requests(self, engines):
        """Every kind of request, one router after the other."""
        flags = static(engines, ["m", "m"], "roundrobin", "--static-aliases", "gpt:m",
                       "--engine-stats-interval", "1")
        pair = self.pair(*flags)
        long = json.dumps({"model": "m", "prompt": "x" * (1 << 20)})
        cases = [("health", "GET", "/health", None, {}), ("models", "GET", "/v1/models", None, {}),
                 ("version", "GET", "/version", None, {}), ("engines", "GET", "/engines", None, {}),
                 ("no such path", "POST", "/nothing", "{}", {}), ("wrong method", "GET", CHAT, None, {})]
        bodies = {"unknown model": '{"model":"zz"}', "no model": '{"messages":[]}', "no JSON": '{"model":',
                  "a list": "[1]", "empty": "", "an alias": '{"model":"gpt","a":[1, 2]}', "1 MB": long,
                  "white space": ' {\r\n\t"model" :"m" , "messages": [ ]\n}\n ', "twice": '{"model":"zz","model":"m"}',
                  "escapes": '{"model":"\\u006d","text":"\\ud83d\\ude00 \\/"}', "a stream": '{"model":"m","stream":true}',
                  "numbers": '{"model":"m","n":1.0e0,"big":12345678901234567890}'}
        cases += [(name, "POST", CHAT, body, {}) for name, body in bodies.items()]
        cases += [(f"to {path}", "POST", path, '{"model":"m","input":"a"}', {}) for path in (
            "/v1/completions", "/v1/embeddings", "/v1/rerank", "/rerank", "/v1/score", "/score", "/tokenize",
            "/detokenize", "/v1/responses", "/v1/messages", "/v1/audio/speech", "/v1/images/generations")]
        given = {"Authorization": "Bearer sk-1", "X-Request-Id": "mine", "X-Other": "o", "TE": "trailers",
                 "Proxy-Connection": "keep-alive", "Keep-Alive": "timeout=5"}
        cases.append(("headers", "POST", CHAT, '{"model":"m"}', given))
        for name, method, path, body, headers in cases:
            seen = []
            for router in pair:
                [engine.got.clear() for engine in engines]
                answer = shown(router.ask(method, path, body, headers))
                if isinstance(answer["body"], dict):
                    answer["body"].pop("worker", None)
                got = [got for engine in engines for got in engine.got]
                names = [{key: value for key, value in head.items() if key not in HEADERS_IGNORED
                          and key != "x-request-id"} for _, _, head in got]
                seen.append((answer, [(path, body) for path, body, _ in got], names))
            # Our own answers have an id as well, and the original writes an alias's body anew.
            for one in seen:
                if method == "GET" or name in ("no such path", "wrong method"):
                    one[0].pop("request id")
                if name == "an alias":
                    one[1][:] = [(path, json.loads(body)) for path, body in one[1]]
            self.compare(name, *seen)
        for status in (204, 400, 404, 429, 500, 503):
            for engine in engines:
                engine.status = status
            self.compare(f"engine answers {status}", *(shown(router.ask("POST", CHAT, '{"model":"m"}'))["status"]
                                                       for router in pair))
        for engine in engines:
            engine.status = 200
        turns = [[router.ask("POST", CHAT, '{"model":"m"}')[1] for _ in range(12)] for router in pair]
        strict = [all(turn[at] != turn[at + 1] for at in range(11)) for turn in turns]
        self.compare("turns are strict over connections", *strict)
        time.sleep(2)
        names = [set(re.findall(r"^(vllm:[a-z_]+)[{ ]", router.ask("GET", "/metrics")[1].decode(), re.M))
                 for router in pair]
        self.compare("metrics that the original has", names[1] - names[0] - {name for name in names[1] if
                     name.endswith("_created")}, set())
        line = re.compile(r"Routing request \S+ with session id \S+ to \S+ at [\d.]+, process time = \d+\.\d{4}")
        time.sleep(0.5)
        self.compare("the line in the log", *(bool(line.search(router.log.read_text())) for router in pair))
        [router.stop() for router in pair]

    def choices(self, engines):
        """Which engine gets what."""
        pair = self.pair(*static(engines, ["m", "m", "m"], "session", "--session-key", "x-user-id"))
        for number in range(100):
            name = f"s{number}" if number < 90 else f"{number}\u00e9\U0001f600"
            body = json.dumps({"model": "m", "x-user-id": name})
            self.compare(f"session {name} in the body", *(router.ask("POST", CHAT, body)[1] for router in pair))
            if name.isascii():
                self.compare(f"session {name}", *(router.ask("POST", CHAT, '{"model":"m"}', {"x-user-id": name})[1]
                                                  for router in pair))
        [router.stop() for router in pair]
        pair = self.pair(*static(engines, ["m", "m", "m"], "prefixaware"))
        for family in range(1, 6):
            homes = []
            for router in pair:
                asked = []
                for length in range(1, 5):
                    body = json.dumps({"model": "m", "prompt": str(family) * 128 * length})
                    asked.append(router.ask("POST", "/v1/completions", body)[1])
                    time.sleep(0.05)
                homes.append(len(set(asked)))
            self.compare(f"prefix family {family} has one engine", *homes)
        [router.stop() for router in pair]

    def trouble(self, engines):
        """Dead engines, and a file of settings."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{probe.getsockname()[1]}"
        for attempts in (0, 1):
            pair = self.pair("--service-discovery", "static", "--static-backends", dead, "--static-models", "m",
                             "--routing-logic", "roundrobin", "--max-instance-failover-reroute-attempts", str(attempts))
            answers = [shown(router.ask("POST", CHAT, '{"model":"m"}')) for router in pair]
            # Ours has an id there too.
            [answer.pop("request id") for answer in answers]
            self.compare(f"nobody left, {attempts} more", *answers)
            [router.stop() for router in pair]
        pair = self.pair("--service-discovery", "static", "--static-backends", f"{dead},{engines[0].url}",
                         "--static-models", "m,m", "--routing-logic", "roundrobin",
                         "--max-instance-failover-reroute-attempts", "1")
        self.compare("one of two is dead", *([router.ask("POST", CHAT, '{"model":"m"}')[0] for _ in range(6)]
                                             for router in pair))
        [router.stop() for router in pair]
        file = self.folder / "settings.json"
        settings = {"service_discovery": "static", "routing_logic": "roundrobin", "static_models": "m",
                    "static_backends": engines[0].url}
        file.write_text(json.dumps(settings))
        pair = self.pair("--dynamic-config-json", str(file))
        for name, text, home in [("first", None, 0), ("changed", json.dumps({**settings, "static_backends":
                                 engines[1].url}), 1), ("no JSON", "{", 1), ("unknown key", json.dumps({**settings,
                                 "nonsense": 1}), 1)]:
            if text is not None:
                file.write_text(text)
                time.sleep(12)
            answers = [json.loads(router.ask("POST", CHAT, '{"model":"m"}')[1])["worker"] for router in pair]
            self.compare(f"settings: {name}", answers, [engines[home].url] * 2)
        [router.stop() for router in pair]

    def pairs(self, engines):
        """Prefill and decode engines: what the client gets, and what each is asked."""
        for logic in ("disaggregated_prefill", "disaggregated_prefill_orchestrated"):
            pair = self.pair(*static(engines[:2], ["m", "m"], logic, "--static-model-labels", "p,d",
                                     "--prefill-model-labels", "p", "--decode-model-labels", "d"))
            for body in ('{"model":"m","max_tokens":9,"messages":[]}', '{"model":"m","stream":true,"messages":[]}'):
                seen = []
                for router in pair:
                    [engine.got.clear() for engine in engines]
                    status, said, _ = router.ask("POST", CHAT, body)
                    said = said if b"data: " in said else json.loads(said)
                    asked = json.loads(engines[0].got[0][1])
                    seen.append((status, said, len(engines[0].got), len(engines[1].got), asked["max_tokens"],
                                 asked["stream"], sorted(asked.get("kv_transfer_params") or {})))
                self.compare(f"{logic} {body[:30]}", *seen)
            [router.stop() for router in pair]

    def ends(self):
        """Command lines that cannot be used."""
        stated = ["--static-backends", "http://127.0.0.1:1", "--static-models", "m"]
        for flags in (["--routing-logic", "roundrobin", *stated], ["--service-discovery", "static", *stated],
                      ["--service-discovery", "static", "--routing-logic", "roundrobin"],
                      ["--service-discovery", "static", "--routing-logic", "session", *stated],
                      ["--service-discovery", "static", "--routing-logic", "roundrobin", *stated, "--nonsense"],
                      ["--service-discovery", "static", "--routing-logic", "best", *stated],
                      ["--service-discovery", "static", "--routing-logic", "roundrobin", *stated[:3], "m,n"]):
            codes = [subprocess.run([*shlex.split(command), "--host", "127.0.0.1", *flags], capture_output=True,
                                    timeout=60).returncode for command in self.commands]
            self.compare(f"exit code of {' '.join(flags)}", *codes)


def static(engines, models, logic, *more):
    urls = ",".join(engine.url for engine in engines[:len(models)])
    return ["--service-discovery", "static", "--static-backends", urls, "--static-models", ",".join(models),
            "--routing-logic", logic, *more]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    beside = Beside(sys.argv[1:])
    engines = sorted((Engine() for _ in range(3)), key=lambda engine: engine.url)
    beside.requests(engines[:2])
    beside.choices(engines)
    beside.trouble(engines)
    beside.pairs(engines)
    beside.ends()
    print(f"{beside.same} the same, {beside.other} not the same")
    sys.exit(beside.other > 0)


if __name__ == "__main__":
    main()
