#!/usr/bin/env python3
"""Talks to a gateway with the official `openai` client: models, chat, tools, streams, and a clear error.

    pip install openai
    tools/openai_check.py http://127.0.0.1:30000 MODEL [--tools]

Prints one line per check and exits with 1 if any failed. `--tools` needs an engine that calls tools.
"""
import sys

import openai

base, model = sys.argv[1], sys.argv[2]
client = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
failures = 0
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def check(name, holds, seen):
    global failures
    failures += not holds
    print(f"{'ok  ' if holds else 'FAIL'} {name}: {seen}")


def ask(content, **more):
    messages = [{"role": "user", "content": content}]
    return client.chat.completions.create(model=model, messages=messages, max_tokens=120, temperature=0, **more)


ids = [m.id for m in client.models.list()]
check("models", model in ids, ids)

whole = ask("hello there")
message = whole.choices[0].message
text = (message.content or "") + (getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or "")
check("chat", bool(text) and whole.usage.completion_tokens > 0, repr(text[:60]))

pieces, usage, finish = [], None, None
for chunk in ask("hello there", stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    for choice in chunk.choices:
        finish = choice.finish_reason or finish
        delta = choice.delta
        pieces.append(delta.content or "")
check("stream", len(pieces) > 2 and finish is not None and usage is not None, f"{len(pieces)} chunks, {finish}")
check("stream equals chat", "".join(pieces) == (message.content or ""), repr("".join(pieces)[:60]))

raw = client.chat.completions.with_raw_response.create(
    model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=4, extra_headers={"x-request-id": "check-1"}
)
check("request id", raw.headers.get("x-request-id") == "check-1", raw.headers.get("x-request-id"))

if "--tools" in sys.argv:
    call = ask("What is the weather in Paris?", tools=[WEATHER]).choices[0].message.tool_calls
    check("tools", bool(call) and call[0].function.name == "get_weather", call and call[0].function.arguments)
    name, arguments = "", ""
    for chunk in ask("What is the weather in Paris?", tools=[WEATHER], stream=True):
        for piece in (chunk.choices[0].delta.tool_calls if chunk.choices else None) or []:
            name += piece.function.name or ""
            arguments += piece.function.arguments or ""
    check("tools in a stream", name == "get_weather" and "Paris" in arguments, f"{name} {arguments}")

try:
    client.post("/chat/completions", body={"model": 7}, cast_to=object)
    check("bad request", False, "accepted")
except openai.BadRequestError as error:
    check("bad request", error.code == "invalid_request" and error.param == "model", error.message)

sys.exit(failures > 0)
