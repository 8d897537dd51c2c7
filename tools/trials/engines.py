"""The engines as they tell of themselves: counters from /metrics, cache flushes, load samples."""

import json
import re
import threading
import time
import urllib.request

# Names of an engine's counters and gauges: prompt tokens asked for, of those found in the cache, requests finished,
# running and waiting, seconds that requests took. Several names are added up; none means that the engine does not tell.
DIALECTS = {
    "vllm": (
        ("vllm:prefix_cache_queries_total",),
        ("vllm:prefix_cache_hits_total",),
        ("vllm:request_success_total",),
        ("vllm:num_requests_running", "vllm:num_requests_waiting"),
        ("vllm:e2e_request_latency_seconds_sum",),
    ),
    "sglang": (
        ("sglang:prompt_tokens_total",),
        ("sglang:cached_tokens_total",),
        ("sglang:num_requests_total",),
        ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
        ("sglang:e2e_request_latency_seconds_sum",),
    ),
    "llamacpp": (
        # llama.cpp counts the tokens it computed apart from those it found.
        ("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"),
        ("llamacpp:prompt_tokens_cached_total",),
        (),
        ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
        (),
    ),
}
FLUSHES = ("/reset_prefix_cache", "/flush_cache")


class Engine:
    def __init__(self, url):
        self.url = url.rstrip("/")
        self.dialect = None

    def get(self, path, timeout=30):
        with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:
            return answer.read().decode()

    def model(self):
        return json.loads(self.get("/v1/models"))["data"][0]["id"]

    def wait_healthy(self, seconds):
        end = time.monotonic() + seconds
        while True:
            try:
                self.get("/health", timeout=5)
                return
            except OSError as error:
                if time.monotonic() > end:
                    raise SystemExit(f"{self.url} is not healthy: {error}") from error
                time.sleep(0.2)

    def flush(self):
        """Empties the prefix cache where the engine can; the salt of the prompts does for the others."""
        for path in FLUSHES:
            try:
                request = urllib.request.Request(self.url + path, method="POST")
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answer.read()
                return True
            except OSError:
                continue
        return False

    def read(self):
        """Prompt tokens, cached tokens, finished requests, requests in flight, seconds of all; None: not told."""
        page = self.get("/metrics")
        if self.dialect is None:
            self.dialect = next((name for name in DIALECTS if f"\n{name}:" in page), None)
            if self.dialect is None:
                raise SystemExit(f"{self.url}/metrics is of no known engine; does it need a flag?")
        return tuple(total(page, names) for names in DIALECTS[self.dialect])

    def cache_tokens(self):
        """Tokens the prefix cache holds, if the engine says so."""
        found = re.search(r"^vllm:cache_config_info\{(.*)\}", self.get("/metrics"), re.M)
        labels = dict(re.findall(r'(\w+)="([^"]*)"', found.group(1))) if found else {}
        try:
            return int(labels["num_gpu_blocks"]) * int(labels["block_size"])
        except (KeyError, ValueError):
            return None


def total(page, names):
    """The sum of some metrics over all their labels; None if the page has none of them."""
    found = [
        float(value)
        for name in names
        for value in re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)", page, re.M)
    ]
    return sum(found) if found else None


def settle(engines, seconds=30):
    """Waits until nothing runs any more, so that counters are complete and the next cell starts on idle engines."""
    end = time.monotonic() + seconds
    while any(engine.read()[3] for engine in engines) and time.monotonic() < end:
        time.sleep(0.05)
    return [engine.read() for engine in engines]


class Sampler(threading.Thread):
    """Notes every engine's requests in flight, from its own gauges, until it is stopped."""

    def __init__(self, engines, interval):
        super().__init__(daemon=True)
        self.engines = engines
        self.interval = interval
        self.samples = [[] for _ in engines]
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.wait(self.interval):
            for engine, samples in zip(self.engines, self.samples):
                try:
                    samples.append(engine.read()[3] or 0)
                except OSError:
                    pass  # an engine too busy to tell is asked again with the next sample

    def stop(self):
        self.stopping.set()
        self.join(60)
        return [(max(samples), sum(samples) / len(samples)) if samples else (0, 0) for samples in self.samples]
