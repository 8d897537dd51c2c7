"""The load: streaming chats, a fixed number at a time, each timed to its first token and to its end."""

import http.client
import json
import threading
import time
import urllib.parse


class Answer:
    """What became of one request; seconds, `error` is None when all was well."""

    def __init__(self):
        self.ttft = None
        self.total = None
        self.error = None


class Load:
    """A closed loop: `concurrency` clients, each takes the next request that may be sent."""

    def __init__(self, url, model, requests, options, concurrency):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port, self.path = parts.hostname, parts.port or 80, parts.path
        self.model = model
        self.requests = requests
        self.options = options
        self.concurrency = concurrency
        self.answers = [None] * len(requests)
        self.waiting = list(range(len(requests) - 1, -1, -1))
        self.done = [False] * len(requests)
        self.change = threading.Condition()
        self.start = self.end = 0.0

    def run(self):
        """The answers in the order of the trace, None for what was not sent in time; and the seconds it took."""
        self.start = time.monotonic()
        self.end = self.start + self.options.cell_seconds
        clients = [threading.Thread(target=self.client, daemon=True) for _ in range(self.concurrency)]
        for client in clients:
            client.start()
        try:
            for client in clients:
                client.join()
        finally:
            # Reached early by Ctrl-C: nothing more is sent.
            with self.change:
                self.waiting.clear()
                self.change.notify_all()
        return self.answers, time.monotonic() - self.start

    def client(self):
        while (index := self.take()) is not None:
            answer = self.answers[index] = Answer()
            began = time.monotonic()
            try:
                self.send(self.requests[index], answer, began)
            except (OSError, http.client.HTTPException, ValueError) as error:
                answer.error = type(error).__name__
            answer.total = time.monotonic() - began
            with self.change:
                self.done[index] = True
                self.change.notify_all()

    def take(self):
        """The first request whose turn has come; None when there is none left, or no time."""
        with self.change:
            while self.waiting:
                now = time.monotonic()
                if now >= self.end:
                    return None
                pause = self.end - now
                for place in range(len(self.waiting) - 1, -1, -1):
                    request = self.requests[self.waiting[place]]
                    if request.at is not None and self.start + request.at > now:
                        pause = min(pause, self.start + request.at - now)
                        break  # a file is in the order of its clock
                    if request.after is None or self.done[request.after]:
                        return self.waiting.pop(place)
                self.change.wait(pause)
        return None

    def send(self, request, answer, began):
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
            "max_tokens": request.max_tokens or self.options.max_tokens,
            "temperature": 0,
            "stream": True,
        }
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.options.timeout)
        try:
            headers = {"content-type": "application/json"}
            if self.options.session_keys and request.session is not None:
                headers["x-session-id"] = request.session
            connection.request("POST", self.path + "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            if response.status != 200:
                answer.error = f"status {response.status}"
                response.read(65536)
                return
            self.read(response, answer, began)
        finally:
            connection.close()

    def read(self, response, answer, began):
        first_event = None
        while line := response.readline(1 << 20):
            if not line.startswith(b"data:"):
                continue
            now = time.monotonic() - began
            data = line[5:].strip()
            if data == b"[DONE]":
                # Some engines say nothing but the role for an empty token; then that was the first sign of it.
                answer.ttft = first_event if answer.ttft is None else answer.ttft
                answer.error = "empty stream" if answer.ttft is None else None
                return
            if data.startswith(b'{"error"'):
                answer.error = "error event"
                return
            if answer.ttft is not None:
                continue
            event = json.loads(data)
            first_event = now if first_event is None else first_event
            for choice in event.get("choices") or []:
                delta = choice.get("delta") or {}
                if any(delta.get(name) for name in ("content", "reasoning_content", "reasoning", "tool_calls")):
                    answer.ttft = now
        answer.error = "stream cut"
