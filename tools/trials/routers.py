"""The routers on trial: started from a template for each cell, or already running."""

import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request


class NotReady(Exception):
    """A router that did not come up; the message says why."""


class Router:
    def __init__(self, text):
        self.name, equals, self.spec = text.partition("=")
        if not (self.name and equals and self.spec):
            raise ValueError(f"--router {text}: not NAME=COMMAND or NAME=http://HOST:PORT")
        self.is_running = self.spec.startswith(("http://", "https://"))
        self.url = self.spec.rstrip("/") if self.is_running else None
        self.child = None
        self.log = None

    def start(self, engines, model, seconds):
        """Returns when the router has passed a request on to every engine, as far as they tell."""
        if not self.is_running:
            port, metrics_port = free_ports(2)
            urls = [engine.url for engine in engines]
            self.url = f"http://127.0.0.1:{port}"
            self.log = tempfile.TemporaryFile()
            command = expand(self.spec, urls, port, metrics_port)
            try:
                # A group of its own: Ctrl-C in the terminal reaches this tool alone, which then ends the router.
                self.child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True
                )
            except OSError as error:
                raise NotReady(f"{self.name}: {error}") from error
        end = time.monotonic() + seconds
        before = [finished(engine) for engine in engines]
        count = 0
        while True:
            # Several at a time, because some policies give one request after the other to the same idle worker.
            width = 2 * len(engines)
            answers = together([lambda n=n: probe(self.url, model, n) for n in range(count, count + width)])
            count += width
            met = [now > then for now, then in zip([finished(engine) for engine in engines], before)]
            if any(answers) and all(met):
                return []
            if self.child and self.child.poll() is not None:
                raise NotReady(f"{self.name} ended with {self.child.returncode}: {self.tail()}")
            if time.monotonic() > end:
                if not any(answers):
                    raise NotReady(f"{self.name} answers no request: {self.tail()}")
                # It may be what the policy does; the table shows it.
                return [engine.url for engine, is_met in zip(engines, met) if not is_met]
            time.sleep(0.2)

    def tail(self):
        if not self.log:
            return "its log is elsewhere"
        size = self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, size - 800))
        return self.log.read().decode(errors="replace").strip()

    def stop(self):
        """Ends what was started here, and nothing else."""
        child, self.child = self.child, None
        if child:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    # The child leads its own group, so its id names what it started as well.
                    os.killpg(child.pid, number)
                    child.wait(10)
                    break
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue
            child.wait(10)
        if self.log:
            self.log.close()
            self.log = None


def expand(template, urls, port, metrics_port):
    """The command's words; a word that is just {workers} becomes one word for each worker."""
    values = {
        "{port}": str(port),
        "{metrics_port}": str(metrics_port),
        "{workers}": " ".join(urls),
        "{workers_csv}": ",".join(urls),
    }
    command = []
    for word in shlex.split(template):
        if word == "{workers}":
            command += urls
            continue
        for name, text in values.items():
            word = word.replace(name, text)
        command.append(os.path.expanduser(word))
    return command


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def finished(engine):
    """A number that grows when the engine answers a request."""
    tokens, _, requests, *_ = engine.read()
    return (tokens if requests is None else requests) or 0


def probe(url, model, number):
    """One small chat that resembles no other."""
    content = f"{number * 7919 % 10007} probes of {time.time_ns()}"
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
    headers = {"content-type": "application/json"}
    try:
        request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
            return answer.status == 200
    except OSError:
        return False


def together(calls):
    answers = [None] * len(calls)

    def run(index):
        answers[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
